"""The metrics of many jobs over all rows of a split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holdfast.arithmetic.gradients import Gradients
from holdfast.arithmetic.layout import Batch
from holdfast.data.order import EVALUATION_ROWS
from holdfast.errors import DataError
from holdfast.model import Module, Regression
from holdfast.stacked.inputs import StackInputs
from holdfast.usercode.watch import UnstackableError

_NUMBERS_AT_ONCE = 1 << 22  # predictions of all jobs that are computed together


def evaluate(
    gradients: Gradients,
    inputs: StackInputs,
    parameters: Tensor,
    jobs: NDArray[np.int64],
    *,
    split: str,
    prepared: Sequence[Batch],
) -> dict[str, NDArray[np.float64]]:
    """The metrics of jobs by name, such as `val/loss`, each of shape `(jobs,)`.

    Args:
        gradients: computes the statistics.
        inputs: the inputs of the stack.
        parameters: shape `(parameters, jobs)`.
        jobs: the index of the job in each column, shape `(jobs,)`.
        split: name of the split.
        prepared: the prepared rows of the split, for each data set.

    Raises:
        UnstackableError: the names of the metrics differ between jobs.
    """
    dataset_of, metrics = inputs.rows.dataset_of[jobs], dict[str, NDArray[np.float64]]()
    for dataset in np.unique(dataset_of):
        rows = prepared[dataset]
        # the batches that a Trainer evaluates: the statistics of a user's module need not be additive
        batches = list(zip(*(part.split(EVALUATION_ROWS) for part in rows), strict=True))
        width = max(1, _NUMBERS_AT_ONCE // min(EVALUATION_ROWS, len(rows[0])))
        columns = np.flatnonzero(dataset_of == dataset)
        for some in np.split(columns, range(width, len(columns), width)):
            of_some = parameters if len(some) == len(jobs) else parameters[:, some]
            sums = torch.stack([gradients.statistics(of_some, batch, jobs[some]) for batch in batches])
            measured = measure_jobs(inputs.module, sums.to("cpu", torch.float64).sum(0), split)
            if metrics and metrics.keys() != measured.keys():
                raise UnstackableError("metrics() has other names for some jobs than for others")
            for name, values in measured.items():
                metrics.setdefault(name, np.empty(len(jobs)))[some] = values
    return metrics


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
