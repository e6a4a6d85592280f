"""Values, beside the parameters, in which the modules of a stack's jobs differ.

A coefficient such as `self.l2`, or `self.hparams["l2"]`, is a number in the module of a job. In a stack one module
stands for all jobs; while its loss is mapped over the jobs, the number is replaced by a tensor with the job's value.
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
class JobValues:
    """One attribute of the shared module, with the value of each job.

    Attributes:
        container, key: the attribute is `container[key]`.
        values: shape `(jobs, ...)`.
    """

    container: Container
    key: object
    values: Tensor

    def of_jobs(self, indexes: NDArray[np.int64]) -> Tensor:
        """The values of the jobs with these indexes, shape `(*indexes.shape, ...)`."""
        return self.values[torch.as_tensor(indexes, device=self.values.device)]


def differing_values(shared: State, states: Sequence[State], like: Tensor) -> list[JobValues]:
    """The attributes that differ between jobs.

    Args:
        shared: the state of the shared module.
        states: the state of the module of each job; all of the same structure.
        like: a tensor with the device and the precision of the parameters.
    """
    differing = []
    for path, (container, key) in shared.where.items():
        values = [state.numbers[path] for state in states]
        if any(not same_number(value, values[0]) for value in values):
            differing.append(JobValues(container, key, _stacked(values, like)))
    return differing


def _stacked(values: Sequence[float | Tensor], like: Tensor) -> Tensor:
    tensors = [value for value in values if isinstance(value, Tensor)]
    if tensors:
        return torch.stack(tensors).to(like.device)
    # in double precision, as Python's numbers are: 1 - 0.999999 would lose its digits in single
    dtype = torch.int64 if all(isinstance(value, int) for value in values) else sum_dtype(like)
    return torch.tensor(values, dtype=dtype, device=like.device)


@contextmanager
def replaced(attributes: Sequence[JobValues], values: Sequence[Tensor]) -> Iterator[None]:
    """Replace attributes of the shared module by the values of one job, and restore them at the end."""
    before = [each.container[each.key] for each in attributes]  # type: ignore[call-overload]
    try:
        for each, value in zip(attributes, values, strict=True):
            each.container[each.key] = value  # type: ignore[call-overload]
        yield
    finally:
        for each, value in zip(attributes, before, strict=True):
            each.container[each.key] = value  # type: ignore[call-overload]
