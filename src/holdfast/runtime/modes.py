"""Evaluation mode, and back to what each layer was before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Let modules be in evaluation mode; at the end each layer is in its own mode again, as after a validation.

    >>> frozen = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    >>> with evaluating(frozen):
    ...     pass
    >>> [layer.training for layer in frozen]
    [True, False]
    """
    modes = [(layer, layer.training) for module in modules for layer in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training
