"""Swept keys that had no effect: jobs that differ only in such a key came out the same, to the last bit.

Typical are `optimizer` for a module that brings its own, and `lr` where the YAML file of a module forgets `lr: ${lr}`.
A winner among such jobs was not chosen, it only came first.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.sweeps.ended import Job, swept_keys


def identical(jobs: Sequence[Job]) -> list[list[int]]:
    """The numbers of completed jobs whose results are the same in every metric, in groups of two or more."""
    by_value: dict[float, list[Job]] = {}
    for job in jobs:
        if job.value is not None:
            by_value.setdefault(job.value, []).append(job)
    groups: dict[str, list[int]] = {}
    for alike in by_value.values():
        for job in alike if len(alike) > 1 else ():
            result = job.result
            outcome = repr((result.best, result.last, result.epochs, result.iterations))
            groups.setdefault(outcome, []).append(job.number)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def without_effect(jobs: Sequence[Job]) -> list[str]:
    """The swept keys in which jobs may differ without any difference in their results.

    A key counts if some completed jobs differ in it alone, and all of these are identical.

    Args:
        jobs: of one data set.
    """
    group_of = {number: index for index, group in enumerate(identical(jobs)) for number in group}
    if not group_of:
        return []
    completed = [job for job in jobs if job.value is not None]
    keys = swept_keys(jobs)
    return [key for key in keys if _is_without_effect(key, keys, completed, group_of)]


def _is_without_effect(key: str, keys: Sequence[str], jobs: Sequence[Job], group_of: dict[int, int]) -> bool:
    others: dict[tuple[str | None, ...], list[Job]] = {}
    for job in jobs:
        others.setdefault(tuple(job.given.get(other) for other in keys if other != key), []).append(job)
    compared = [alike for alike in others.values() if len({job.given.get(key) for job in alike}) > 1]
    # a job that is identical with no other is a group of its own
    return bool(compared) and all(
        len({group_of.get(job.number, -1 - job.number) for job in alike}) == 1 for alike in compared
    )
