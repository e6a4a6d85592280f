"""A job of a sweep that has ended, and what distinguishes it from the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from holdfast.config.commands import command
from holdfast.config.keys import FROM_PYTHON, key_of
from holdfast.store.result import Result


@dataclass(frozen=True)
class Job:
    """A job of a sweep that has ended.

    Attributes:
        number: position of the job in the sweep, from 0.
        overrides: the overrides that make the job.
        data: digest of its validation rows; it starts with `UNKNOWN_ROWS` where they could not be made.
        result: how the job ended.
        swept: those of the overrides that differ between the jobs of the sweep; None for a job by itself.
    """

    number: int
    overrides: list[str]
    data: str
    result: Result
    swept: list[str] | None = None

    @property
    def name(self) -> str:
        """Display name, such as `job 3 (lr=0.1)`."""
        return job_name(self.number, self.overrides if self.swept is None else self.swept)

    @cached_property
    def given(self) -> dict[str, str]:
        """The values of its overrides, as text, by key."""
        return {key_of(override): override.partition("=")[2] for override in self.overrides}

    @property
    def value(self) -> float | None:
        """The best metric, by which jobs are ranked; None if the job did not complete, or no metric was finite."""
        best = self.result.best
        value = best[self.result.metric] if best is not None and self.result.status == "completed" else None
        return value if value is not None and math.isfinite(value) else None

    @property
    def loss(self) -> float:
        """The `val/loss` of the best epoch, which decides between equal metrics; infinite where it was not measured."""
        loss = (self.result.best or {}).get("val/loss")
        return math.inf if loss is None else loss


def run_command(overrides: Sequence[str], flags: Sequence[str] = ()) -> str:
    """The command of a run, or of a sweep with `-m` before its overrides; or the call, where something was passed.

    >>> run_command(["lr=0.1"])
    'python train.py lr=0.1'
    >>> run_command(["model=python.mine.Sine-4d1f", "lr=0.1"]), run_command(["-m", "data=python.mine.Rows-object-4d1f"])
    ("holdfast.run('lr=0.1', model=Sine)", 'holdfast.sweep(data=...)')
    """
    passed = {key_of(item): item.partition("=")[2] for item in overrides if f"={FROM_PYTHON}" in item}
    if passed:
        texts = [repr(item) for item in overrides if item != "-m" and key_of(item) not in passed]
        texts += [f"config_dir={folder!r}" for folder in flags[1:2]]
        # of an object only its owner knows the name
        names = {key: name.rpartition(".")[2].partition("-") for key, name in passed.items()}
        texts += [f"{key}={'...' if end.startswith('object-') else cls}" for key, (cls, _, end) in names.items()]
        return f"holdfast.{'sweep' if '-m' in overrides else 'run'}({', '.join(texts)})"
    return command(*flags, *overrides)


def job_name(number: int, overrides: Sequence[str]) -> str:
    """Display name of a job.

    >>> job_name(3, ["lr=0.1", "seed=2"])
    'job 3 (lr=0.1 seed=2)'
    """
    return f"job {number} ({' '.join(overrides)})" if overrides else f"job {number}"


def swept_keys(jobs: Sequence[Job]) -> list[str]:
    """The keys that differ between the jobs, in the order in which they were typed; of a single job all keys."""
    return _differing([job.given for job in jobs])


def swept_overrides(jobs: Sequence[Sequence[str]]) -> list[list[str]]:
    """Of the overrides of each job those whose keys differ between the jobs; of a single job all.

    >>> swept_overrides([["epochs=2", "lr=0.1"], ["epochs=2", "lr=0.2"]])
    [['lr=0.1'], ['lr=0.2']]
    """
    keys = set(differing_keys(jobs))
    return [[item for item in overrides if key_of(item) in keys] for overrides in jobs]


def differing_keys(jobs: Sequence[Sequence[str]]) -> list[str]:
    """The keys of the overrides that differ between some jobs; of a single job all keys."""
    return _differing([{key_of(item): item for item in overrides} for overrides in jobs])


def _differing(jobs: Sequence[Mapping[str, str]]) -> list[str]:
    """The keys that have different values in different jobs; of a single job all keys."""
    values: dict[str, set[str]] = {}
    for job in jobs:
        for key, value in job.items():
            values.setdefault(key, set()).add(value)
    return [key for key, distinct in values.items() if len(distinct) > 1 or len(jobs) == 1]
