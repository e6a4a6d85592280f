"""The gradient of any loss that torch.func can differentiate and map over jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from holdfast.arithmetic.job_values import JobValues, replaced
from holdfast.arithmetic.layout import Batch
from holdfast.arithmetic.tracing import TRACED_AFTER, TracedFunction
from holdfast.model import Module


class Mapped:
    """The loss of a module, differentiated and mapped over jobs by torch.func: an implementation of `Gradients`.

    Args:
        module: the module that stands for all jobs; they differ in its parameters and in `job_values` alone.
        context: the context in which a loss is computed, as the precision needs.
        job_values: the values in which the jobs differ beside their parameters.
        traced_after: calls with the same shapes after which functions are traced.
    """

    def __init__(
        self,
        module: Module,
        context: Callable[[], AbstractContextManager[Any]],
        job_values: Sequence[JobValues] = (),
        traced_after: int = TRACED_AFTER,
    ) -> None:
        self._loss, self._statistics = _Method(module, "loss"), _Method(module, "statistics")
        parameters = [value for value in module.parameters() if value.requires_grad]
        self._shapes = [value.shape for value in parameters]
        self._names = [_names(module, value) for value in parameters]
        self._module, self._context, self._job_values = module, context, job_values
        self._cell_values = [each.values for each in job_values]  # each (streams, width, ...) once a layout is set
        one = grad_and_value(lambda parameters, x, y, *values: self._call(self._loss, parameters, (x, y), values))
        # targets are repeated for each job: torch's losses fail where only the prediction is mapped
        dims = (0, None, 0, *(0 for _ in job_values))
        self._gradient = TracedFunction(vmap(vmap(one, in_dims=dims), in_dims=0), context, traced_after)
        measure = lambda parameters, x, y, *values: self._call(self._statistics, parameters, (x, y), values)  # noqa: E731
        self._measure = TracedFunction(vmap(measure, in_dims=dims), context, traced_after - 1)

    def prepare(self, rows: Batch) -> Batch:
        """The rows unchanged."""
        return rows

    def batches(self, gathered: Batch, width: int) -> list[Batch]:
        """One batch for each iteration, parts of shape `(streams, batch, ...)`."""
        return list(zip(*(part.unbind() for part in gathered), strict=True))

    def __call__(self, parameters: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The losses, shape `(streams, width)`, and the gradient."""
        x, y = batch
        y = y.unsqueeze(1).expand(-1, parameters.shape[2], *y.shape[1:])  # (streams, width, batch, ...)
        gradient, losses = self._gradient(parameters.permute(1, 2, 0).contiguous(), x, y, *self._cell_values)
        return losses, gradient.permute(2, 0, 1)

    def losses(self, outcomes: Sequence[Tensor]) -> Tensor:
        """The losses, shape `(iterations, streams, width)`."""
        return torch.stack(list(outcomes))

    def set_layout(self, jobs: NDArray[np.int64]) -> None:
        """Arrange the values of the jobs as their parameters."""
        self._cell_values = [each.of_jobs(jobs) for each in self._job_values]

    def statistics(self, parameters: Tensor, prepared: Batch, jobs: NDArray[np.int64]) -> Tensor:
        """The module's `statistics` for each job, shape `(jobs, sums)`."""
        self._module.eval()
        x, y = prepared
        values = [each.of_jobs(jobs) for each in self._job_values]
        try:
            sums: Tensor = self._measure(parameters.T.contiguous(), x, y.expand(parameters.shape[1], *y.shape), *values)
        finally:
            self._module.train()
        return sums

    def _call(self, method: nn.Module, parameters: Tensor, batch: Batch, values: Sequence[Tensor]) -> Tensor:
        """Call a method of the module with the parameters, shape `(parameters,)`, and the values of one job."""
        parts: Sequence[Tensor] = torch.split(parameters, [shape.numel() for shape in self._shapes])
        named = {
            name: part.view(shape)
            for names, part, shape in zip(self._names, parts, self._shapes, strict=True)
            for name in names
        }
        with replaced(self._job_values, values):
            result: Tensor = functional_call(method, named, (batch,), tie_weights=False)
        return result


def _names(module: nn.Module, parameter: Tensor) -> list[str]:
    """The names of a parameter in `_Method`, one for each layer that holds it.

    torch can find shared parameters itself (`tie_weights`), but restores those of a layer that occurs twice wrongly.
    """
    return [
        ".".join(filter(None, ("module", layer, name)))
        for layer, owner in module.named_modules()
        for name, value in owner.named_parameters(recurse=False)
        if value is parameter
    ]


class _Method(nn.Module):
    """A method wrapped as a module, which is what `functional_call` calls."""

    def __init__(self, module: Module, name: str) -> None:
        super().__init__()
        self.module, self._name = module, name

    def forward(self, batch: Batch) -> Tensor:
        result: Tensor = getattr(self.module, self._name)(batch)
        return result
