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
from holdfast.model.module import measure_jobs
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
