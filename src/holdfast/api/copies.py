"""Copies of objects that compute what the objects would."""

from __future__ import annotations

import copy
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn

from holdfast.usercode.content_digest import is_entered
from holdfast.usercode.objects import SCALARS, Node
from holdfast.usercode.state import walk

_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


def checked_copy(value: Any) -> Any:
    """A copy as `copy_of` makes it.

    Raises:
        TypeError: the copy would compute something else than the object.
    """
    copied, copies = _copied(value)
    _check(value, copied, copies)
    return copied


def copy_of(value: Any) -> Any:
    """A copy of a module or a data module, without its Trainer. A copy of a checked copy needs no check."""
    return _copied(value)[0]


def _copied(value: Any) -> tuple[Any, dict[int, Any]]:
    """A copy, and the copies of everything in it, by the ids of the originals."""
    trainer = vars(value).get("trainer" if isinstance(value, LightningDataModule) else "_trainer")
    copies: dict[int, Any] = {id(trainer): None}
    copied = copy.deepcopy(value, copies)
    for _, item, _ in _all_of(value):
        if isinstance(item, nn.Parameter) and id(item) in copies:  # torch does not copy its attributes
            vars(copies[id(item)]).update(copy.deepcopy(vars(item), copies))
    return copied, copies


def _check(value: Any, copied: Any, copies: dict[int, Any]) -> None:
    """Check that a copy computes what the object does.

    Raises:
        TypeError: it has lost a hook or shared memory, or it uses the object itself.
    """
    originals = {number for number, item in copies.items() if id(item) != number}
    memory = dict[int, int]()
    for path, item, _ in _all_of(value):
        if isinstance(item, Tensor) and any(getattr(item, name, None) for name in _HOOKS):
            raise TypeError(f"{path.lstrip('.')} has a hook on its gradient, which a copy would not have")
        if id(item) not in originals:
            continue
        address, twin = _address(item), _address(copies[id(item)])
        if address and memory.setdefault(address, twin) != twin:
            raise TypeError(f"{path.lstrip('.')} shares memory with another value, which a copy would not")
    for path, item, _ in _all_of(copied):
        if id(item) in originals:
            raise TypeError(f"{path.lstrip('.')} is the object itself, or a part of it: a copy would go on using that")


def shares_with_copies(value: Any) -> bool:
    """Whether functions in an object hold something that can be changed: a copy has the same functions."""
    immutable = (*SCALARS, tuple, type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType)
    held = (".closure ", ".defaults", ".keyword defaults")
    return any(
        any(part in path for part in held) and not isinstance(item, immutable) for path, item, _ in _all_of(value)
    )


def _all_of(root: Any) -> Iterator[Node]:
    """Everything in an object; arrays are not entered, since that would read them."""
    for node, *_ in walk(Node("", root), enter=lambda item: is_entered(item) and not isinstance(item, np.ndarray)):
        yield node


def _address(value: Any) -> int:
    """Where the memory of a tensor or an array begins; 0 for everything else, and for nothing."""
    if isinstance(value, Tensor) and value.layout is torch.strided:
        return value.untyped_storage().data_ptr()
    while isinstance(value, np.ndarray) and isinstance(value.base, np.ndarray):
        value = value.base
    return int(value.__array_interface__["data"][0]) if isinstance(value, np.ndarray) and value.nbytes else 0
