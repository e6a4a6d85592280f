"""The gradient of the mean squared error of a linear model, by formula."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from holdfast.arithmetic.layout import Batch
from holdfast.model import Module, Regression
from holdfast.model.module import sum_dtype

FEW_JOBS = 8
"""Jobs of a stream below which one sum over all streams is faster than a matrix product for each stream."""

FEW_NUMBERS = 512
"""Numbers of a batch up to which that holds."""

FEW_FEATURES = 4
"""Columns of x up to which it is faster to add them one by one."""


class LeastSquares:
    """The mean squared error of a linear model, by formula: an implementation of `Gradients`.

    With a column of ones in X: `e = X w - y`, loss `mean(e^2)`, gradient `2/B X^T e`.
    """

    def __init__(self) -> None:
        self._parameters = torch.empty(0)  # (parameters, streams, width); the following are views of it
        self._each: tuple[Tensor, ...] = ()  # each (streams, width)
        self._by_stream = self._parameters  # (streams, parameters, width)

    @staticmethod
    def fits(module: Module, precision: str) -> bool:
        """Whether a module computes exactly this, in a precision without further rounding."""
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
        """X with its column of ones, shape `(rows, features + 1)`, and -y, shape `(rows, 1)`."""
        x, y = rows
        return torch.cat([x, x.new_ones(len(x), 1)], dim=1), -y

    def batches(self, gathered: Batch, width: int) -> list[Batch]:
        """Split gathered rows into batches; streams of few jobs get batches with the streams last."""
        x, minus_y = gathered
        if width >= FEW_JOBS or x.shape[2] * x.shape[3] > FEW_NUMBERS:
            return list(zip(x.unbind(), minus_y.unbind(), strict=True))
        x = x.permute(0, 3, 2, 1).unsqueeze(-1).contiguous()  # (iterations, parameters, batch, streams, 1)
        minus_y = minus_y.permute(0, 2, 1, 3).contiguous()  # (iterations, batch, streams, 1)
        doubled = x * (2 / x.shape[2])
        columns = x.unbind(1)[:-1] if x.shape[1] <= FEW_FEATURES + 1 else (x,)
        return list(zip(*(part.unbind() for part in (minus_y, doubled, *columns)), strict=True))

    def __call__(self, parameters: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The errors, shape `(streams, batch, width)`, and the gradient."""
        if self._parameters is not parameters:
            self._parameters, self._each = parameters, parameters.unbind()
            self._by_stream = parameters.permute(1, 0, 2)
        if len(batch) > 2:
            return self._streams_last(*batch)
        x, minus_y = batch
        error = torch.baddbmm(minus_y, x, self._by_stream)  # (streams, batch, width)
        gradient = torch.baddbmm(self._by_stream, x.mT, error, beta=0, alpha=2 / x.shape[1])
        return error, gradient.permute(1, 0, 2)

    def _streams_last(self, minus_y: Tensor, doubled: Tensor, *columns: Tensor) -> tuple[Tensor, Tensor]:
        """The same by one sum over all streams instead of a product for each."""
        if columns[0].dim() == 3:  # one column at a time: no intermediate result is larger than the errors
            error = torch.addcmul(minus_y, columns[0], self._each[0])  # (batch, streams, width)
            for column, weight in zip(columns[1:], self._each[1:], strict=False):
                error.addcmul_(column, weight)
            error.add_(self._each[-1])
        else:
            error = (columns[0] * self._parameters.unsqueeze(1)).sum(0).add_(minus_y)
        return error.transpose(0, 1), (doubled * error).sum(1)

    def losses(self, outcomes: Sequence[Tensor]) -> Tensor:
        """The mean of the squared errors, shape `(iterations, streams, width)`."""
        return torch.stack(list(outcomes)).square_().mean(2)

    def set_layout(self, jobs: NDArray[np.int64]) -> None:
        """Nothing to do: jobs differ in their parameters alone."""

    def statistics(self, parameters: Tensor, prepared: Batch, jobs: NDArray[np.int64]) -> Tensor:
        """Rows, squared error, absolute error, y and y squared, as `Regression.statistics`, shape `(jobs, 5)`."""
        x, minus_y = prepared
        wide = sum_dtype(x)
        minus_y = minus_y.to(wide)
        error = (x @ parameters).to(wide).add_(minus_y)  # (rows, jobs)
        absolute = error.abs().sum(0)
        shared = torch.stack([torch.full_like(minus_y[0, 0], len(x)), -minus_y.sum(), minus_y.square().sum()])
        rows, y, y_squared = shared.unsqueeze(1).expand(-1, len(absolute))
        return torch.stack([rows, error.square_().sum(0), absolute, y, y_squared], dim=1)
