"""All that a module's code can read: attributes, containers, closures, the globals of its functions.

Two walks are compared. Of one module, before and after its loss was computed: whatever changed is state that the loss
keeps. Of the modules of two jobs: whatever differs is what tells these jobs apart.
"""

from __future__ import annotations

import functools
import hashlib
import random
import sys
import types
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

Container = dict[Any, Any] | list[Any]

_OURS = frozenset({"holdfast", "hydra_plugins"})

_SKIPPED = frozenset(
    {"_trainer", "_fabric", "_optimizer", "_scheduler", "_monitor", "_sums", "_metric_attributes", "_device_mesh"}
)
"""Attributes of a LightningModule, and of ours, that are a Trainer's or the configuration's."""

_HASHED = 1 << 24
"""Bytes of a tensor up to which its values are read; of a larger one the count of its changes is."""

_LONG = 10_000
"""Entries of a container up to which they are looked at; a longer one counts as different from every other."""

_PASSED = 1 << 12
"""Entries of a tensor up to which each job of a stack may have its own."""


@dataclass
class State:
    """What was found on a walk, by path.

    Attributes:
        leaves: everything but numbers, in a form that can be compared.
        numbers: numbers and small tensors that can be replaced where they lie, by path.
        where: the container and the key of each of these.
    """

    leaves: dict[str, Hashable] = field(default_factory=dict)
    numbers: dict[str, float | int | Tensor] = field(default_factory=dict)
    where: dict[str, tuple[Container, Any]] = field(default_factory=dict)

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


def read(module: nn.Module) -> State:
    """Walk over everything that the code of a module can read, its parameters' values left out."""
    state = State()
    seen: dict[int, str] = {}
    alive: list[Any] = []  # an id is that of one object only while it lives
    waiting: list[Found] = [Found("", module)]
    while waiting:
        path, value, where = waiting.pop()
        if value is None or isinstance(value, (bool, str, bytes, complex)):
            state.leaves[path] = (type(value).__name__, value)
        elif isinstance(value, (int, float)):
            _note_number(state, path, value, where)
        elif id(value) in seen:
            state.leaves[path] = ("same as", seen[id(value)])
        else:
            seen[id(value)] = path
            alive.append(value)
            if isinstance(value, Tensor):
                _note_tensor(state, path, value, where)
                continue
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            if isinstance(value, (list, tuple, set, frozenset, Mapping)) and len(value) > _LONG:
                state.leaves[path] = (kind, len(value), id(value))
                continue
            detail, inside = look_into(value)
            state.leaves[path] = (kind, detail)
            waiting += (Found(f"{path}.{name}" if path else name, item, place) for name, item, place in inside)
    return state


class Found(NamedTuple):
    """An object and the way to it.

    Attributes:
        path: from the object around it.
        value: the object.
        where: the container and the key at which it can be replaced; None where it cannot.
    """

    path: str
    value: Any
    where: tuple[Container, Any] | None = None


Inside = tuple[Hashable, Iterable[Found]]
"""What an object is, beside its class, and the objects that can be reached from it."""


def _note_number(state: State, path: str, value: float, where: tuple[Container, Any] | None) -> None:
    if where is None:
        state.leaves[path] = (type(value).__name__, repr(value))
    else:
        state.numbers[path], state.where[path] = value, where


def _note_tensor(state: State, path: str, value: Tensor, where: tuple[Container, Any] | None) -> None:
    form = (type(value).__name__, str(value.dtype), tuple(value.shape), value.requires_grad)
    if isinstance(value, nn.Parameter):
        state.leaves[path] = form
    elif where is not None and type(value) is Tensor and value.numel() <= _PASSED and not value.requires_grad:
        state.numbers[path], state.where[path] = value.detach().clone(), where
    elif value.numel() * value.element_size() <= _HASHED and value.layout == torch.strided:
        state.leaves[path] = (*form, _digest(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()))
    else:
        state.leaves[path] = (*form, id(value), value._version)


def _digest(value: Any) -> str:
    return hashlib.sha256(value if isinstance(value, bytes) else np.ascontiguousarray(value).tobytes()).hexdigest()


@functools.singledispatch
def look_into(value: Any) -> Inside:
    """Any object with attributes."""
    attributes = vars(value) if hasattr(value, "__dict__") else {}
    slots = [name for cls in type(value).__mro__ for name in _slots(cls) if hasattr(value, name)]
    inside = [Found("class", type(value))] if is_users(type(value).__module__) else []
    for name, item in attributes.items():
        if isinstance(value, nn.Module) and name in _SKIPPED:
            continue
        if isinstance(value, nn.Module) and name in ("_parameters", "_buffers"):
            # a buffer belongs to the checkpoint of its job: it is not given to it from outside
            inside += (Found(key, tensor) for key, tensor in item.items())
        else:
            inside.append(Found(name, item, (attributes, name)))
    inside += (Found(name, getattr(value, name)) for name in slots)
    text = repr(value) if not attributes and not slots else ""  # such as itertools.count(3)
    return ("" if " at 0x" in text else text), inside


@look_into.register(dict)
def _(value: dict[Any, Any]) -> Inside:
    return len(value), (Found(f"[{key!r}]", item, (value, key)) for key, item in value.items())


@look_into.register(Mapping)
def _(value: Mapping[Any, Any]) -> Inside:
    return len(value), (Found(f"[{key!r}]", item) for key, item in value.items())


@look_into.register(list)
def _(value: list[Any]) -> Inside:
    return len(value), (Found(f"[{index}]", item, (value, index)) for index, item in enumerate(value))


@look_into.register(tuple)
def _(value: tuple[Any, ...]) -> Inside:
    return len(value), (Found(f"[{index}]", item) for index, item in enumerate(value))


@look_into.register(set)
@look_into.register(frozenset)
def _(value: set[Any]) -> Inside:
    return repr(sorted(map(repr, value))), ()


@look_into.register(np.ndarray)
@look_into.register(np.generic)
def _(value: Any) -> Inside:
    content = repr(value.tolist()).encode() if value.dtype.hasobject else np.asarray(value)
    return (str(value.dtype), value.shape, _digest(content)), ()


@look_into.register(torch.Generator)
def _(value: torch.Generator) -> Inside:
    return _digest(value.get_state().numpy()), ()


@look_into.register(random.Random)
def _(value: random.Random) -> Inside:
    return _digest(repr(value.getstate()).encode()), ()


@look_into.register(np.random.Generator)
def _(value: np.random.Generator) -> Inside:
    return repr(value.bit_generator.state), ()


@look_into.register(np.random.RandomState)
def _(value: np.random.RandomState) -> Inside:
    return repr(value.get_state(legacy=False)), ()


@look_into.register(functools.partial)
def _(value: functools.partial[Any]) -> Inside:
    return "", (Found("func", value.func), Found("args", value.args), Found("keywords", value.keywords))


@look_into.register(types.MethodType)
def _(value: types.MethodType) -> Inside:
    return "", (Found("__self__", value.__self__), Found("__func__", value.__func__))


@look_into.register(property)
def _(value: property) -> Inside:
    return "", (Found("get", value.fget), Found("set", value.fset))


@look_into.register(staticmethod)
@look_into.register(classmethod)
def _(value: Any) -> Inside:
    return "", (Found("function", value.__func__),)


@look_into.register(types.ModuleType)
def _(value: types.ModuleType) -> Inside:
    names = list(vars(value)) if is_users(value.__name__) else []
    return value.__name__, (Found(name, vars(value)[name]) for name in names if not name.startswith("__"))


@look_into.register(type)
def _(value: type) -> Inside:
    name = f"{value.__module__}.{value.__qualname__}"
    if not is_users(value.__module__):
        return name, ()
    own = [item for item in vars(value).items() if item[0] not in _OF_EVERY_CLASS]
    bases = (Found(f"base{number}", base) for number, base in enumerate(value.__bases__))
    return name, (*(Found(key, item) for key, item in own), *bases)


@look_into.register(types.FunctionType)
def _(value: types.FunctionType) -> Inside:
    """A function with its defaults, its closure, and the globals that it names."""
    if not is_users(value.__module__ or ""):
        return value.__qualname__, ()
    inside = [
        Found("defaults", value.__defaults__),
        Found("keyword defaults", value.__kwdefaults__),
        Found("attributes", dict(value.__dict__)),
    ]
    for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
        with suppress(ValueError):  # not filled yet
            inside.append(Found(f"closure {name}", cell.cell_contents))
    for name in _names(value.__code__):
        if name in value.__globals__:
            inside.append(Found(f"global {name}", value.__globals__[name]))
    return (value.__qualname__, value.__code__.co_code, repr(value.__code__.co_consts)), inside


_OF_EVERY_CLASS = frozenset({"__dict__", "__weakref__", "__doc__", "_abc_impl", "__annotations__", "__module__"})


def _slots(cls: type) -> tuple[str, ...]:
    names = cls.__dict__.get("__slots__", ()) if is_users(cls.__module__) else ()
    return (names,) if isinstance(names, str) else tuple(names)


def _names(code: types.CodeType) -> Iterator[str]:
    """The names that a function looks up outside of itself, those of functions inside it too."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


@functools.cache
def is_users(module: str) -> bool:
    """Whether a module, by its name, is neither of the standard library nor of an installed package, nor ours."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top in _OURS:
        return False
    file = getattr(sys.modules.get(top), "__file__", None) or ""
    return not any(part in ("site-packages", "dist-packages") for part in file.replace("\\", "/").split("/"))
