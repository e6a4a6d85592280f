"""Functions that draw random numbers, mapped over jobs and traced: each job's numbers come from its own generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_unflatten

from holdfast.arithmetic.tracing import traced
from holdfast.usercode.watch import UnstackableError

_SEEDED = torch.Tag.nondeterministic_seeded
_STACK = torch.ops.aten.stack.default
_ALLOWED = ("aten", "prims", "profiler")
"""Namespaces of the operations that torch maps over jobs; those of another library may have rules of their own."""

_METHODS: dict[str, tuple[str, slice | tuple[Any, ...]]] = {
    "bernoulli_.float": ("bernoulli_", slice(1, None)),
    "bernoulli.p": ("bernoulli_", slice(1, None)),
    "uniform_.default": ("uniform_", slice(1, None)),
    "rand.default": ("uniform_", ()),
    "rand_like.default": ("uniform_", ()),
    "normal_.default": ("normal_", slice(1, None)),
    "randn.default": ("normal_", ()),
    "randn_like.default": ("normal_", ()),
    "exponential_.default": ("exponential_", slice(1, None)),
    "randint.low": ("random_", slice(0, 2)),
    "randint.default": ("random_", slice(0, 1)),
    "randperm.default": ("randperm", slice(0, 1)),
}
"""For each operation that draws, the method of a tensor that draws the same numbers, and which arguments it takes."""


class _Draw(NamedTuple):
    """Numbers that one job draws: their shape and order in memory, and how they are drawn."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    method: str
    args: tuple[Any, ...]


class _Draws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records what is drawn: numbers are drawn in memory order, which a mapped function does not tell."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if _SEEDED in function.tags:
            self.seen.append((tuple(result.shape), result.stride()))
        return result


class DrawnFunction:
    """A function of tensors of many jobs, traced, with its random numbers drawn outside.

    Args:
        function: of the tensors of all jobs, whose first dimension is the job.
        one: the same for one job, without gradients.
        args: example arguments of `function`, nested containers of tensors.
        args_of_one: example arguments of `one`.

    Raises:
        UnstackableError: it draws numbers in a way that is not known, or has operations of another library.
    """

    def __init__(
        self, function: Callable[..., Any], one: Callable[..., Any], args: Sequence[Any], args_of_one: Sequence[Any]
    ) -> None:
        with torch.random.fork_rng(devices=[]), _Draws() as draws:
            one(*args_of_one)
        with torch.random.fork_rng(devices=[]):
            module = traced(function, *args)
        self._draws = list(_drawn_outside(module.graph, draws.seen))
        self._spec = module.graph._codegen.pytree_info.out_spec  # type: ignore[attr-defined]
        module.graph.set_codegen(fx.graph.CodeGen())
        module.graph.eliminate_dead_code()
        module.recompile()
        self._run = module.forward

    @property
    def draws(self) -> bool:
        """Whether it draws random numbers."""
        return bool(self._draws)

    def __call__(self, generators: Sequence[torch.Generator], *args: Any) -> Any:
        """Call the function; each generator draws the numbers of its job, as it would have alone."""
        numbers = [_empty(len(generators), draw) for draw in self._draws]
        if numbers:
            for job, generator in enumerate(generators):
                for tensor, draw in zip(numbers, self._draws, strict=True):
                    if draw.method == "randperm":
                        torch.randperm(*draw.args, generator=generator, out=tensor[job])
                    else:
                        getattr(tensor[job], draw.method)(*draw.args, generator=generator)
        return tree_unflatten(self._run(*tree_leaves(args), *numbers), self._spec)


def _empty(jobs: int, draw: _Draw) -> Tensor:
    size = 1 + sum((length - 1) * step for length, step in zip(draw.shape, draw.stride, strict=True))
    return torch.empty_strided((jobs, *draw.shape), (max(size, 1), *draw.stride), dtype=draw.dtype)


def _drawn_outside(graph: fx.Graph, seen: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[_Draw]:
    """Make every drawn tensor an input of a graph; returns how each is drawn, in order."""
    last = [node for node in graph.nodes if node.op == "placeholder"][-1]
    draws: list[_Draw] = []
    erased: set[fx.Node] = set()
    for node in list(graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        if node.target.namespace not in _ALLOWED:
            raise UnstackableError(f"it calls {node.target}, an operation that is not torch's")
        if _SEEDED not in node.target.tags or node in erased:
            continue
        name, nodes = node.target.__name__, _of_all_jobs(node)
        value = nodes[0].meta["val"]
        if name not in _METHODS:
            raise UnstackableError(f"it draws random numbers by {name}")
        if len(draws) == len(seen) or tuple(value.shape[1:]) != seen[len(draws)][0]:
            raise UnstackableError("it draws other random numbers in a stack than alone")
        if value.device.type != "cpu":
            raise UnstackableError(f"it draws random numbers on {value.device.type}, in an order of its own")
        method, which = _METHODS[name]
        args = tuple(node.args[which]) if isinstance(which, slice) else which
        if any(isinstance(arg, fx.Node) for arg in args):
            raise UnstackableError(f"it draws random numbers by {name} with parameters of the job's")
        args = (0, *args) if name == "randint.default" else args
        with graph.inserting_after(last):
            last = graph.placeholder(f"draw_{len(draws)}")
        nodes[0].replace_all_uses_with(last)
        draws.append(_Draw(*seen[len(draws)], value.dtype, method, args))
        for each in nodes:
            graph.erase_node(each)
        erased.update(nodes)
    if len(draws) != len(seen):
        raise UnstackableError("it draws other random numbers in a stack than alone")
    return draws


def _of_all_jobs(node: fx.Node) -> list[fx.Node]:
    """The nodes that draw the same numbers for each job, the one with the numbers of all jobs first.

    torch draws the permutation of each job by itself, and stacks them.
    """
    users = list(node.users)
    if node.target is torch.ops.aten.randperm.default and [user.target for user in users] == [_STACK]:
        return [users[0], *users[0].args[0]]  # type: ignore[misc]
    return [node]
