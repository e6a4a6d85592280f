"""Models with one output, trained by mean squared error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from holdfast.errors import DataError
from holdfast.model import networks
from holdfast.model.module import Module, sum_dtype


class Regression(Module):
    """A network with one output, trained by mean squared error; it also measures MAE and R2.

    MSE = mean((f(x) - y)^2), MAE = mean(|f(x) - y|), R2 = 1 - sum((f(x) - y)^2) / sum((y - mean(y))^2).

    Args:
        network: maps x of shape `(rows, features)` to predictions of shape `(rows, 1)`.

    >>> model = Regression(networks.linear(weight=1.0, bias=0.0))
    >>> model.loss((torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [4.0]]))).item()
    2.0
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the predictions, shape `(rows, 1)`."""
        return self.network(x)  # type: ignore[no-any-return]

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the mean squared error of a batch."""
        x, y = batch
        prediction = self(x)
        _check_shapes(prediction, y)
        return functional.mse_loss(prediction, y)

    def statistics(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the number of rows, and the sums of squared error, absolute error, y and y squared; shape `(5,)`."""
        x, y = batch
        prediction, dtype = self(x), sum_dtype(y)
        _check_shapes(prediction, y)
        y = y.to(dtype)
        error = prediction.to(dtype) - y
        rows = torch.as_tensor(y.numel(), dtype=dtype, device=y.device)
        return torch.stack([rows, error.square().sum(), error.abs().sum(), y.sum(), y.square().sum()])

    def bare(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entries by the names that they have in the network; all names stay if one lies elsewhere."""
        if not all(name.startswith("network.") for name in state):
            return dict(state)
        return {name.removeprefix("network."): value for name, value in state.items()}

    @staticmethod
    def metrics(sums: Sequence[Any]) -> dict[str, Any]:
        """Return MSE, MAE and R2 as `loss`, `mae` and `r2`; R2 is NaN if all y are equal."""
        rows, squared_error, absolute_error, y, y_squared = sums
        spread = y_squared - y * y / rows
        with np.errstate(all="ignore"):
            r2 = np.where(spread > 0, 1 - np.divide(squared_error, spread), np.nan)
        return {"loss": squared_error / rows, "mae": absolute_error / rows, "r2": r2}


def _check_shapes(prediction: Tensor, y: Tensor) -> None:
    if prediction.shape != y.shape:
        raise DataError(
            f"Targets of shape {tuple(y.shape)} do not fit predictions of shape {tuple(prediction.shape)}: torch would "
            "compare every row with every other. Give y the shape (rows, 1), for example with y.unsqueeze(1)."
        )


class Linear(Regression):
    """`f(x) = x w + b`, trained by mean squared error.

    Args:
        features, weight, bias: as for `holdfast.model.networks.linear`.
        lr: learning rate of SGD, where `optimize_with` sets no optimizer.

    >>> model = Linear(weight=2.0, bias=1.0)
    >>> model(torch.tensor([[3.0]])).tolist()
    [[7.0]]
    >>> list(model.bare(model.state_dict()))
    ['linear.weight', 'linear.bias']
    """

    def __init__(
        self, features: int = 1, weight: float | None = None, bias: float | None = None, lr: float = 0.01
    ) -> None:
        super().__init__(networks.linear(features, weight, bias))
        self.save_hyperparameters(ignore=["lr"])  # a configuration has another
        self.lr = lr

    def bare(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entries by the names that they have in a module whose `linear` is the layer."""
        return {f"linear.{name}": value for name, value in super().bare(state).items()}


class MLP(Regression):
    """A multi-layer perceptron, trained by mean squared error.

    Args:
        features, hidden, activation, dropout: as for `holdfast.model.networks.mlp`.
        lr: learning rate of SGD, where `optimize_with` sets no optimizer.

    >>> sum(parameter.numel() for parameter in MLP(features=2, hidden=[8]).parameters())
    33
    """

    def __init__(
        self,
        features: int = 1,
        hidden: Sequence[int] = (16,),
        activation: Literal["tanh", "relu"] = "tanh",
        dropout: float = 0.0,
        lr: float = 0.01,
    ) -> None:
        hidden = list(hidden)
        super().__init__(networks.mlp(features, hidden, activation, dropout))
        self.save_hyperparameters(ignore=["lr"])
        self.lr = lr
