"""The metrics of many jobs over all rows of a split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holdfast.data.order import EVALUATION_ROWS
from holdfast.model.module import measure_jobs
from holdfast.stacked.gradients import Batch, Gradients
from holdfast.stacked.inputs import Members
from holdfast.usercode.watch import UnstackableError

_AT_ONCE = 1 << 22  # numbers of a prediction at a time


def evaluate(
    gradients: Gradients,
    members: Members,
    parameters: Tensor,
    jobs: NDArray[np.int64],
    *,
    split: str,
    prepared: Sequence[Batch],
) -> dict[str, NDArray[np.float64]]:
    """The metrics of jobs by name, such as `val/loss`, each of shape `(jobs,)`.

    Args:
        gradients: computes the statistics.
        members: the jobs of the stack.
        parameters: shape `(parameters, jobs)`.
        jobs: the number of the job in each column, shape `(jobs,)`.
        split: its name.
        prepared: its prepared rows, of every data set.

    Raises:
        UnstackableError: jobs have metrics of different names.
    """
    sources, measured = members.source_of[jobs], dict[str, NDArray[np.float64]]()
    for source in np.unique(sources):
        rows = prepared[source]
        # rows in the portions that a Trainer gets them in: the statistics of a user's module need not add up
        portions = list(zip(*(part.split(EVALUATION_ROWS) for part in rows), strict=True))
        width = max(1, _AT_ONCE // min(EVALUATION_ROWS, len(rows[0])))
        mine = np.flatnonzero(sources == source)
        for some in np.split(mine, range(width, len(mine), width)):
            of_some = parameters if len(some) == len(jobs) else parameters[:, some]
            sums = torch.stack([gradients.statistics(of_some, part, jobs[some]) for part in portions])
            metrics = measure_jobs(members.module, sums.to("cpu", torch.float64).sum(0), split)
            if measured and measured.keys() != metrics.keys():
                raise UnstackableError("metrics() has other names for some jobs than for others")
            for name, values in metrics.items():
                measured.setdefault(name, np.empty(len(jobs)))[some] = values
    return measured
