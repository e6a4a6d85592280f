"""Lightning checkpoints: taken in memory, reduced to plain values, written whole."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import Tensor

from holdfast.files import replacing

_SNAPSHOT = "snapshot"  # the path that asks for a checkpoint in memory


class CheckpointIO(TorchCheckpointIO):
    """Writes checkpoints beside their names and renames them, so that none is ever torn; can keep one in memory."""

    def __init__(self) -> None:
        super().__init__()
        self._taken: dict[str, Any] = {}

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint, or keep it."""
        if path == _SNAPSHOT:
            self._taken = checkpoint
        else:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            save(checkpoint, Path(path))

    def snapshot(self, trainer: pl.Trainer) -> dict[str, Any]:
        """The checkpoint that Lightning would write now, independent of what is trained on."""
        trainer.save_checkpoint(_SNAPSHOT)
        taken, self._taken = self._taken, {}
        taken = {**taken, **{key: plain(taken[key]) for key in _HYPERPARAMETERS if key in taken}}
        independent: dict[str, Any] = _independent(taken)
        return independent


_HYPERPARAMETERS = ("hyper_parameters", "datamodule_hyper_parameters")


def save(value: Any, path: Path) -> None:
    """Write anything torch can save, whole or not at all."""
    with replacing(path) as stream:
        torch.save(value, stream)


def plain(value: Any) -> Any:
    """Hyperparameters as containers, numbers and text, which load with `weights_only=True`.

    >>> plain({"path": Path("a"), "rate": 0.1, "rows": range(2)})
    {'path': 'a', 'rate': 0.1, 'rows': 'range(0, 2)'}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, str, Tensor)):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else str(value)


def _independent(value: Any) -> Any:
    """The same containers with copies of their tensors, on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        made = {key: _independent(item) for key, item in value.items()}
        return made if type(value) is dict else type(value)(made)  # type: ignore[call-arg]
    return type(value)(map(_independent, value)) if type(value) in (list, tuple) else value
