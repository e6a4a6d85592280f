"""Settings and their repeats: jobs that differ only in seeds are measurements of the same settings.

The mean over `n` repeats estimates what the settings lead to; its standard error is `s / sqrt(n)`, where `s` is the
standard deviation with `n - 1`. Two settings are compared by the differences of repeats with the same seeds, which have
less noise than the means by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from holdfast.config.fold import FOLD_KEY
from holdfast.config.keys import key_of
from holdfast.sweeps.ended import Job


class Estimate(NamedTuple):
    """A mean with its standard error, which is None for a single number."""

    mean: float
    standard_error: float | None


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of some numbers, and its standard error.

    Args:
        values: at least one.

    >>> estimate([1.0, 3.0])
    Estimate(mean=2.0, standard_error=1.0)
    """
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return Estimate(mean, None)
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return Estimate(mean, math.sqrt(variance / count))


@dataclass(frozen=True)
class Settings:
    """Jobs with the same settings.

    Attributes:
        overrides: those of the jobs, without the keys of repeats.
        jobs: by the values of the keys of repeats, such as `("seed=0",)`, in the order of their numbers.
    """

    overrides: tuple[str, ...]
    jobs: Mapping[tuple[str, ...], Job]

    @property
    def folds(self) -> bool:
        """Whether the repeats are on different folds of the rows."""
        return any(key_of(item) == FOLD_KEY for varied in self.jobs for item in varied)

    @property
    def kind(self) -> str:
        """What the repeats differ in, in a word."""
        return "folds" if self.folds and all(len(varied) == 1 for varied in self.jobs) else "repeats"

    @property
    def completed(self) -> int:
        """Number of repeats with a finite metric."""
        return sum(job.value is not None for job in self.jobs.values())

    @property
    def estimate(self) -> Estimate | None:
        """The mean of the best metrics; None if a repeat has none, since the others would flatter the settings."""
        values = [job.value for job in self.jobs.values() if job.value is not None]
        return estimate(values) if len(values) == len(self.jobs) else None

    @property
    def loss(self) -> float:
        """The mean `val/loss` of the best epochs, which decides between equal means."""
        return math.fsum(job.loss for job in self.jobs.values()) / len(self.jobs)

    def best(self, mode: Literal["min", "max"]) -> Job | None:
        """The repeat with the best metric; ties as in a ranking. Of folds the first, since none is better."""
        if self.folds:
            return min(self.jobs.values(), key=lambda job: job.number)
        sign = 1 if mode == "min" else -1
        completed = [job for job in self.jobs.values() if job.value is not None]
        return min(completed, key=lambda job: (sign * (job.value or 0.0), job.loss, job.number), default=None)

    def difference(self, other: Settings) -> Estimate | None:
        """By how much the metric differs from that of other settings, over the repeats that both have completed."""
        pairs = [(self.jobs[key].value, other.jobs[key].value) for key in self.jobs if key in other.jobs]
        differences = [mine - theirs for mine, theirs in pairs if mine is not None and theirs is not None]
        return estimate(differences) if differences else None

    def is_told_apart(self, other: Settings) -> bool:
        """Whether the difference from other settings is more than one standard error of it."""
        found = self.difference(other)
        return found is not None and found.standard_error is not None and abs(found.mean) > found.standard_error


def settings_of(jobs: Sequence[Job], repeats: Collection[str]) -> list[Settings]:
    """The settings among some jobs, in the order of their first jobs.

    Args:
        jobs: in the order of their numbers.
        repeats: keys in which the repeats of the same settings differ, such as `seed`.
    """
    groups: dict[Hashable, Settings] = {}
    for job in jobs:
        own = tuple(item for item in job.overrides if key_of(item) not in repeats)
        varied = tuple(sorted(item for item in job.overrides if key_of(item) in repeats))
        # the same job once more is no other measurement
        key: Hashable = own if varied and varied not in groups.get(own, NOTHING).jobs else (own, job.number)
        groups[key] = Settings(own, {**groups.get(key, NOTHING).jobs, varied: job})
    return list(groups.values())


NOTHING = Settings((), {})
"""Settings of no job."""
