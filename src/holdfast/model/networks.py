"""The networks: a linear layer, and a multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


def linear(features: int = 1, weight: float | None = None, bias: float | None = None, outputs: int = 1) -> nn.Linear:
    """Make the linear layer `f(x) = x w + b`.

    Args:
        features: columns of x.
        weight, bias: initial value of all weights, and of the bias; None keeps torch's random initialization.
        outputs: columns of f(x).

    >>> linear(2, weight=-15.0, bias=-10.0).weight.tolist()
    [[-15.0, -15.0]]
    """
    layer = nn.Linear(features, outputs)
    if weight is not None:
        nn.init.constant_(layer.weight, weight)
    if bias is not None:
        nn.init.constant_(layer.bias, bias)
    return layer


def mlp(
    features: int = 1,
    hidden: Sequence[int] = (16,),
    activation: Literal["tanh", "relu"] = "tanh",
    dropout: float = 0.0,
    outputs: int = 1,
) -> nn.Sequential:
    """Make a multi-layer perceptron: each hidden layer is a linear map, a nonlinearity, and dropout.

    Args:
        features: columns of x.
        hidden: number of units of each hidden layer.
        activation: the nonlinearity.
        dropout: fraction of hidden units set to zero in training; 0 adds no dropout layer.
        outputs: columns of f(x).

    >>> [type(layer).__name__ for layer in mlp(2, hidden=[8])]
    ['Linear', 'Tanh', 'Linear']
    """
    widths = [features, *hidden]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))
