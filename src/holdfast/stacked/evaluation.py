"""The metrics of many jobs over all rows of a split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holdfast.arithmetic.gradients import Gradients
from holdfast.arithmetic.layout import Batch
from holdfast.errors import DataError
from holdfast.model import Module, Regression
from holdfast.stacked.inputs import StackInputs
from holdfast.usercode.watch import UnstackableError

_NUMBERS_AT_ONCE = 1 << 22  # predictions of all jobs that are computed together

_MOST_SUMS = 4096  # statistics of single batches that are kept: rows on disk may have many


def evaluate(
    gradients: Gradients,
    inputs: StackInputs,
    parameters: Tensor,
    jobs: NDArray[np.int64],
    *,
    split: str,
    batches: Sequence[Iterable[Batch]],
) -> dict[str, NDArray[np.float64]]:
    """The metrics of jobs by name, such as `val/loss`, each of shape `(jobs,)`.

    Args:
        gradients: computes the statistics.
        inputs: the inputs of the stack.
        parameters: shape `(parameters, jobs)`.
        jobs: the index of the job in each column, shape `(jobs,)`.
        split: name of the split.
        batches: the prepared rows of the split, for each data set.

    Raises:
        UnstackableError: the names of the metrics differ between jobs.
    """
    dataset_of, metrics = inputs.rows.dataset_of[jobs], dict[str, NDArray[np.float64]]()
    for dataset in np.unique(dataset_of):
        columns, groups = np.flatnonzero(dataset_of == dataset), list[_Group]()
        for batch in batches[dataset]:  # each is read once, for all groups of jobs
            if not groups:
                width = max(1, _NUMBERS_AT_ONCE // len(batch[0]))
                split_at = range(width, len(columns), width)
                groups = [_Group(some, parameters, jobs[some]) for some in np.split(columns, split_at)]
            for group in groups:
                group.add(gradients, batch)
        for group in groups:
            measured = measure_jobs(inputs.module_of(int(dataset)), group.total(), split)
            if metrics and metrics.keys() != measured.keys():
                raise UnstackableError("metrics() has other names for some jobs than for others")
            for name, values in measured.items():
                metrics.setdefault(name, np.empty(len(jobs)))[group.columns] = values
    return metrics


class _Group:
    """Jobs whose predictions are computed together.

    Args:
        columns: of the jobs in `parameters`, shape `(group,)`.
        parameters: shape `(parameters, jobs)`.
        jobs: the indexes of the jobs, shape `(group,)`.
    """

    def __init__(self, columns: NDArray[np.int64], parameters: Tensor, jobs: NDArray[np.int64]) -> None:
        self.columns, self._jobs = columns, jobs
        self._parameters = parameters if len(columns) == parameters.shape[1] else parameters[:, columns]
        self._sums: list[Tensor] = []
        self._total: Tensor | None = None  # of the batches before

    def add(self, gradients: Gradients, batch: Batch) -> None:
        """Add the statistics of a batch."""
        self._sums.append(gradients.statistics(self._parameters, batch, self._jobs))
        if len(self._sums) == _MOST_SUMS:
            self._total, self._sums = self.total(), []

    def total(self) -> Tensor:
        """The statistics over all batches, shape `(group, sums)`."""
        total = [] if self._total is None else [self._total]
        if self._sums:  # stacked first, for one transfer from the device
            total.append(torch.stack(self._sums).to("cpu", torch.float64).sum(0))
        return total[0] if len(total) == 1 else total[0] + total[1]


def measure_jobs(module: Module, sums: Tensor, split: str) -> dict[str, NDArray[np.float64]]:
    """Return the metrics of the jobs of a stack by name, each of shape `(jobs,)`.

    Args:
        module: computes the metrics from the sums of one job.
        sums: the statistics of each job over all rows, shape `(jobs, sums)`.
        split: "train", "val" or "test".

    Raises:
        DataError: a user's `metrics` returns different names for different jobs.
    """
    total = sums.to("cpu", torch.float64).numpy()
    if type(module).metrics in (Module.metrics, Regression.metrics):
        metrics = module.metrics(list(total.T))
    else:  # a user's metrics may have conditions on the numbers of one job
        per_job = [module.metrics(row) for row in total.tolist()]
        if any(job.keys() != per_job[0].keys() for job in per_job):
            raise DataError("metrics() has other names for some jobs than for others")
        metrics = {name: [job[name] for job in per_job] for name in per_job[0]}
    return {f"{split}/{name}": np.asarray(value, dtype=np.float64) for name, value in metrics.items()}
