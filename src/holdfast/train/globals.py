"""Variables of the user's modules: a job that changes one must not change the job after it.

A counter, a generator of random numbers, or a table that lies in a module or a class is the same for all jobs of a
process. Alone, each job would have found it as it was when the module was imported.
"""

from __future__ import annotations

import copy
import random
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from holdfast.train.state import is_users

_packages: set[str] = set()  # of the classes that configurations have named
_open: list[dict[int, Callable[[], None]]] = []  # what restores each module or class, for every block that is open

_COPIED = 1 << 20
"""Bytes of a tensor or an array up to which its values are restored too."""


@contextmanager
def globals_restored() -> Iterator[None]:
    """Restore the variables of the user's modules, and of the classes in them, at the end."""
    restore: dict[int, Callable[[], None]] = {}
    _note(restore)
    _open.append(restore)
    try:
        yield
    finally:
        _open.remove(restore)
        for action in restore.values():
            action()


def note_package(module: str) -> None:
    """Look after the variables of a package from now on; to be called right after it was imported.

    Args:
        module: the name of a module in it.
    """
    if is_users(module):
        _packages.add(module.partition(".")[0])
        for restore in _open:
            _note(restore)


def _note(restore: dict[int, Callable[[], None]]) -> None:
    """Remember the present variables of what is not remembered yet."""
    for name, module in list(sys.modules.items()) if _packages else ():
        if name.partition(".")[0] in _packages and isinstance(module, types.ModuleType):
            classes = [item for item in vars(module).values() if isinstance(item, type) and item.__module__ == name]
            for owner in (module, *classes):
                if id(owner) not in restore:
                    restore[id(owner)] = _restorer(owner)


def _restorer(owner: Any) -> Callable[[], None]:
    """What brings the variables of a module or a class back to what they are now."""
    before = {key: value for key, value in vars(owner).items() if not key.startswith("__") and key != "_abc_impl"}
    contents = [action for value in before.values() if (action := _content(value)) is not None]
    fresh = {key: copy.copy(value) for key, value in before.items() if type(value).__module__ == "itertools"}

    def restore() -> None:
        for key, value in list(vars(owner).items()):
            if key not in before and not key.startswith("__") and not isinstance(value, (types.ModuleType, type)):
                delattr(owner, key)
        for key, value in {**before, **fresh}.items():
            if vars(owner).get(key) is not value:
                setattr(owner, key, value)
        for action in contents:
            action()

    return restore


def _content(value: Any) -> Callable[[], None] | None:
    """What brings an object, that may be changed in place, back to what it is now; None where that cannot be told."""
    if isinstance(value, (torch.Tensor, np.ndarray)) and value.nbytes > _COPIED:
        return None
    for kind, get, put in _CONTENTS:
        if isinstance(value, kind):
            content = get(value)
            return lambda: put(value, content)
    return None


def _refill(container: dict[Any, Any] | set[Any], entries: Any) -> None:
    container.clear()
    container.update(entries)


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
    (list, list, lambda value, items: value.__setitem__(slice(None), items)),
    ((dict, set), copy.copy, _refill),
    (torch.Tensor, lambda value: value.detach().clone(), _copy_into),
    (np.ndarray, np.copy, lambda value, array: np.copyto(value, array) if value.flags.writeable else None),
)
"""Classes of objects that are changed in place: how their content is taken, and how it is put back."""
