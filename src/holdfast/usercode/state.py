"""The state of a module: everything that its code can read, by path.

The state before a loss is computed is compared with the state after it: whatever changed is state that the loss keeps.
The states of two jobs' modules are compared to learn in what the jobs differ.
"""

from __future__ import annotations

import contextvars
import hashlib
import io
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from holdfast.usercode.objects import HOOKS, SCALARS, Container, Contents, Node, contents
from holdfast.usercode.packages import is_users

_MOST_BYTES_READ = 1 << 24
"""Tensors with more bytes are not read; their version counter, which torch raises with each change, is compared."""

_MOST_PER_JOB = 1 << 12
"""Tensors with more entries cannot have different values in the jobs of a stack."""

_HIDING = (Iterator, io.IOBase, contextvars.ContextVar, threading.local, queue.SimpleQueue, memoryview)
"""Classes of objects whose state cannot be read without changing it."""


@dataclass
class State:
    """Everything that the code of a module can read, by path.

    Attributes:
        leaves: everything but `numbers`, in a form that can be compared.
        numbers: numbers and small tensors that can be replaced by other values.
        where: the container and the key of each of the `numbers`.
        hidden: the classes of objects whose state cannot be read, such as generators and open files.
    """

    leaves: dict[str, Hashable] = field(default_factory=dict)
    numbers: dict[str, float | int | Tensor] = field(default_factory=dict)
    where: dict[str, tuple[Container, Any]] = field(default_factory=dict)
    hidden: dict[str, str] = field(default_factory=dict)

    def structure(self) -> str:
        """Digest of everything but the values of numbers: equal for jobs that can share a program."""
        text = repr((sorted(self.leaves.items()), sorted(self._kinds().items())))
        return hashlib.sha256(text.encode()).hexdigest()

    def is_like(self, other: State) -> bool:
        """Whether another state has the same structure."""
        return self.leaves == other.leaves and self._kinds() == other._kinds()

    def _kinds(self) -> dict[str, str]:
        """What the numbers are, without their values."""
        return {
            path: str((value.dtype, value.shape)) if isinstance(value, Tensor) else "number"
            for path, value in self.numbers.items()
        }

    def changed(self, later: State) -> str | None:
        """The first path at which a later state of the same module differs; None if there is none."""
        return next(self.changes(later), None)

    def changes(self, later: State) -> Iterator[str]:
        """The paths at which a later state of the same module differs."""
        for path in dict.fromkeys((*self.leaves, *later.leaves, *self.numbers, *later.numbers)):
            same_leaf = self.leaves.get(path) == later.leaves.get(path)
            if not same_leaf or not same_number(self.numbers.get(path), later.numbers.get(path)):
                yield path


def same_number(one: float | Tensor | None, other: float | Tensor | None) -> bool:
    """Whether two numbers, or two tensors, are equal. NaN equals NaN; numbers of different types are not equal.

    >>> same_number(float("nan"), float("nan")), same_number(1, 1.0)
    (True, False)
    """
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
    return repr(one) == repr(other)


def walk(
    *roots: Node,
    enter: Callable[[Any], bool] = lambda value: True,
    read: Callable[[Any], Contents] = contents,
    skips_empty: bool = False,
) -> Iterator[tuple[Node, Hashable, str | None]]:
    """Visit every object that can be reached from the roots, depth first.

    Args:
        roots: objects to start from.
        enter: whether to visit the objects that an object refers to.
        read: returns what an object consists of.
        skips_empty: whether to leave out empty registries of hooks, of which each layer has a dozen.

    Yields:
        The object with its whole path, its identity (see `contents`), and the path of its first visit, which is None
        if this is the first. Scalars, and objects that are not entered or were visited before, have no identity.
    """
    first_paths: dict[int, str] = {}
    alive: list[Any] = []  # an id is unique only while the object lives
    waiting = list(roots)
    while waiting:
        node = waiting.pop()
        path, value = node.path, node.value
        if type(value) in SCALARS:
            yield node, None, None
        elif id(value) in first_paths:
            yield node, None, first_paths[id(value)]
        else:
            first_paths[id(value)] = path
            alive.append(value)
            identity, children = read(value) if enter(value) else (None, ())
            yield node, identity, None
            waiting += [
                Node(f"{path}.{name}" if path else name, item, where)
                for name, item, where in children
                if not (skips_empty and name in HOOKS and _is_empty_registry(value, item))
            ]


def read(module: nn.Module, *, buffers: bool = True) -> State:
    """Read the state of a module, without the values of its parameters; with those of its buffers, or without."""
    state = State()
    unread = set() if buffers else {id(value) for value in module.buffers()}
    for (path, value, where), identity, first_path in walk(Node("", module), skips_empty=True):
        if first_path is not None:
            state.leaves[path] = ("same as", first_path)
        elif where is not None and _may_differ(value):
            state.numbers[path] = value.detach().clone() if isinstance(value, Tensor) else value
            state.where[path] = where
        elif type(value) in SCALARS:
            state.leaves[path] = (type(value).__name__, repr(value))
        elif isinstance(value, Tensor):
            state.leaves[path] = _form(value) if id(value) in unread else _tensor_leaf(value)
        else:
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            if is_hiding(value):
                state.hidden[path] = kind
            state.leaves[path] = (kind, identity)
    return state


def _may_differ(value: Any) -> bool:
    """Whether a number or a tensor may have another value in each job of a stack."""
    if type(value) is not Tensor or _is_mapped(value):
        return type(value) in (int, float)
    return not value.requires_grad and value.layout == torch.strided and value.numel() <= _MOST_PER_JOB


def _tensor_leaf(value: Tensor) -> Hashable:
    """Class, type and shape of a tensor; its values too, unless it is a parameter."""
    if _is_mapped(value):
        return "a tensor that a mapped function has left", id(value)
    form = _form(value)
    if isinstance(value, nn.Parameter):
        return form
    if value.nbytes > _MOST_BYTES_READ or value.layout != torch.strided:
        return *form, id(value), value._version
    data = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return *form, hashlib.sha256(data).hexdigest()


def _is_mapped(value: Tensor) -> bool:
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(value))


def _form(value: Tensor) -> tuple[Hashable, ...]:
    return type(value).__name__, str(value.dtype), tuple(value.shape), value.requires_grad


def is_hiding(value: Any) -> bool:
    """Whether the state of an object cannot be read without changing it, as of a generator or an open file."""
    if is_users(type(value).__module__) or type(value).__name__ == "count":  # the repr of itertools.count is its state
        return False
    return isinstance(value, _HIDING)


def _is_empty_registry(owner: Any, item: Any) -> bool:
    return isinstance(owner, nn.Module) and type(item) is OrderedDict and not item and not vars(item)
