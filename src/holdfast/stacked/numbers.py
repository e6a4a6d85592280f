"""Numbers in which the jobs of a stack differ, beside their parameters: each job's loss reads its own.

A coefficient such as `self.l2`, or `self.hparams["l2"]`, is a plain number in the module of a job. In a stack there is
one module for all jobs; while its loss is mapped over the jobs, a tensor with the value of the job stands in the place
of the number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holdfast.model.module import sum_dtype
from holdfast.usercode.objects import Container
from holdfast.usercode.state import State, same_number


@dataclass(frozen=True)
class JobNumbers:
    """One attribute of a module with the value that each job has there.

    Attributes:
        container, key: where the number lies in the module that all jobs share.
        values: shape `(jobs, ...)`.
    """

    container: Container
    key: object
    values: Tensor

    def of(self, jobs: NDArray[np.int64]) -> Tensor:
        """The values of some jobs, shape `(*jobs.shape, ...)`."""
        return self.values[torch.as_tensor(jobs, device=self.values.device)]


def differing(shared: State, states: Sequence[State], like: Tensor) -> list[JobNumbers]:
    """The numbers that are not the same in all jobs.

    Args:
        shared: of the module that all jobs share.
        states: of the module of each job; all of the same structure.
        like: a tensor of the device of the parameters.
    """
    numbers = []
    for path, (container, key) in shared.where.items():
        values = [state.numbers[path] for state in states]
        if any(not same_number(value, values[0]) for value in values):
            numbers.append(JobNumbers(container, key, _stacked(values, like)))
    return numbers


def _stacked(values: Sequence[float | Tensor], like: Tensor) -> Tensor:
    tensors = [value for value in values if isinstance(value, Tensor)]
    if tensors:
        return torch.stack(tensors).to(like.device)
    # in double precision, as Python's numbers are: 1 - 0.999999 would lose its digits in single
    dtype = torch.int64 if all(isinstance(value, int) for value in values) else sum_dtype(like)
    return torch.tensor(values, dtype=dtype, device=like.device)


@contextmanager
def replaced(numbers: Sequence[JobNumbers], values: Sequence[Tensor]) -> Iterator[None]:
    """Put tensors in the place of numbers for a while."""
    before = [number.container[number.key] for number in numbers]  # type: ignore[call-overload]
    try:
        for number, value in zip(numbers, values, strict=True):
            number.container[number.key] = value  # type: ignore[call-overload]
        yield
    finally:
        for number, value in zip(numbers, before, strict=True):
            number.container[number.key] = value  # type: ignore[call-overload]
