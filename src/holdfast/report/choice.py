"""Which jobs of a sweep a figure shows, and what they are called there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from holdfast.report.style import NAMED, Curve, short
from holdfast.store.folders import RunFolder
from holdfast.sweeps.rank import Job, Ranking, swept_keys

MOST = 60
"""Jobs drawn as lines; of more, so many from all ranks."""

PANELS = 4
"""Groups of jobs that lie side by side."""

MOST_NAMES = 12
"""Values that are no numbers, along an axis."""


class Choice:
    """The jobs that are compared with each other.

    Args:
        ranking: the jobs, best first.
        folder_of: the folder of a job.

    Attributes:
        keys: the swept keys.
        present: the jobs whose folders are there, best first.
    """

    def __init__(self, ranking: Ranking, folder_of: Callable[[int], RunFolder]) -> None:
        self._ranking, self._folder_of = ranking, folder_of
        self.keys = swept_keys(ranking.jobs)
        self.present = [job for job in ranking.jobs if folder_of(job.number).result.exists()]

    def axes(self) -> list[str]:
        """The keys along which a figure can be drawn; seeds are no axis, they tell how far chance goes."""
        return [key for key in self.keys if key.rpartition(".")[2] != "seed" and self._is_axis(self.values(key))]

    def beside(self, key: str) -> str | None:
        """The key whose values get a line each where another is the axis."""
        others = [other for other in self.axes() if other != key and len(self.values(other)) <= NAMED]
        return "batch_size" if "batch_size" in others else next(iter(others), None)

    def values(self, key: str) -> list[str]:
        """What a key was given, in order: numbers by size, then names."""
        seen = dict.fromkeys(job.given.get(key, "") for job in self._in_order())
        return sorted(seen, key=lambda value: (number(value) is None, number(value) or 0.0))

    def first(self) -> Job | None:
        """The best job that left weights."""
        return next((job for job in self.present if self._folder_of(job.number).weights.exists()), None)

    def diverged(self) -> list[Job]:
        """The jobs that diverged."""
        return [job for job in self._ranking.jobs if job.result.status == "diverged"]

    def lines(self, has: Callable[[Job], bool] = lambda job: True) -> Iterator[tuple[Job, Curve]]:
        """The jobs that become lines, each with its name, if it is one of those that have one.

        Args:
            has: whether a job has what is drawn.
        """
        jobs = [job for job in self.present if has(job)]
        groups: dict[str, list[Job]] = {}
        for job in jobs:
            groups.setdefault(self.group(job), []).append(job)
        each = max(1, NAMED // max(1, len(groups)))
        named = sorted(job.number for alike in list(groups.values())[:NAMED] for job in alike[:each])
        rest = [job.number for job in jobs if job.number not in named]
        thin = set(rest[:: max(1, -(-len(rest) // (MOST - NAMED)))])
        for job in jobs:
            if job.number in named:
                chosen = job is self._ranking.winner and len(jobs) > 1
                yield job, Curve(self.label(job), [], [], chosen, named.index(job.number))
            elif job.number in thin:
                yield job, Curve("", [], [])

    def panels(self, has: Callable[[Job], bool]) -> list[Job]:
        """A few jobs side by side: the best of each batch size, or else jobs of all ranks.

        Args:
            has: whether a job has what is drawn.
        """
        jobs = [job for job in self._ranking.jobs if job.value is not None and has(job)]
        if "batch_size" in self.keys:
            best = {self.group(job): job for job in reversed(jobs)}
            return [best[group] for group in self.groups() if group in best][:PANELS]
        step = max(1, (len(jobs) - 1) // (PANELS - 1))
        return sorted(jobs[::step][:PANELS], key=lambda job: job.number)

    def groups(self) -> list[str]:
        """The names of all groups, in order."""
        return list(dict.fromkeys(map(self.group, self._in_order())))

    def group(self, job: Job) -> str:
        """The panel a job belongs into: that of its batch size."""
        return f"batch_size={job.given.get('batch_size')}" if "batch_size" in self.keys else "every iteration"

    def label(self, job: Job) -> str:
        """What a job is called."""
        if len(self._ranking.jobs) == 1:
            return "this run"
        words = [f"{key.rpartition('.')[2]}={short(job.given[key])}" for key in self.keys if key in job.given]
        return " ".join(words)

    def _in_order(self) -> list[Job]:
        return sorted(self._ranking.jobs, key=lambda job: job.number)

    def _is_axis(self, values: Sequence[str]) -> bool:
        named = any(number(value) is None for value in values)
        return 1 < len(values) <= (MOST_NAMES if named else len(values))


def number(text: str) -> float | None:
    """A value as a number, if it is a finite one."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
