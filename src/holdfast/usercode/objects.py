"""The objects that an object refers to: `contents`, with one function for each kind of object."""

from __future__ import annotations

import collections
import functools
import hashlib
import logging
import pickle
import sys
import types
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
from torch import Tensor, nn

from holdfast.model import Module
from holdfast.usercode.code_objects import code_identity, filled_cells, global_names, imported_names
from holdfast.usercode.generators import GENERATORS
from holdfast.usercode.packages import is_users

Container = dict[Any, Any] | list[Any]

_LONGEST = 100_000
"""Containers with more entries are not searched; each counts as different from every other container."""

_SET_BY_LIGHTNING = frozenset({"_trainer", "_fabric", "_metric_attributes", "_device_mesh"})
_SET_BY_MODULE = frozenset({"_optimizer", "_scheduler", "_monitor", "_sums"})
"""Attributes of a LightningModule, and of `holdfast.model.Module`, that the Trainer or the configuration sets."""

_OF_EVERY_CLASS = frozenset(
    {"__dict__", "__weakref__", "__doc__", "_abc_impl", "__annotations__", "__module__", "__slotnames__"}
    | {"__firstlineno__", "__static_attributes__"}  # since Python 3.13; a line says nothing of what a class does
)

HOOKS = frozenset(name for name, value in vars(nn.Module()).items() if type(value) is collections.OrderedDict)
"""Attributes of every module that hold its hooks."""

_kept_alive: dict[int, Any] = {}  # by id, which stays unique while the object lives


class Node(NamedTuple):
    """An object in the graph of objects that refer to each other.

    Attributes:
        path: path to the object, from the object that refers to it or from the root of a walk.
        value: the object.
        where: the container and the key under which the object can be replaced; None if it cannot be replaced.
    """

    path: str
    value: Any
    where: tuple[Container, Any] | None = None


Contents = tuple[Hashable, Sequence[Node]]


@functools.singledispatch
def contents(value: Any) -> Contents:
    """Return what an object consists of.

    This is the implementation for objects with attributes; other kinds of objects have their own below.

    Returns:
        An identity, which is equal for two objects of the same class if they differ only in the objects that they
        refer to; and these objects.

    >>> contents([1.5, "a"])
    (2, [Node(path='[0]', value=1.5, where=([1.5, 'a'], 0)), Node(path='[1]', value='a', where=([1.5, 'a'], 1))])
    """
    children = list(_attributes(value))
    if children or isinstance(value, (nn.Module, types.SimpleNamespace)):
        return "", children
    text = repr(value)
    return (_unique_id(value) if " at 0x" in text else text), ()


def _unique_id(value: Any) -> int:
    """An id that no later object gets."""
    _kept_alive[id(value)] = value
    return id(value)


def _attributes(value: Any) -> Iterator[Node]:
    """The attributes of an object, in its `__dict__` and its slots, and its class if that is the user's."""
    if is_users(type(value).__module__):
        yield Node("class", type(value))
    attributes = vars(value) if hasattr(value, "__dict__") else {}
    skipped = _SET_BY_LIGHTNING if isinstance(value, pl.LightningModule) else frozenset()
    skipped |= {"trainer"} if isinstance(value, pl.LightningDataModule) else frozenset()
    skipped |= _SET_BY_MODULE if isinstance(value, Module) else frozenset()
    is_module = isinstance(value, nn.Module)
    for name, item in list(attributes.items()):
        if name in skipped:
            continue
        if is_module and name in ("_parameters", "_buffers"):
            # not replaceable: the buffers of a job belong to its checkpoint
            yield from (Node(key, tensor) for key, tensor in item.items())
        elif is_module and name in HOOKS and item:
            yield Node(name, _in_order(value, item))
        else:
            yield Node(name, item, (attributes, name))
    for cls in type(value).__mro__:
        for name, slot in vars(cls).items() if is_users(cls.__module__) else ():
            if isinstance(slot, types.MemberDescriptorType):
                with suppress(AttributeError):  # an empty slot
                    yield Node(name, slot.__get__(value))


def _in_order(module: nn.Module, hooks: Mapping[int, Any]) -> dict[int, Any]:
    """Hooks of a module by their order: torch numbers them by all hooks that this process has registered before."""
    numbers = sorted({number for name in HOOKS for number in getattr(module, name)})
    return {numbers.index(number): hook for number, hook in hooks.items()}


_PLAIN = frozenset({dict, list, tuple})
SCALARS = frozenset({type(None), bool, int, float, complex, str, bytes})


@contents.register(dict)
@contents.register(Mapping)
@contents.register(list)
@contents.register(tuple)
@contents.register(collections.deque)
def _(value: Any) -> Contents:
    # most of what a layer refers to
    if type(value) in _PLAIN and not value:
        return 0, ()
    if len(value) > _LONGEST:
        return ("long", _unique_id(value)), ()
    entries = value.items() if isinstance(value, Mapping) else enumerate(value)
    replaceable = isinstance(value, (dict, list))
    children = []
    for number, (key, item) in enumerate(entries):
        name = repr(key) if _is_plain(key) else f"key {number}"
        children.append(Node(f"[{name}]", item, (value, key) if replaceable else None))
        if not _is_plain(key):
            children.append(Node(name, key))
    return len(value), children if type(value) in _PLAIN else [*children, *_attributes(value)]


def _is_plain(key: Any) -> bool:
    """Whether the repr of a key, or of a member of a set, says all of it."""
    return all(map(_is_plain, key)) if type(key) is tuple else type(key) in SCALARS


@contents.register(set)
@contents.register(frozenset)
def _(value: Any) -> Contents:
    plain = sorted(repr(item) for item in value if _is_plain(item))
    others = sorted((item for item in value if not _is_plain(item)), key=_name)
    members = [Node(f"member {number}", item) for number, item in enumerate(others)]
    return (len(value), *plain), [*members, *_attributes(value)]


def _name(value: Any) -> str:
    """The name of a class or a function, or of the class of an object."""
    named = value if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)) else type(value)
    return f"{named.__module__}.{named.__qualname__}"


@contents.register(int)
@contents.register(float)
@contents.register(str)
@contents.register(bytes)
def _(value: Any) -> Contents:
    base = next(kind for kind in (int, float, str, bytes) if isinstance(value, kind))
    return base.__repr__(value), list(_attributes(value))


@contents.register
def _(value: Tensor) -> Contents:
    return "", [Node(name, item) for name, item, _ in _attributes(value)]


@contents.register(np.ndarray)
@contents.register(np.generic)
def _(value: Any) -> Contents:
    form = str(value.dtype), value.shape
    if value.dtype.hasobject:
        return form, [Node("items", value.tolist())]
    digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    return (*form, digest), [Node(name, item) for name, item, _ in _attributes(value)]


@contents.register
def _(value: logging.Logger) -> Contents:
    return value.name, ()


@contents.register(types.BuiltinFunctionType)
@contents.register(types.MethodWrapperType)
def _(value: Any) -> Contents:
    owner = value.__self__
    return value.__qualname__, () if isinstance(owner, (types.ModuleType, type(None))) else [Node("__self__", owner)]


@contents.register
def _(value: weakref.ref) -> Contents:  # type: ignore[type-arg]
    return "", [Node("target", value())]


@contents.register
def _(value: types.ModuleType) -> Contents:
    """The variables of a user's module, without functions and classes: code that uses these names them."""
    names = [name for name in vars(value) if not name.startswith("__")] if is_users(value.__name__) else []
    return value.__name__, [Node(name, vars(value)[name]) for name in names if not callable(vars(value)[name])]


@contents.register
def _(value: type) -> Contents:
    name = f"{value.__module__}.{value.__qualname__}"
    if not is_users(value.__module__):
        return name, ()
    attributes = [Node(key, item) for key, item in vars(value).items() if key not in _OF_EVERY_CLASS]
    bases = [Node(f"base{number}", base) for number, base in enumerate((*value.__bases__, type(value)))]
    return name, attributes + bases


@contents.register
def _(value: types.FunctionType) -> Contents:
    """The code of a user's function, its defaults and closure, and the globals that it names."""
    if not is_users(value.__module__ or ""):
        return f"{value.__module__}.{value.__qualname__}", ()
    children = [
        Node("defaults", value.__defaults__),
        Node("keyword defaults", value.__kwdefaults__),
        Node("attributes", value.__dict__),
        Node("module", sys.modules.get(value.__module__)),
    ]
    children += [Node(f"closure {name}", cell.cell_contents) for name, cell in filled_cells(value).items()]
    names = [name for name in global_names(value) if name in value.__globals__]
    children += [Node(f"global {name}", value.__globals__[name]) for name in names]
    names = [name for name in imported_names(value) if name in sys.modules and is_users(name)]
    children += [Node(f"module {name}", sys.modules[name]) for name in names]
    return (value.__qualname__, *code_identity(value)), children


_PARTS: dict[type, tuple[str, ...]] = {
    functools.partial: ("func", "args", "keywords", "__dict__"),
    functools._lru_cache_wrapper: ("__wrapped__",),
    types.MethodType: ("__self__", "__func__"),
    property: ("fget", "fset", "fdel"),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
}
"""Classes whose objects consist of a few attributes that are not in `__dict__`."""


def _parts(names: Sequence[str], value: Any) -> Contents:
    return "", [Node(name, getattr(value, name)) for name in names]


def _generator_state(get_state: Callable[[Any], Any], value: Any) -> Contents:
    return pickle.dumps(get_state(value)), ()


for _kind, _names in _PARTS.items():
    contents.register(_kind, functools.partial(_parts, _names))
for _kind, (_get_state, _set_state) in GENERATORS.items():
    contents.register(_kind, functools.partial(_generator_state, _get_state))
