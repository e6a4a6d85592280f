"""The ranking of a sweep: the settings with the best mean over their repeats win, among settings with the same rows."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from holdfast.config.fold import FOLD_KEY
from holdfast.config.keys import key_of
from holdfast.config.options import UNKNOWN_ROWS
from holdfast.sweeps.ended import Job
from holdfast.sweeps.repeats import Settings, settings_of


@dataclass(frozen=True)
class Ranking:
    """The ranked jobs of one data set, or of several over which all settings were repeated.

    Attributes:
        data: digest of the validation rows that the jobs share; of several joined by `+`.
        jobs: all of them, those of the best settings first; jobs that cannot win come last.
        winner: the best repeat of the best settings, if any settings have a mean.
        margin: by how much the mean of the second settings is worse; None without them.
        settings: best first; those without a mean come last.
    """

    data: str
    jobs: tuple[Job, ...]
    winner: Job | None
    margin: float | None
    settings: tuple[Settings, ...] = ()

    @property
    def has_repeats(self) -> bool:
        """Whether any settings were measured more than once."""
        return any(len(each.jobs) > 1 for each in self.settings)


def rank(jobs: Sequence[Job], mode: Literal["min", "max"], repeats: Collection[str] = ("seed",)) -> list[Ranking]:
    """Rank the jobs of a sweep, one ranking for each data set among them.

    Settings are ranked by the mean of the metric over their repeats; settings of which a repeat has none are not
    ranked. Equal means go to the lower mean `val/loss`, then to the lower job number. Jobs on different validation rows
    are never compared: a lower loss on other rows says nothing. Settings whose repeats are on several data sets, all on
    the same ones, are compared by their means over them.

    Args:
        jobs: in any order.
        mode: whether a lower ("min") or a higher ("max") metric is better.
        repeats: keys in which the repeats of the same settings differ, beside the fold.

    Returns:
        A ranking for each data set, in the order of their first jobs.
    """
    sign = 1 if mode == "min" else -1
    by_data: dict[str, list[Settings]] = {}
    for each in settings_of(sorted(jobs, key=lambda job: job.number), {*repeats, FOLD_KEY}, mode):
        by_data.setdefault(_data(each), []).append(each)
    failed = [data for data, group in by_data.items() if data.startswith(UNKNOWN_ROWS) and all(map(_has_failed, group))]
    if len(failed) < len(by_data):  # jobs without rows are no data set of their own
        without_rows = [each for data in failed for each in by_data.pop(data)]
        next(iter(by_data.values())).extend(without_rows)
    return [_ranking(data, group, sign) for data, group in by_data.items()]


def varied_keys(ranking: Ranking) -> set[str]:
    """The keys in which the repeats of the same settings differ."""
    return {key_of(item) for each in ranking.settings for repeat in each.jobs for item in repeat}


def _ranking(data: str, group: Sequence[Settings], sign: int) -> Ranking:
    def by_value(job: Job) -> tuple[bool, float, float, bool, int]:
        value = job.value
        best = (math.inf, math.inf) if value is None else (sign * value, job.loss)
        return value is None, *best, job.result.status == "failed", job.number

    def by_mean(settings: Settings) -> tuple[bool, float, float, bool, int]:
        found, first = settings.estimate, min(job.number for job in settings.jobs.values())
        best = (math.inf, math.inf) if found is None else (sign * found.mean, settings.loss)
        return found is None, *best, _has_failed(settings), first

    ordered = tuple(sorted(group, key=by_mean))
    jobs = tuple(job for settings in ordered for job in sorted(settings.jobs.values(), key=by_value))
    means = [found.mean for settings in ordered[:2] if (found := settings.estimate) is not None]
    margin = abs(means[1] - means[0]) if len(means) == 2 else None
    return Ranking(data, jobs, ordered[0].best() if means else None, margin, ordered)


def _data(settings: Settings) -> str:
    """The validation rows of the repeats of some settings; those of jobs that could not make them do not count."""
    digests = sorted({job.data for job in settings.jobs.values()})
    known = [data for data in digests if not data.startswith(UNKNOWN_ROWS)]
    return "+".join(known or digests[:1])


def _has_failed(settings: Settings) -> bool:
    return all(job.result.status == "failed" for job in settings.jobs.values())
