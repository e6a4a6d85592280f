"""The loss of many jobs on their batches, its gradient, and the statistics of all rows: by formula, or by torch.func.

Parameters of all jobs lie in one tensor of shape `(parameters, streams, jobs)`. The jobs of a stream visit the same
rows in the same order, so that a batch is read once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from holdfast.model import Module, Regression
from holdfast.model.module import sum_dtype
from holdfast.stacked.numbers import JobNumbers, replaced
from holdfast.stacked.tracing import TRACED_AFTER, Repeated

Batch = tuple[Tensor, ...]

FEW_JOBS = 8
"""Jobs of a stream below which many small matrix products are slower than one sum over all streams."""

FEW_NUMBERS = 512
"""Numbers of a batch up to which that holds."""

FEW_FEATURES = 4
"""Columns of x that are quicker added up one by one."""


class Gradients(Protocol):
    """How losses and gradients come about."""

    def prepare(self, rows: Batch) -> Batch:
        """What is gathered from, made of all rows once."""

    def batches(self, gathered: Batch, jobs: int) -> list[Batch]:
        """The batches of some iterations from prepared rows of shape `(iterations, streams, batch, ...)`."""

    def __call__(self, parameters: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the losses are made of later, and the gradient, shape `(parameters, streams, jobs)`."""

    def losses(self, outcomes: Sequence[Tensor]) -> Tensor:
        """The losses of some iterations, shape `(iterations, streams, jobs)`."""

    def place(self, jobs: NDArray[np.int64]) -> None:
        """Say which job lies where; numbers of the jobs, shape `(streams, jobs)`."""

    def statistics(self, parameters: Tensor, prepared: Batch, jobs: NDArray[np.int64]) -> Tensor:
        """Sums over rows for jobs that share them, given their parameters and their numbers.

        Args:
            parameters: shape `(parameters, jobs)`.
            prepared: the rows.
            jobs: shape `(jobs,)`.

        Returns:
            Shape `(jobs, sums)`.
        """


class LeastSquares:
    """The mean squared error of a linear model, by formula.

    With a column of ones in X: `e = X w - y`, loss `mean(e^2)`, gradient `2/B X^T e`.
    """

    def __init__(self) -> None:
        self._of: Tensor = torch.empty(0)  # the parameters that these are views of
        self._each: tuple[Tensor, ...] = ()
        self._by_stream = self._of

    @staticmethod
    def fits(module: Module, precision: str) -> bool:
        """Whether a module is this and nothing more, and no step of it is to be rounded further."""
        same = ("loss", "statistics", "forward")
        return (
            isinstance(module, Regression)
            and all(getattr(type(module), name) is getattr(Regression, name) for name in same)
            and type(module.network) is nn.Linear
            and module.network.bias is not None
            and [name for name, _ in module.named_parameters()] == ["network.weight", "network.bias"]
            and module.network.out_features == 1
            and precision in ("32-true", "64-true")
        )

    def prepare(self, rows: Batch) -> Batch:
        """X with its column of ones, and -y."""
        x, y = rows
        return torch.cat([x, x.new_ones(len(x), 1)], dim=1), -y

    def batches(self, gathered: Batch, jobs: int) -> list[Batch]:
        """The batches as they lie, or with the streams last, where each has only a few jobs."""
        x, minus_y = gathered
        if jobs >= FEW_JOBS or x.shape[2] * x.shape[3] > FEW_NUMBERS:
            return list(zip(x.unbind(), minus_y.unbind(), strict=True))
        # (iterations, parameters, batch, streams, 1) and (iterations, batch, streams, 1)
        x = x.permute(0, 3, 2, 1).unsqueeze(-1).contiguous()
        minus_y = minus_y.permute(0, 2, 1, 3).contiguous()
        doubled = x * (2 / x.shape[2])
        columns = x.unbind(1)[:-1] if x.shape[1] <= FEW_FEATURES + 1 else (x,)
        return list(zip(*(part.unbind() for part in (minus_y, doubled, *columns)), strict=True))

    def __call__(self, parameters: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Errors, shape `(streams, batch, jobs)`, and gradient."""
        if self._of is not parameters:
            self._of, self._each, self._by_stream = parameters, parameters.unbind(), parameters.permute(1, 0, 2)
        if len(batch) > 2:
            return self._streams_last(*batch)
        x, minus_y = batch
        error = torch.baddbmm(minus_y, x, self._by_stream)  # (streams, batch, jobs)
        gradient = torch.baddbmm(self._by_stream, x.mT, error, beta=0, alpha=2 / x.shape[1])
        return error, gradient.permute(1, 0, 2)

    def _streams_last(self, minus_y: Tensor, doubled: Tensor, *columns: Tensor) -> tuple[Tensor, Tensor]:
        """The same with one sum over all streams in the place of a product for each."""
        if columns[0].dim() == 3:  # one by one, nothing larger than the errors is written
            error = torch.addcmul(minus_y, columns[0], self._each[0])  # (batch, streams, jobs)
            for column, weight in zip(columns[1:], self._each[1:], strict=False):
                error.addcmul_(column, weight)
            error.add_(self._each[-1])
        else:
            error = (columns[0] * self._of.unsqueeze(1)).sum(0).add_(minus_y)
        return error.transpose(0, 1), (doubled * error).sum(1)

    def losses(self, outcomes: Sequence[Tensor]) -> Tensor:
        """The mean of the squared errors."""
        return torch.stack(list(outcomes)).square_().mean(2)

    def place(self, jobs: NDArray[np.int64]) -> None:
        """The formula has no numbers but the parameters."""

    def statistics(self, parameters: Tensor, prepared: Batch, jobs: NDArray[np.int64]) -> Tensor:
        """Rows, squared error, absolute error, y and y squared, as `Regression.statistics`."""
        x, minus_y = prepared
        dtype = sum_dtype(x)
        minus_y = minus_y.to(dtype)
        error = (x @ parameters).to(dtype).add_(minus_y)
        absolute = error.abs().sum(0)
        own = torch.stack([torch.full_like(minus_y[0, 0], len(x)), -minus_y.sum(), minus_y.square().sum()])
        rows, y, y_squared = own.unsqueeze(1).expand(-1, len(absolute))
        return torch.stack([rows, error.square_().sum(0), absolute, y, y_squared], dim=1)


class Mapped:
    """Any loss that torch.func can take the gradient of, for all jobs at once.

    Args:
        module: any of the jobs' modules; what is neither a parameter nor among `numbers` is the same in all.
        context: in which a loss is computed, as the precision asks.
        numbers: the numbers in which the jobs differ, beside their parameters.
        traced_after: calls with the same shapes after which functions are traced.
    """

    def __init__(
        self,
        module: Module,
        context: Callable[[], AbstractContextManager[Any]],
        numbers: Sequence[JobNumbers] = (),
        traced_after: int = TRACED_AFTER,
    ) -> None:
        self._loss, self._statistics = _Method(module, "loss"), _Method(module, "statistics")
        parameters = [value for value in module.parameters() if value.requires_grad]
        self._shapes = [value.shape for value in parameters]
        self._places = [_places(module, value) for value in parameters]
        self._module, self._context = module, context
        self._numbers, self._placed = numbers, [number.values for number in numbers]
        one = grad_and_value(lambda parameters, x, y, *own: self._call(self._loss, parameters, (x, y), own))
        # targets are repeated, since torch's losses go wrong where only the prediction is mapped over
        dims = (0, None, 0, *(0 for _ in numbers))
        self._gradient = Repeated(vmap(vmap(one, in_dims=dims), in_dims=0), context, traced_after)
        measure = lambda parameters, x, y, *own: self._call(self._statistics, parameters, (x, y), own)  # noqa: E731
        self._measure = Repeated(vmap(measure, in_dims=dims), context, traced_after - 1)

    def prepare(self, rows: Batch) -> Batch:
        """The rows as they are."""
        return rows

    def batches(self, gathered: Batch, jobs: int) -> list[Batch]:
        """The batches as they lie."""
        return list(zip(*(part.unbind() for part in gathered), strict=True))

    def __call__(self, parameters: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Losses and gradient."""
        x, y = batch
        y = y.unsqueeze(1).expand(-1, parameters.shape[2], *y.shape[1:])
        gradient, losses = self._gradient(parameters.permute(1, 2, 0).contiguous(), x, y, *self._placed)
        return losses, gradient.permute(2, 0, 1)

    def losses(self, outcomes: Sequence[Tensor]) -> Tensor:
        """The losses as they are."""
        return torch.stack(list(outcomes))

    def place(self, jobs: NDArray[np.int64]) -> None:
        """Put the numbers of each job where its parameters lie, shape `(streams, jobs, ...)`."""
        self._placed = [number.of(jobs) for number in self._numbers]

    def statistics(self, parameters: Tensor, prepared: Batch, jobs: NDArray[np.int64]) -> Tensor:
        """What the module's own `statistics` says for each job."""
        self._module.eval()
        x, y = prepared
        own = [number.of(jobs) for number in self._numbers]
        try:
            sums: Tensor = self._measure(parameters.T.contiguous(), x, y.expand(parameters.shape[1], *y.shape), *own)
        finally:
            self._module.train()
        return sums

    def _call(self, method: nn.Module, parameters: Tensor, batch: Batch, own: Sequence[Tensor]) -> Tensor:
        """A method of the module with the parameters of one job, given as one vector, and its own numbers."""
        parts: Sequence[Tensor] = torch.split(parameters, [shape.numel() for shape in self._shapes])
        named = {
            place: part.view(shape)
            for places, part, shape in zip(self._places, parts, self._shapes, strict=True)
            for place in places
        }
        with replaced(self._numbers, own):
            result: Tensor = functional_call(method, named, (batch,), tie_weights=False)
        return result


def engine(
    module: Module, trainer: pl.Trainer, numbers: Sequence[JobNumbers] = (), traced_after: int = TRACED_AFTER
) -> Gradients:
    """The quickest way to the gradient of a module."""
    precision = trainer.precision_plugin
    fits = not numbers and LeastSquares.fits(module, str(precision.precision))
    return LeastSquares() if fits else Mapped(module, precision.forward_context, numbers, traced_after)


def on_device(trainer: pl.Trainer, rows: Any) -> Batch:
    """Rows where the Trainer computes, in the type that its precision asks for."""
    batch = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input((rows.x, rows.y)))
    return tuple(batch)


def _places(module: nn.Module, parameter: Tensor) -> list[str]:
    """The names of a parameter in `_Method`, one for each layer that has it.

    torch finds shared parameters by itself, but puts those of a layer that stands in two places back wrongly.
    """
    return [
        ".".join(filter(None, ("module", layer, name)))
        for layer, owner in module.named_modules()
        for name, value in owner.named_parameters(recurse=False)
        if value is parameter
    ]


class _Method(nn.Module):
    """A method as a module of its own: `functional_call` can call nothing else."""

    def __init__(self, module: Module, name: str) -> None:
        super().__init__()
        self.module, self._name = module, name

    def forward(self, batch: Batch) -> Tensor:
        result: Tensor = getattr(self.module, self._name)(batch)
        return result
