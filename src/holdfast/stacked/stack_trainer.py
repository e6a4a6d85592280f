"""The entry of this package: trains jobs as one program, as `holdfast.single.trainer` trains one job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.config.job import JobSpec
from holdfast.runtime.isolation import isolated
from holdfast.stacked.inputs import StackInputs
from holdfast.stacked.loop import OnEpochEnd, Stack
from holdfast.stacked.outputs import TrainedStack


def train_stack(
    jobs: Sequence[JobSpec], dry_runs: dict[str, Any] | None = None, on_epoch_end: OnEpochEnd | None = None
) -> TrainedStack:
    """Train jobs as one program; each gives the result and the files of a job trained alone.

    Args:
        jobs: jobs that share a structure, as `holdfast.planning.plan` finds it.
        dry_runs: a cache of Lightning checkpoints, which the stacks of a sweep share.
        on_epoch_end: called after every epoch with its number and the best metric so far.

    Raises:
        UnstackableError: the jobs cannot be trained together.
    """
    with isolated():
        inputs = StackInputs([job.config for job in jobs])
        history = Stack(inputs).train(on_epoch_end)
        return TrainedStack(jobs, inputs, history, {} if dry_runs is None else dry_runs)
