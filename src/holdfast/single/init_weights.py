"""`init_weights`: begin a run with the weights of a checkpoint or of a `state_dict`."""

from __future__ import annotations

import logging
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
    content = load(Path(path))
    given: dict[str, Any] = content["state_dict"] if isinstance(content.get("state_dict"), dict) else content
    own = module.state_dict()
    if isinstance(module, Module):
        names = module.bare({name: name for name in own})  # of model.pth
        given = {names.get(name, name): value for name, value in given.items()}
    fitting = {name: given[name] for name, value in own.items() if name in given and _fits(given[name], value)}
    left_out = [*(f"{name} of the model" for name in own if name not in fitting)]
    left_out += [f"{name} of the file" for name in given if name not in fitting]
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


def _fits(given: Any, own: Any) -> bool:
    return not isinstance(own, Tensor) or (isinstance(given, Tensor) and given.shape == own.shape)


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
