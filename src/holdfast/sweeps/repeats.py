"""Settings and their repeats: jobs that differ only in seeds are measurements of the same settings.

The mean over `n` repeats estimates what the settings lead to; its standard error is `s / sqrt(n)`, where `s` is the
standard deviation with `n - 1`. Two settings are compared by the differences of repeats with the same seeds, which have
less noise than the means by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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
    if min(values) == max(values):  # which rounding would hide
        return Estimate(values[0], 0.0)
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return Estimate(mean, math.sqrt(variance / count))


@dataclass(frozen=True)
class Settings:
    """Jobs with the same settings.

    Attributes:
        overrides: those of the jobs, without the keys of repeats.
        jobs: by the values of the keys of repeats, such as `("seed=0",)`, in the order of their numbers.
        mode: whether a lower ("min") or a higher ("max") metric is better.
    """

    overrides: tuple[str, ...]
    jobs: Mapping[tuple[str, ...], Job]
    mode: Literal["min", "max"] = "min"

    @property
    def folds(self) -> bool:
        """Whether the repeats are on different folds of the rows."""
        return any(key_of(item) == FOLD_KEY for varied in self.jobs for item in varied)

    @property
    def kind(self) -> str:
        """What the repeats differ in, in a word."""
        return "folds" if self.folds and all(len(varied) == 1 for varied in self.jobs) else "repeats"

    @cached_property
    def epoch(self) -> int | None:
        """The epoch, from 0, whose mean over the folds is best; None without folds, or if a fold has no metric.

        The model on the rows of all folds is trained for one number of epochs, so that one is chosen for all folds: the
        mean over each fold's own best epoch would be that of models that nobody trains.
        """
        curves = [job.result.by_epoch for job in self.jobs.values()]
        if not self.folds or self.completed < len(self.jobs) or any(curve is None for curve in curves):
            return None
        sign, best = (1 if self.mode == "min" else -1), list[tuple[float, int]]()
        for epoch, values in enumerate(zip(*filter(None, curves), strict=False)):  # a fold may have ended earlier
            found = [value for value in values if value is not None]
            if len(found) == len(curves):
                best.append((sign * math.fsum(found), epoch))
        return min(best)[1] if best else None

    def value(self, job: Job) -> float | None:
        """The metric by which a repeat counts: of its best epoch, or of folds that of the epoch of all folds."""
        if self.epoch is None or job.result.by_epoch is None:
            return job.value
        return job.result.by_epoch[self.epoch]

    @property
    def completed(self) -> int:
        """Number of repeats with a finite metric."""
        return sum(job.value is not None for job in self.jobs.values())

    @property
    def estimate(self) -> Estimate | None:
        """The mean of the metrics; None if a repeat has none, since the others would flatter the settings."""
        values = [value for job in self.jobs.values() if (value := self.value(job)) is not None]
        return estimate(values) if len(values) == len(self.jobs) else None

    @property
    def loss(self) -> float:
        """The mean `val/loss` of the best epochs, which decides between equal means."""
        return math.fsum(job.loss for job in self.jobs.values()) / len(self.jobs)

    def best(self) -> Job | None:
        """The repeat with the best metric; ties as in a ranking. Of folds the first, since none is better."""
        if self.folds:
            return min(self.jobs.values(), key=lambda job: job.number)
        sign = 1 if self.mode == "min" else -1
        completed = [job for job in self.jobs.values() if job.value is not None]
        return min(completed, key=lambda job: (sign * (job.value or 0.0), job.loss, job.number), default=None)

    def difference(self, other: Settings) -> Estimate | None:
        """By how much the metric differs from that of other settings, over the repeats that both have completed."""
        shared = [key for key in self.jobs if key in other.jobs]
        pairs = [(self.value(self.jobs[key]), other.value(other.jobs[key])) for key in shared]
        differences = [mine - theirs for mine, theirs in pairs if mine is not None and theirs is not None]
        return estimate(differences) if differences else None

    def is_told_apart(self, other: Settings) -> bool:
        """Whether the difference from other settings is more than one standard error of it."""
        found = self.difference(other)
        return found is not None and found.standard_error is not None and abs(found.mean) > found.standard_error


def settings_of(jobs: Sequence[Job], repeats: Collection[str], mode: Literal["min", "max"] = "min") -> list[Settings]:
    """The settings among some jobs, in the order of their first jobs.

    Args:
        jobs: in the order of their numbers.
        repeats: keys in which the repeats of the same settings differ, such as `seed`.
        mode: whether a lower ("min") or a higher ("max") metric is better.
    """
    groups: dict[Hashable, Settings] = {}
    for job in jobs:
        own = tuple(item for item in job.overrides if key_of(item) not in repeats)
        varied = tuple(sorted(item for item in job.overrides if key_of(item) in repeats))
        # the same job once more is no other measurement
        key: Hashable = own if varied and varied not in groups.get(own, NOTHING).jobs else (own, job.number)
        groups[key] = Settings(own, {**groups.get(key, NOTHING).jobs, varied: job}, mode)
    return list(groups.values())


NOTHING = Settings((), {})
"""Settings of no job."""
