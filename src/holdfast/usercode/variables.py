"""Restore the variables of the user's modules, so that a job that changes one does not change the next job.

A counter, a generator of random numbers, or a table in a module, a class or a closure is shared by all jobs of a
process. Trained alone, each job would find it as the import of the module left it.
"""

from __future__ import annotations

import copy
import functools
import itertools
import sys
import types
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from holdfast.usercode.code_objects import filled_cells
from holdfast.usercode.generators import GENERATORS
from holdfast.usercode.objects import Node
from holdfast.usercode.packages import is_users, note_users
from holdfast.usercode.state import walk

Restore = Callable[[], object]

_modules: set[str] = set()  # names of modules that configurations have named
_open_blocks: list[dict[int, tuple[Any, Restore]]] = []  # for each open block: the objects, by id, and their restorers

_MOST_BYTES = 1 << 20
"""Tensors and arrays with more bytes are not restored."""

_MOST_OBJECTS = 100_000
"""Objects that are restored; a larger project keeps changes to the rest."""


@contextmanager
def globals_restored() -> Iterator[Restore]:
    """Restore the variables of the user's modules, and every object that can be reached from them, at the end.

    Yields:
        A function that restores them at once, as often as it is called.
    """
    restorers: dict[int, tuple[Any, Restore]] = {}
    _add_restorers(restorers)
    _open_blocks.append(restorers)

    def restore_all() -> None:
        for _, restore in restorers.values():
            restore()

    try:
        yield restore_all
    finally:
        _open_blocks.pop()  # blocks are nested
        restore_all()


def note_module(module: str) -> None:
    """Restore the variables of a module from now on; to be called right after its import.

    Args:
        module: its full name.
    """
    note_users(module)
    if is_users(module):
        _modules.add(module)
        for restorers in _open_blocks:
            _add_restorers(restorers)


def _add_restorers(restorers: dict[int, tuple[Any, Restore]]) -> None:
    """Store the present contents of all objects that have no restorer yet."""
    roots = [
        Node(name, value)
        for module in (sys.modules[name] for name in sorted(_modules) if name in sys.modules)
        for name, value in (("module", module), *vars(module).items())
        if not name.startswith("__")
    ]
    for (_, value, _), _, first_path in itertools.islice(walk(*roots, enter=_is_entered), _MOST_OBJECTS):
        if first_path is None and id(value) not in restorers and (restore := _restorer(value)) is not None:
            restorers[id(value)] = (value, restore)  # with the object, since its id is unique only while it lives


_OF_PYTHON = (type, types.ModuleType, types.FunctionType, types.MethodType, functools.partial, dict, list, set, tuple)


def _is_entered(value: Any) -> bool:
    """Whether objects inside an object are restored; not inside a library's, such as an open connection."""
    return not hasattr(value, "__dict__") or isinstance(value, _OF_PYTHON) or _has_users_attributes(value)


def _has_users_attributes(value: Any) -> bool:
    return is_users(type(value).__module__) or isinstance(value, (torch.nn.Module, types.SimpleNamespace))


def _restorer(value: Any) -> Restore | None:
    """A function that restores an object to its present contents; None for objects that are not restored."""
    if isinstance(value, (types.ModuleType, type)):
        name = value.__name__ if isinstance(value, types.ModuleType) else value.__module__
        return _variables_restorer(value) if is_users(name) else None
    if isinstance(value, types.FunctionType):
        return _closure_restorer(value)
    if isinstance(value, (torch.Tensor, np.ndarray)) and value.nbytes > _MOST_BYTES:
        return None
    for kind, (get, put) in _CHANGED_IN_PLACE.items():
        if isinstance(value, kind):
            before = get(value)
            return lambda: put(value, before)
    return _attributes_restorer(value) if hasattr(value, "__dict__") and _has_users_attributes(value) else None


def _attributes_restorer(value: Any) -> Restore:
    before = dict(vars(value))

    def restore() -> None:
        now = vars(value)
        if now.keys() != before.keys() or any(now[name] is not item for name, item in before.items()):
            _refill(now, before)

    return restore


def _variables_restorer(owner: Any) -> Restore:
    """Restore the variables of a module or a class."""
    before = {name: value for name, value in vars(owner).items() if not name.startswith("__") and name != "_abc_impl"}
    counts = {name: _copied(value) for name, value in before.items() if type(value) is itertools.count}

    def restore() -> None:
        for name, value in list(vars(owner).items()):
            if name not in before and not name.startswith("__") and not isinstance(value, (types.ModuleType, type)):
                delattr(owner, name)
        restored = {**before, **{name: _copied(count) for name, count in counts.items()}}
        for name, value in restored.items():
            if vars(owner).get(name) is not value:
                setattr(owner, name, value)

    return restore


def _copied(count: Any) -> Any:
    """A counter that goes on where this one stands."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.14 copies no iterators any more
        return copy.copy(count)


def _closure_restorer(function: types.FunctionType) -> Restore | None:
    before = [(cell, cell.cell_contents) for cell in filled_cells(function).values()]

    def restore() -> None:
        for cell, value in before:
            cell.cell_contents = value

    return restore if before else None


def _refill(container: Any, entries: Any) -> None:
    container.clear()
    container.update(entries)


def _refill_in_order(container: Any, items: Any) -> None:
    container.clear()
    container.extend(items)


_CHANGED_IN_PLACE: dict[type, tuple[Callable[[Any], Any], Callable[[Any, Any], object]]] = {
    **GENERATORS,
    functools._lru_cache_wrapper: (lambda cached: None, lambda cached, _: cached.cache_clear()),
    list: (list, _refill_in_order),
    deque: (list, _refill_in_order),
    dict: (dict, _refill),
    set: (set, _refill),
    torch.Tensor: (
        lambda tensor: tensor.detach().clone(),
        lambda tensor, before: tensor.detach().copy_(before),
    ),
    np.ndarray: (np.copy, lambda array, before: np.copyto(array, before) if array.flags.writeable else None),
}
"""For each class, a function that copies the contents of an object, and one that puts them back."""
