"""Two jobs of the user's own code are trained once more, alone by Lightning's Trainer, before test rows are opened.

The trial of a stack looks at few epochs and few rows. What depends on later ones, on the time, or on something that
nobody can see from outside, shows here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
from tqdm import tqdm

from holdfast.config.commands import command
from holdfast.config.job import JobSpec
from holdfast.errors import in_a_line
from holdfast.record.history import History
from holdfast.runtime.screen import is_watched
from holdfast.stacked.inputs import is_shipped
from holdfast.stacked.stored import StoredStacks
from holdfast.store.result import Result
from holdfast.sweeps.rank import Ranking
from holdfast.sweeps.spec import SweepSpec

FIRST = 20
"""Iterations that have to agree to rounding."""

MOST_SECONDS = 600.0
"""Estimated time up to which jobs are trained again alone without being asked."""

_CLOSE = {"64-true": (1e-8, 1e-10)}
"""Relative and absolute tolerance of the first iterations; of other precisions `_CLOSE_SINGLE`."""

_CLOSE_SINGLE = (1e-3, 1e-5)

_DRIFT = 0.05
"""Largest relative difference at the end that rounding may grow to in single precision."""


class Verification(NamedTuple):
    """What came of training two jobs again.

    Attributes:
        jobs: their numbers.
        largest: the largest relative difference of a loss in the first iterations, or of a metric at the end.
        reason: why they do not agree; "" if they do.
        seconds: of the longer of the two trainings.
    """

    jobs: tuple[int, ...]
    largest: float
    reason: str
    seconds: float

    def message(self, count: int, flags: Sequence[str], overrides: Sequence[str]) -> str:
        """What is printed.

        Args:
            count: number of jobs that would have to be trained again alone.
            flags, overrides: of the command line.
        """
        names = " and ".join(f"job {number}" for number in self.jobs)
        if not self.reason:
            return f"verified: {names}, trained again alone, agree to {self.largest:.1e}"
        lines = [f"not verified: {self.reason}"]
        if self.seconds * count <= MOST_SECONDS:
            return "\n".join([*lines, f"the {count} jobs of stacks are trained again alone, and those results count"])
        again = command("-m", *flags, *overrides, "sweep.stack=never")
        minutes = self.seconds * count / 60
        lines.append(f"to train the {count} jobs alone, in about {minutes:.0f} minutes: {again}")
        return "\n".join([*lines, "nothing was concluded: there is no winner, and no test rows were opened"])

    def entry(self) -> dict[str, Any]:
        """What `selection.json` says of it."""
        entry = {"verified": not self.reason, "verified_jobs": list(self.jobs), "largest_difference": self.largest}
        return {**entry, "not_verified_because": self.reason} if self.reason else entry


def to_verify(spec: SweepSpec, stacked: Collection[int]) -> set[int]:
    """The numbers of the jobs of stacks, of which some are to be trained again: those of the user's own code.

    Args:
        spec: the sweep.
        stacked: numbers of the jobs that were trained in stacks.
    """
    how = spec.jobs[0].config.sweep.verify if spec.jobs else False
    if how == "auto":
        return {job.number for job in spec.jobs if job.number in stacked and not is_shipped(job.config)}
    return set(stacked) if how else set()


def chosen(rankings: Sequence[Ranking], jobs: Sequence[JobSpec], stacked: Collection[int]) -> list[JobSpec]:
    """The winner, and the completed job that differs from job 0 in most overrides; of ties the highest number.

    Args:
        rankings: the ranked jobs.
        jobs: all jobs.
        stacked: numbers of those whose own code was trained in stacks.
    """
    winners = [ranking.winner.number for ranking in rankings if ranking.winner is not None][:1]
    completed = {job.number for ranking in rankings for job in ranking.jobs if job.value is not None}
    candidates = [job for job in jobs if job.number in completed and job.number in stacked]
    others = [job for job in candidates if job.number not in winners]
    other = max(others, key=lambda job: (_differing(job.overrides, jobs[0].overrides), job.number), default=None)
    return [job for job in candidates if job.number in winners] + ([other] if other else [])


def _differing(one: Sequence[str], other: Sequence[str]) -> int:
    return len(set(one) - set(other))


def verify(jobs: Sequence[JobSpec], results: Mapping[int, Result], stacks: StoredStacks) -> Verification:
    """Train jobs again by Lightning's Trainer, and compare their first iterations and their ends.

    Args:
        jobs: completed jobs of stacks.
        results: of all jobs, by number.
        stacks: the stacks, with the curves of the jobs.
    """
    largest, longest = 0.0, 0.0
    numbers = tuple(job.number for job in jobs)
    for job in jobs:
        began = time.monotonic()
        try:
            alone = _train_alone(job)
        except Exception as error:
            reason = f"job {job.number} cannot be trained alone: {in_a_line(error)}"
            return Verification(numbers, math.inf, reason, time.monotonic() - began)
        longest = max(longest, time.monotonic() - began)
        difference, reason = _compared(job, results[job.number], stacks, alone)
        largest = max(largest, difference)
        if reason:
            return Verification(numbers, largest, reason, longest)
    return Verification(numbers, largest, "", longest)


def _train_alone(job: JobSpec) -> History:
    from lightning.pytorch.loggers.logger import DummyLogger

    from holdfast.planning.trial import fit

    return fit(job.config, {"logger": DummyLogger()}, [_Bar(job.number)] if is_watched() else [])


class _Bar(pl.Callback):
    """Shows the epochs of a job: it may take as long as all jobs of a stack together.

    Args:
        number: of the job.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self._name = f"verifying job {number}"

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw a bar."""
        self._bar = tqdm(total=trainer.max_epochs, desc=self._name, unit="epoch", leave=False, dynamic_ncols=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count an epoch."""
        self._bar.update()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove the bar."""
        self._bar.close()


def _compared(job: JobSpec, result: Result, stacks: StoredStacks, alone: History) -> tuple[float, str]:
    """The largest difference between a stack and a Trainer, and why they do not agree, or ""."""
    column = stacks.find(job.number)
    assert column is not None
    curves = column.history.curves.of_jobs([column.column])
    rtol, atol = _CLOSE.get(job.config.precision, _CLOSE_SINGLE)
    mine, yours = curves.losses[:FIRST, 0].astype(float), np.array(alone.losses[:FIRST])
    if len(mine) != len(yours) or not np.allclose(mine, yours, rtol, atol, equal_nan=True):
        where = int(np.argmax(~np.isclose(mine, yours, rtol, atol))) if len(mine) == len(yours) else 0
        return math.inf, f"the losses of job {job.number} differ from iteration {where} on"
    largest = float(np.max(np.abs(mine - yours) / np.maximum(np.abs(yours), 1e-12), initial=0.0))
    standing, epochs = alone.reached.standing, alone.epochs
    if result.epochs != len(epochs) or result.best is None or standing.best_epoch < 0:
        return math.inf, f"job {job.number} ends after {result.epochs} epochs in a stack, after {len(epochs)} alone"
    stacked, single = result.best[result.metric], epochs[int(standing.best_epoch)].best[result.metric]
    difference = abs(stacked - single) / max(abs(single), atol)
    most = 1e-6 if job.config.precision == "64-true" else _DRIFT
    if difference > most:
        return (
            difference,
            f"the best {result.metric} of job {job.number} is {stacked:.6g} in a stack, {single:.6g} alone",
        )
    return max(largest, difference), ""
