"""Variables of the user's modules: a job that changes one must not change the job after it.

A counter, a generator of random numbers, or a table that lies in a module, a class or a closure is the same for all
jobs of a process. Alone, each job would have found it as it was when the module was imported.
"""

from __future__ import annotations

import copy
import functools
import random
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch

from holdfast.usercode.objects import Found
from holdfast.usercode.packages import is_users, note_users
from holdfast.usercode.state import walk

_modules: set[str] = set()  # that configurations have named
_open: list[dict[int, tuple[Any, Callable[[], None]]]] = []  # what restores each object, for every block that is open

_COPIED = 1 << 20
"""Bytes of a tensor or an array up to which its values are restored too."""

_MOST = 100_000
"""Objects that are looked after; a larger project keeps what it changes beyond them."""


@contextmanager
def globals_restored() -> Iterator[None]:
    """Restore the variables of the user's modules, and all that can be reached from them, at the end."""
    restore: dict[int, tuple[Any, Callable[[], None]]] = {}
    _note(restore)
    _open.append(restore)
    try:
        yield
    finally:
        _open.remove(restore)
        for _, action in restore.values():
            action()


def note_module(module: str) -> None:
    """Look after the variables of a module from now on; to be called right after it was imported."""
    note_users(module)
    if is_users(module):
        _modules.add(module)
        for restore in _open:
            _note(restore)


def _note(restore: dict[int, tuple[Any, Callable[[], None]]]) -> None:
    """Remember the present content of what is not remembered yet."""
    roots = [
        Found(name, value)
        for module in (sys.modules[name] for name in sorted(_modules) if name in sys.modules)
        for name, value in (("module", module), *vars(module).items())
        if not name.startswith("__")
    ]
    for (_, value, _), before in islice(walk(*roots, enter=_is_looked_after), _MOST) if roots else ():
        if before is None and id(value) not in restore and (action := _restorer(value)) is not None:
            restore[id(value)] = (value, action)  # the object is kept alive, or its id could become another's


def _is_looked_after(value: Any) -> bool:
    """Whether what is inside an object is restored: not what objects of a library keep, such as an open connection."""
    return not hasattr(value, "__dict__") or isinstance(value, _LANGUAGE) or _is_users(value)


def _is_users(value: Any) -> bool:
    return is_users(type(value).__module__) or isinstance(value, (torch.nn.Module, types.SimpleNamespace))


_LANGUAGE = (type, types.ModuleType, types.FunctionType, types.MethodType, functools.partial, dict, list, set, tuple)


def _restorer(value: Any) -> Callable[[], None] | None:
    """What brings an object back to what it is now; None where it cannot be changed, or is not looked after."""
    if isinstance(value, (types.ModuleType, type)):
        name = value.__name__ if isinstance(value, types.ModuleType) else value.__module__
        return _variables(value) if is_users(name) else None
    if isinstance(value, types.FunctionType):
        return _function(value)
    if isinstance(value, (torch.Tensor, np.ndarray)) and value.nbytes > _COPIED:
        return None
    for kind, get, put in _CONTENTS:
        if isinstance(value, kind):
            content = get(value)
            return lambda: put(value, content)
    return _attributes(value) if hasattr(value, "__dict__") and _is_users(value) else None


def _attributes(value: Any) -> Callable[[], None]:
    before = dict(vars(value))

    def restore() -> None:
        now = vars(value)
        if now.keys() != before.keys() or any(now[key] is not item for key, item in before.items()):
            _refill(now, before)

    return restore


def _variables(owner: Any) -> Callable[[], None]:
    """What brings the variables of a module or a class back to what they are now."""
    before = {key: value for key, value in vars(owner).items() if not key.startswith("__") and key != "_abc_impl"}
    fresh = {key: copy.copy(value) for key, value in before.items() if type(value).__name__ == "count"}

    def restore() -> None:
        for key, value in list(vars(owner).items()):
            if key not in before and not key.startswith("__") and not isinstance(value, (types.ModuleType, type)):
                delattr(owner, key)
        for key, value in {**before, **fresh}.items():
            if vars(owner).get(key) is not value:
                setattr(owner, key, value)

    return restore


def _function(function: types.FunctionType) -> Callable[[], None] | None:
    """The same for what a function's closure holds."""
    cells = [(cell, cell.cell_contents) for cell in function.__closure__ or () if _is_filled(cell)]

    def restore() -> None:
        for cell, content in cells:
            cell.cell_contents = content

    return restore if cells else None


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _refill(container: Any, entries: Any) -> None:
    container.clear()
    container.update(entries)


def _refill_in_order(container: Any, items: Any) -> None:
    container.clear()
    container.extend(items)


def _copy_into(tensor: torch.Tensor, values: torch.Tensor) -> None:
    with torch.no_grad():
        tensor.copy_(values)


_CONTENTS: tuple[tuple[Any, Callable[[Any], Any], Callable[[Any, Any], Any]], ...] = (
    (random.Random, random.Random.getstate, random.Random.setstate),
    (np.random.RandomState, np.random.RandomState.get_state, np.random.RandomState.set_state),
    (
        np.random.Generator,
        lambda value: value.bit_generator.state,
        lambda value, state: setattr(value.bit_generator, "state", state),
    ),
    (torch.Generator, torch.Generator.get_state, torch.Generator.set_state),
    (functools._lru_cache_wrapper, lambda value: None, lambda value, _: value.cache_clear()),
    ((list, deque), list, _refill_in_order),
    (dict, dict, _refill),
    (set, set, _refill),
    (torch.Tensor, lambda value: value.detach().clone(), _copy_into),
    (np.ndarray, np.copy, lambda value, array: np.copyto(value, array) if value.flags.writeable else None),
)
"""Classes of objects that are changed in place: how their content is taken, and how it is put back."""
