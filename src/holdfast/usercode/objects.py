"""What can be reached from an object: one function for each kind of object, `look_into`."""

from __future__ import annotations

import collections
import functools
import hashlib
import logging
import random
import sys
import types
import weakref
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import count
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn

from holdfast.model import Module
from holdfast.usercode.packages import is_users

Container = dict[Any, Any] | list[Any]

_LIGHTNINGS = frozenset({"_trainer", "_fabric", "_metric_attributes", "_device_mesh"})
_MODULES = frozenset({"_optimizer", "_scheduler", "_monitor", "_sums"})
"""Attributes of a LightningModule, and of our Module, that are a Trainer's or the configuration's."""

_LONG = 100_000
"""Entries of a container up to which they are looked at; a longer one counts as different from every other."""

_numbers = count()
_opaque: dict[int, tuple[Any, int]] = {}  # objects that show nothing but themselves, kept alive, each with a number


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


@functools.singledispatch
def look_into(value: Any) -> Inside:
    """Any object with attributes."""
    inside = list(_attributes(value))
    if inside or isinstance(value, (nn.Module, types.SimpleNamespace)):
        return "", inside
    text = repr(value)
    return (_identity(value) if " at 0x" in text else text), ()


def _identity(value: Any) -> int:
    """A number that this object has for good; its id may be another's later."""
    return _opaque.setdefault(id(value), (value, next(_numbers)))[1]


def _attributes(value: Any) -> Iterator[Found]:
    """The attributes of an object, and its class where that is the user's."""
    if is_users(type(value).__module__):
        yield Found("class", type(value))
    attributes = vars(value) if hasattr(value, "__dict__") else {}
    skipped = _LIGHTNINGS if isinstance(value, pl.LightningModule) else frozenset()
    skipped |= _MODULES if isinstance(value, Module) else frozenset()
    for name, item in list(attributes.items()):
        if name in skipped:
            continue
        if isinstance(value, nn.Module) and name in ("_parameters", "_buffers"):
            # a buffer belongs to the checkpoint of its job: it is not given to it from outside
            yield from (Found(key, tensor) for key, tensor in item.items())
        else:
            yield Found(name, item, (attributes, name))
    for cls in type(value).__mro__:
        for name in _slots(cls):
            if hasattr(value, name):
                yield Found(name, getattr(value, name))


def _slots(cls: type) -> list[str]:
    names = cls.__dict__.get("__slots__", ()) if is_users(cls.__module__) else ()
    listed = [names] if isinstance(names, str) else list(names)
    hidden = f"_{cls.__name__.lstrip('_')}"
    return [f"{hidden}{name}" if name.startswith("__") and not name.endswith("__") else name for name in listed]


def _inner(value: Any, kind: type, items: Iterable[Found]) -> Iterable[Found]:
    """The items of a container, and the attributes that a subclass adds."""
    if len(value) > _LONG:
        return ()
    return items if type(value) is kind else (*items, *_attributes(value))


def _size(value: Any) -> Hashable:
    return len(value) if len(value) <= _LONG else ("long", _identity(value))


@look_into.register
def _(value: dict) -> Inside:  # type: ignore[type-arg]
    return _size(value), _inner(value, dict, (Found(f"[{key!r}]", item, (value, key)) for key, item in value.items()))


@look_into.register
def _(value: Mapping) -> Inside:  # type: ignore[type-arg]
    return _size(value), _inner(value, Mapping, (Found(f"[{key!r}]", item) for key, item in value.items()))


@look_into.register
def _(value: list) -> Inside:  # type: ignore[type-arg]
    return _size(value), _inner(value, list, (Found(f"[{at}]", item, (value, at)) for at, item in enumerate(value)))


@look_into.register(tuple)
@look_into.register(collections.deque)
def _(value: Any) -> Inside:
    return _size(value), _inner(value, tuple, (Found(f"[{at}]", item) for at, item in enumerate(value)))


@look_into.register(set)
@look_into.register(frozenset)
def _(value: Any) -> Inside:
    return repr(sorted(map(repr, value))), _inner(value, type(value), ())


@look_into.register(int)
@look_into.register(float)
@look_into.register(str)
@look_into.register(bytes)
def _(value: Any) -> Inside:
    plain = next(kind for kind in (int, float, str, bytes) if isinstance(value, kind))
    return (plain.__name__, plain.__repr__(value)), () if type(value) in (bool, plain) else _attributes(value)


@look_into.register
def _(value: Tensor) -> Inside:
    return "", [Found(name, item) for name, item in vars(value).items()]


@look_into.register(np.ndarray)
@look_into.register(np.generic)
def _(value: Any) -> Inside:
    content = repr(value.tolist()).encode() if value.dtype.hasobject else np.ascontiguousarray(value).tobytes()
    return (str(value.dtype), value.shape, hashlib.sha256(content).hexdigest()), ()


@look_into.register
def _(value: torch.Generator) -> Inside:
    return value.get_state().numpy().tobytes(), ()


@look_into.register
def _(value: random.Random) -> Inside:
    return value.getstate(), ()


@look_into.register
def _(value: np.random.Generator) -> Inside:
    return repr(value.bit_generator.state), ()


@look_into.register
def _(value: np.random.RandomState) -> Inside:
    return repr(value.get_state(legacy=False)), ()


@look_into.register
def _(value: logging.Logger) -> Inside:
    return value.name, ()


@look_into.register
def _(value: functools.partial) -> Inside:  # type: ignore[type-arg]
    parts = (Found("func", value.func), Found("args", value.args), Found("keywords", value.keywords))
    return "", (*parts, *(Found(name, item) for name, item in vars(value).items()))


@look_into.register
def _(value: functools._lru_cache_wrapper) -> Inside:  # type: ignore[type-arg]
    return "", (Found("function", value.__wrapped__),)


@look_into.register
def _(value: types.MethodType) -> Inside:
    return "", (Found("__self__", value.__self__), Found("__func__", value.__func__))


@look_into.register(types.BuiltinFunctionType)
@look_into.register(types.MethodWrapperType)
def _(value: Any) -> Inside:
    owner = value.__self__
    return value.__qualname__, () if isinstance(owner, (types.ModuleType, type(None))) else (Found("__self__", owner),)


@look_into.register
def _(value: weakref.ref) -> Inside:  # type: ignore[type-arg]
    return "", (Found("target", value()),)


@look_into.register
def _(value: property) -> Inside:
    return "", (Found("get", value.fget), Found("set", value.fset))


@look_into.register(staticmethod)
@look_into.register(classmethod)
def _(value: Any) -> Inside:
    return "", (Found("function", value.__func__),)


@look_into.register
def _(value: types.ModuleType) -> Inside:
    """The variables of a module of the user's; functions and classes are found by whoever names them."""
    names = [name for name in vars(value) if not name.startswith("__")] if is_users(value.__name__) else []
    return value.__name__, (Found(name, vars(value)[name]) for name in names if not callable(vars(value)[name]))


@look_into.register
def _(value: type) -> Inside:
    name = f"{value.__module__}.{value.__qualname__}"
    if not is_users(value.__module__):
        return name, ()
    inside = [Found(key, item) for key, item in list(vars(value).items()) if key not in _OF_EVERY_CLASS]
    inside += [Found(f"base{number}", base) for number, base in enumerate((*value.__bases__, type(value)))]
    return name, inside


@look_into.register
def _(value: types.FunctionType) -> Inside:
    """A function with its defaults, its closure, and the variables of its module."""
    if not is_users(value.__module__ or ""):
        return f"{value.__module__}.{value.__qualname__}", ()
    inside = [
        Found("defaults", value.__defaults__),
        Found("keyword defaults", value.__kwdefaults__),
        Found("attributes", value.__dict__),
        Found("module", sys.modules.get(value.__module__)),
    ]
    for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
        with suppress(ValueError):  # not filled yet
            inside.append(Found(f"closure {name}", cell.cell_contents))
    for name in _names(value.__code__):
        if name in value.__globals__:
            inside.append(Found(f"global {name}", value.__globals__[name]))
        elif name in sys.modules and is_users(name):  # imported inside the function
            inside.append(Found(f"module {name}", sys.modules[name]))
    return (value.__qualname__, *_code(value.__code__)), inside


_OF_EVERY_CLASS = frozenset({"__dict__", "__weakref__", "__doc__", "_abc_impl", "__annotations__", "__module__"})


def _code(code: types.CodeType) -> tuple[Hashable, ...]:
    constants = tuple(_code(item) if isinstance(item, types.CodeType) else repr(item) for item in code.co_consts)
    return code.co_code, code.co_names, constants


def _names(code: types.CodeType) -> Iterator[str]:
    """The names that a function looks up outside of itself, those of functions inside it too."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)
