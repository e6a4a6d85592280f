"""Which jobs of a ranking a figure shows, along which swept keys, and under which labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

from holdfast.report.read import JobRecords
from holdfast.report.style import MAX_NAMED, Curve, shorten
from holdfast.sweeps.ended import Job, swept_keys
from holdfast.sweeps.rank import Ranking, varied_keys
from holdfast.sweeps.repeats import Settings

MAX_LINES = 60
"""Jobs drawn as lines. Of more jobs, a sample over all ranks is drawn."""

MAX_PANELS = 4
"""Panels side by side in one figure."""

MAX_NAMES = 12
"""Values on an axis whose values are not all numbers."""


class Comparison:
    """The jobs of one ranking, as figures compare them.

    Args:
        ranking: the jobs, best first.
        records: curves and weights of the jobs.
        drawn: keys whose values a search has drawn.

    Attributes:
        drawn: as given.
        keys: the swept keys.
        present: the jobs that did not fail, best first.
    """

    def __init__(self, ranking: Ranking, records: JobRecords, drawn: Sequence[str] = ()) -> None:
        self._ranking, self._records, self.drawn = ranking, records, drawn
        self._by_number = sorted(ranking.jobs, key=lambda job: job.number)
        self.keys = swept_keys(ranking.jobs)
        self.present = [job for job in ranking.jobs if job.result.status != "failed"]

    def axes(self) -> list[str]:
        """Return the keys that can be the x-axis of a figure. Those of repeats, such as the seed, cannot."""
        return [key for key in self.keys_of_settings if self._is_axis(self.values(key))]

    @property
    def keys_of_settings(self) -> list[str]:
        """The swept keys without those in which repeats of the same settings differ."""
        return [key for key in self.keys if key not in self._of_repeats]

    @cached_property
    def _of_repeats(self) -> set[str]:
        """The keys in which the repeats of the same settings differ."""
        return varied_keys(self._ranking) | {key for key in self.keys if key.rpartition(".")[2] == "seed"}

    def group_key(self, axis: str) -> str | None:
        """Return the key whose values get one line each in a figure along another key: the batch size, if swept."""
        keys = [key for key in self.axes() if key != axis and len(self.values(key)) <= MAX_NAMED]
        return "batch_size" if "batch_size" in keys else next(iter(keys), None)

    def values(self, key: str) -> list[str]:
        """Return the distinct values of a key as typed: numbers in ascending order, then others in job order."""
        distinct = dict.fromkeys(job.given.get(key, "") for job in self._by_number)
        return sorted(distinct, key=lambda value: (number(value) is None, number(value) or 0.0))

    def best_with_weights(self) -> Job | None:
        """Return the best job whose weights are known."""
        return next((job for job in self.present if self._records.has_weights(job.number)), None)

    def lines(self, is_drawn: Callable[[Job], bool] = lambda job: True) -> Iterator[tuple[Job, Curve]]:
        """Yield the jobs to draw as lines, each with an empty curve that has its label and colour.

        The best jobs of each group have labels, up to `MAX_NAMED`; the others are thin lines without a label.

        Args:
            is_drawn: whether a job has the data to draw.
        """
        jobs = [job for job in self.present if is_drawn(job)]
        groups: dict[str, list[Job]] = {}
        for job in jobs:
            groups.setdefault(self.group(job), []).append(job)
        per_group = max(1, MAX_NAMED // max(1, len(groups)))
        named = sorted(job.number for group in list(groups.values())[:MAX_NAMED] for job in group[:per_group])
        others = [job.number for job in jobs if job.number not in named]
        thin = set(others[:: max(1, -(-len(others) // (MAX_LINES - MAX_NAMED)))])
        for job in jobs:
            if job.number in named:
                is_winner = job is self._ranking.winner and len(jobs) > 1
                yield job, Curve(self.label(job), [], [], is_winner, named.index(job.number))
            elif job.number in thin:
                yield job, Curve("", [], [])

    def panels(self, is_drawn: Callable[[Job], bool]) -> list[Job]:
        """Return at most `MAX_PANELS` jobs for one panel each: the best of each batch size, or jobs of all ranks.

        Args:
            is_drawn: whether a job has the data to draw.
        """
        jobs = [job for job in self._ranking.jobs if job.value is not None and is_drawn(job)]
        if "batch_size" in self.keys:
            best = {self.group(job): job for job in reversed(jobs)}
            return [best[group] for group in self.groups() if group in best][:MAX_PANELS]
        step = max(1, (len(jobs) - 1) // (MAX_PANELS - 1))
        return sorted(jobs[::step][:MAX_PANELS], key=lambda job: job.number)

    def groups(self) -> list[str]:
        """Return the titles of all groups, in the order of their first jobs."""
        return list(dict.fromkeys(map(self.group, self._by_number)))

    def group(self, job: Job) -> str:
        """Return the title of a job's group, the jobs of one batch size."""
        return f"batch_size={job.given.get('batch_size')}" if "batch_size" in self.keys else "every iteration"

    def label(self, job: Job) -> str:
        """Return the swept values of a job, such as `lr=0.1 batch_size=5`."""
        if len(self._ranking.jobs) == 1:
            return "this run"
        keys = [key for key in self.keys if key in job.given]
        return " ".join(f"{key.rpartition('.')[2]}={shorten(job.given[key])}" for key in keys)

    def label_of_settings(self, settings: Settings) -> str:
        """Return the swept values of some settings, without those in which their repeats differ."""
        given = next(iter(settings.jobs.values())).given
        keys = [key for key in self.keys_of_settings if key in given]
        return " ".join(f"{key.rpartition('.')[2]}={shorten(given[key])}" for key in keys) or "all jobs"

    @staticmethod
    def _is_axis(values: list[str]) -> bool:
        return len(values) > 1 and (len(values) <= MAX_NAMES or all(number(value) is not None for value in values))


def number(text: str) -> float | None:
    """Return a typed value as a number; None if it is not a finite number.

    >>> number("1e-3"), number("full"), number("inf")
    (0.001, None, None)
    """
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
