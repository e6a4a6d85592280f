"""The way that two parameters take down the cost surface: kept while training, drawn later."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MOST_POINTS = 1000
"""Points of a descent that are kept, about: more than a picture can show."""


def stride(iterations: int) -> int:
    """Of how many iterations one is kept.

    >>> stride(600), stride(60_000)
    (1, 60)
    """
    return -(-iterations // MOST_POINTS)


def flat(parameters: Sequence[Tensor]) -> Tensor:
    """Parameters as one vector, a copy."""
    return torch.cat([value.detach().flatten() for value in parameters])


def as_file(points: Tensor) -> bytes:
    """The two parameters before the first and after every `stride` iterations, `(points, 2)`, as a file of numpy's."""
    stream = io.BytesIO()
    np.save(stream, points.to("cpu", torch.float32).numpy())
    return stream.getvalue()


class Descents:
    """The ways of many jobs.

    Args:
        start: their initial parameters, shape `(2, jobs)`.
        iterations: of each, in all.

    Attributes:
        points: shape `(points, 2, jobs)`.
    """

    def __init__(self, start: Tensor, iterations: int) -> None:
        self._stride, self._done = stride(iterations), 0
        self._pending: list[Tensor] = []
        self.points = start.new_empty(iterations // self._stride + 1, *start.shape)
        self.points[0] = start

    def step(self, parameters: Tensor) -> None:
        """One more iteration; parameters are of shape `(2, streams, jobs)`."""
        self._done += 1
        if self._done % self._stride == 0:
            self._pending.append(parameters.clone())

    def end_epoch(self, done: int, live: NDArray[Any], at: NDArray[Any]) -> None:
        """Note what an epoch has brought.

        Args:
            done: iterations up to its end.
            live, at: jobs, and where each stands among all streams and jobs.
        """
        if self._pending:
            points, end = torch.stack(self._pending).flatten(2)[..., at], self._done // self._stride + 1
            self.points[end - len(points) : end, :, live] = points
            self._pending = []
        self._done = done

    def of(self, job: int, iterations: int) -> bytes:
        """The file of a job that has had so many iterations."""
        return as_file(self.points[: 1 + iterations // self._stride, :, job])
