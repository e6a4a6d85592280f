"""All that a module's code can read: attributes, containers, closures, and the variables of the user's modules.

Two walks are compared. Of one module, before and after its loss was computed: whatever changed is state that the loss
keeps. Of the modules of two jobs: whatever differs is what tells these jobs apart.
"""

from __future__ import annotations

import contextvars
import hashlib
import io
import queue
import threading
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from holdfast.usercode.objects import Container, Found, look_into
from holdfast.usercode.packages import is_users

_HASHED = 1 << 24
"""Bytes of a tensor up to which its values are read; of a larger one the count of its changes is."""

_PASSED = 1 << 12
"""Entries of a tensor up to which each job of a stack may have its own."""


@dataclass
class State:
    """What was found on a walk, by path.

    Attributes:
        leaves: everything but numbers, in a form that can be compared.
        numbers: numbers and small tensors that can be replaced where they lie, by path.
        where: the container and the key of each of these.
        hidden: objects that keep a state which cannot be read, such as generators and open files, by path.
    """

    leaves: dict[str, Hashable] = field(default_factory=dict)
    numbers: dict[str, float | int | Tensor] = field(default_factory=dict)
    where: dict[str, tuple[Container, Any]] = field(default_factory=dict)
    hidden: dict[str, str] = field(default_factory=dict)

    def kind(self, path: str) -> Hashable:
        """What numbers of two jobs must have in common to be given to each job of one program."""
        value = self.numbers[path]
        return (value.dtype, value.shape) if isinstance(value, Tensor) else "number"

    def structure(self) -> str:
        """Digest of all but the values of numbers: only jobs that share it can share a program."""
        kinds = sorted((path, str(self.kind(path))) for path in self.numbers)
        text = repr((sorted((path, repr(leaf)) for path, leaf in self.leaves.items()), kinds))
        return hashlib.sha256(text.encode()).hexdigest()

    def changed(self, later: State) -> str | None:
        """The first path at which two walks over the same object differ."""
        for path in dict.fromkeys((*self.leaves, *later.leaves)):
            if self.leaves.get(path) != later.leaves.get(path):
                return path
        for path in dict.fromkeys((*self.numbers, *later.numbers)):
            if not same_number(self.numbers.get(path), later.numbers.get(path)):
                return path
        return None


def same_number(one: float | Tensor | None, other: float | Tensor | None) -> bool:
    """Whether two numbers, or two tensors, are the same; NaN is the same as NaN."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
    return repr(one) == repr(other)


def walk(*roots: Found, enter: Callable[[Any], bool] = lambda value: True) -> Iterator[tuple[Found, str | None]]:
    """Every object that can be reached, each with its whole path; and of one seen before, the path that it had.

    Args:
        roots: where the walk begins.
        enter: whether to look for what can be reached from an object.
    """
    seen: dict[int, str] = {}
    alive: list[Any] = []  # an id is that of one object only while it lives
    waiting = list(roots)
    while waiting:
        found = waiting.pop()
        path, value = found.path, found.value
        if value is None or type(value) in (bool, int, float, complex, str, bytes):
            yield found, None
            continue
        if id(value) in seen:
            yield found, seen[id(value)]
            continue
        seen[id(value)] = path
        alive.append(value)
        yield found, None
        inside = look_into(value)[1] if enter(value) else ()
        waiting += (Found(f"{path}.{name}" if path else name, item, where) for name, item, where in inside)


def read(module: nn.Module) -> State:
    """Walk over everything that the code of a module can read, its parameters' values left out."""
    state = State()
    for (path, value, where), before in walk(Found("", module)):
        if before is not None:
            state.leaves[path] = ("same as", before)
        elif type(value) in (int, float):
            if where is None:
                state.leaves[path] = (type(value).__name__, repr(value))
            else:
                state.numbers[path], state.where[path] = value, where
        elif value is None or type(value) in (bool, complex, str, bytes):
            state.leaves[path] = (type(value).__name__, value)
        elif isinstance(value, Tensor):
            _note_tensor(state, path, value, where)
        else:
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            if _is_hidden(value):
                state.hidden[path] = kind
            state.leaves[path] = (kind, look_into(value)[0])
    return state


def _is_hidden(value: Any) -> bool:
    """Whether an object keeps a state that cannot be read without changing it."""
    kinds = (Iterator, io.IOBase, contextvars.ContextVar, threading.local, queue.SimpleQueue, memoryview)
    if is_users(type(value).__module__) or type(value).__name__ == "count":  # itertools.count shows where it is
        return False
    return isinstance(value, kinds)


def _note_tensor(state: State, path: str, value: Tensor, where: tuple[Container, Any] | None) -> None:
    form = (type(value).__name__, str(value.dtype), tuple(value.shape), value.requires_grad)
    if isinstance(value, nn.Parameter):
        state.leaves[path] = form
    elif where is not None and _is_plain(value) and value.numel() <= _PASSED:
        state.numbers[path], state.where[path] = value.detach().clone(), where
    elif value.numel() * value.element_size() <= _HASHED and value.layout == torch.strided:
        raw = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        state.leaves[path] = (*form, hashlib.sha256(raw).hexdigest())
    else:
        state.leaves[path] = (*form, id(value), value._version)


def _is_plain(value: Tensor) -> bool:
    return type(value) is Tensor and not value.requires_grad and value.layout == torch.strided
