"""`init_weights`: begin a run with the weights of a checkpoint or of a `state_dict`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from holdfast.errors import CheckpointError
from holdfast.model import Module
from holdfast.record.checkpoint import load

log = logging.getLogger(__name__)

_MOST_NAMED = 8


def initialize(module: pl.LightningModule, path: str, *, strict: bool) -> None:
    """Replace the weights of a module by those of a file; nothing in the file is executed.

    Args:
        module: is changed in place.
        path: a Lightning checkpoint, a `state_dict` of the module, or a `model.pth`.
        strict: whether every parameter and buffer has to be in the file, and nothing else.

    Raises:
        CheckpointError: the file cannot be read, has none of the parameters, or, if strict, not exactly these.
    """
    content, state = load(Path(path)), module.state_dict()
    given: dict[str, Any] = content["state_dict"] if isinstance(content.get("state_dict"), dict) else content
    if isinstance(module, Module):
        names = module.bare({name: name for name in state})  # of model.pth
        renamed = {names.get(name, name): value for name, value in given.items()}
        given = max(given, renamed, key=lambda entries: len(_fitting(entries, state)))
    fitting = _fitting(given, state)
    left_out = [_why(name, given, state) for name in dict.fromkeys((*state, *given)) if name not in fitting]
    if not fitting:
        raise CheckpointError(f"init_weights={path} has no parameter of {type(module).__name__}: {_listed(left_out)}.")
    if strict and left_out:
        raise CheckpointError(
            f"init_weights={path} fits {type(module).__name__} only in part. Left out: {_listed(left_out)}. "
            "To begin with the part that fits: init_weights_strict=false"
        )
    if left_out:
        log.warning("init_weights=%s: left out: %s", path, _listed(left_out))
    module.load_state_dict(fitting, strict=False)


def _fitting(given: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a file that can be copied into a module."""
    return {name: given[name] for name, value in state.items() if name in given and _fits(given[name], value)}


def _fits(given: Any, expected: Any) -> bool:
    if not isinstance(expected, Tensor):
        return True
    return (
        isinstance(given, Tensor)
        and given.shape == expected.shape
        and given.layout == expected.layout
        and not given.is_meta
        and given.is_complex() == expected.is_complex()
    )


def _why(name: str, given: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """An entry that is left out, and where it is missing or how it differs."""
    if name not in given or name not in state:
        return f"{name} of the {'model' if name in state else 'file'}"
    return f"{name} ({_form(given[name])}, the model has {_form(state[name])})"


def _form(value: Any) -> str:
    """The type and the shape of an entry."""
    kind = type(value).__name__ if not isinstance(value, Tensor) else str(value.dtype).removeprefix("torch.")
    return f"{kind} {tuple(value.shape)}" if isinstance(value, Tensor) else kind


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
