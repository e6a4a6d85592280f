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


def to_npy(points: NDArray[Any]) -> bytes:
    """The content of a NumPy file, in single precision, with the points of a path, shape `(points, 2)`."""
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(points, dtype=np.float32))
    return stream.getvalue()


class StackPaths:
    """Takes the points of the parameter paths of the jobs of a stack.

    Args:
        start: initial parameters, shape `(2, jobs)`.
        iterations: number of iterations of a job over all epochs.
    """

    def __init__(self, start: Tensor, iterations: int) -> None:
        self._stride, self._jobs = stride(iterations), start.shape[1]
        self._iterations = 0
        self._pending: list[Tensor] = []
        self._start: Tensor | None = start

    def resume(self, iterations: int) -> None:
        """Go on after a number of iterations."""
        self._iterations, self._start = iterations, None

    def step(self, parameters: Tensor) -> None:
        """Take the parameters after one more iteration, shape `(2, streams, width)`."""
        self._iterations += 1
        if self._iterations % self._stride == 0:
            self._pending.append(parameters.clone())

    def collect(self, iterations: int, jobs: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.float32]:
        """The points since the last call, in single precision, shape `(points, 2, jobs)`; NaN where a job is over.

        Args:
            iterations: number of iterations so far; jobs that were over were not counted.
            jobs: indexes of the running jobs, shape `(jobs,)`.
            columns: the column of each among all streams and jobs, shape `(jobs,)`.
        """
        points = np.full((len(self._pending), 2, self._jobs), np.nan, dtype=np.float32)
        if self._pending:
            points[..., jobs] = torch.stack(self._pending).flatten(2)[..., columns].to("cpu", torch.float32).numpy()
        if self._start is not None:
            points = np.concatenate([self._start.to("cpu", torch.float32).numpy()[np.newaxis], points])
            self._start = None
        self._pending, self._iterations = [], iterations
        return points


def points_after(iterations: int, total: int) -> int:
    """The number of points of a path after some iterations, of a run of `total` iterations; the first is the start.

    >>> points_after(600, total=600), points_after(90_000, total=120_000)
    (601, 751)
    """
    return 1 + iterations // stride(total)
