"""Functions of tensors that are traced into their plain operations once they have been called often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

TRACED_AFTER = 24
"""Calls with the same shapes after which a function is traced: tracing takes as long as some fifty calls."""


class Repeated:
    """A function that is traced into its plain operations once it has been called often with the same shapes.

    Args:
        function: of tensors.
        context: in which it is called and traced, as the precision asks.
        traced_after: calls with the same shapes after which it is traced.
    """

    def __init__(
        self, function: Callable[..., Any], context: Callable[[], AbstractContextManager[Any]], traced_after: int
    ) -> None:
        self._function, self._context, self._traced_after = function, context, traced_after
        self._calls: Counter[Any] = Counter()
        self._traced: dict[Any, Callable[..., Any]] = {}

    def __call__(self, *tensors: Tensor) -> Any:
        """Call the function, or what it was traced into."""
        shapes = tuple(tensor.shape for tensor in tensors)
        with self._context():
            if shapes not in self._traced:
                self._calls[shapes] += 1
                if self._calls[shapes] < self._traced_after:
                    return self._function(*tensors)
                self._traced[shapes] = self._trace(tensors)
            return self._traced[shapes](*tensors)

    def _trace(self, tensors: Sequence[Tensor]) -> Callable[..., Any]:
        try:
            return _lean(make_fx(self._function)(*tensors))
        except Exception:  # what can be mapped, but not traced, is called as it is
            return self._function


def _shape(node: Any) -> Any:
    return getattr(node.meta.get("val"), "shape", node)  # nothing is equal to what has no shape


def _lean(traced: torch.fx.GraphModule) -> Callable[..., Any]:
    """The same operations without views that change nothing, a third of all that vmap leaves."""
    views = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default, torch.ops.aten.expand.default)
    for node in traced.graph.nodes:
        if node.target in views and _shape(node) == _shape(node.args[0]):
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)
    traced.recompile()
    return traced.forward
