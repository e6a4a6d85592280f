"""The path of two parameters over the cost surface: recorded while training, drawn in the report."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MOST_POINTS = 1000
"""Upper bound for the points of a path: more than a figure can show."""


def stride(iterations: int) -> int:
    """Keep every n-th iteration, such that at most `MOST_POINTS` follow the first point.

    >>> stride(600), stride(60_000)
    (1, 60)
    """
    return -(-iterations // MOST_POINTS)


def flat(parameters: Sequence[Tensor]) -> Tensor:
    """Copy parameters into one vector, shape `(parameters,)`.

    >>> flat([torch.ones(1, 2), torch.zeros(1)])
    tensor([1., 1., 0.])
    """
    return torch.cat([value.detach().flatten() for value in parameters])


def to_npy(points: Tensor) -> bytes:
    """The content of a NumPy file, in single precision, with the points of a path, shape `(points, 2)`."""
    stream = io.BytesIO()
    np.save(stream, points.to("cpu", torch.float32).numpy())
    return stream.getvalue()


class StackPaths:
    """The parameter paths of the jobs of a stack.

    Args:
        start: initial parameters, shape `(2, jobs)`.
        iterations: number of iterations of a job over all epochs.

    Attributes:
        points: shape `(points, 2, jobs)`.
    """

    def __init__(self, start: Tensor, iterations: int) -> None:
        self._stride, self._iterations = stride(iterations), 0
        self._pending: list[Tensor] = []
        self.points = start.new_empty(iterations // self._stride + 1, *start.shape)
        self.points[0] = start

    def step(self, parameters: Tensor) -> None:
        """Record one more iteration; parameters of shape `(2, streams, width)`."""
        self._iterations += 1
        if self._iterations % self._stride == 0:
            self._pending.append(parameters.clone())

    def end_epoch(self, iterations: int, jobs: NDArray[Any], columns: NDArray[Any]) -> None:
        """Move the recorded points of an epoch to their jobs.

        Args:
            iterations: number of iterations up to the end of the epoch.
            jobs: indexes of the running jobs, shape `(jobs,)`.
            columns: the column of each among all streams and jobs, shape `(jobs,)`.
        """
        if self._pending:
            points, end = torch.stack(self._pending).flatten(2)[..., columns], self._iterations // self._stride + 1
            self.points[end - len(points) : end, :, jobs] = points
            self._pending = []
        self._iterations = iterations

    def of_job(self, index: int, iterations: int) -> bytes:
        """The file of the job with an index in the stack, up to a number of iterations."""
        return to_npy(self.points[: 1 + iterations // self._stride, :, index])
