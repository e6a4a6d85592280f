"""Lightning checkpoints: copied in memory, written atomically, read without executing anything."""

from __future__ import annotations

import hashlib
import io
import numbers
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import Tensor

from holdfast.errors import CheckpointError
from holdfast.store.files import replacing

_SNAPSHOT = "snapshot"  # the path for which a checkpoint is kept in memory
_HYPERPARAMETERS = ("hyper_parameters", "datamodule_hyper_parameters")


class CheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint plugin: writes checkpoints atomically, or returns a copy in memory."""

    def __init__(self) -> None:
        super().__init__()
        self._checkpoint: dict[str, Any] = {}
        self._is_first = True

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint, or keep it for `snapshot`."""
        if path == _SNAPSHOT:
            self._checkpoint = checkpoint
        else:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            save(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint with `load`."""
        return load(path)

    def snapshot(self, trainer: pl.Trainer) -> dict[str, Any]:
        """The checkpoint that Lightning would write now, with copies of the tensors.

        Raises:
            CheckpointError: the state of a callback cannot be read back; checked at the first call.
        """
        trainer.save_checkpoint(_SNAPSHOT)
        checkpoint, self._checkpoint = self._checkpoint, {}
        for name, state in checkpoint.get("callbacks", {}).items() if self._is_first else ():
            _check_state(name, state)
        self._is_first = False
        hyperparameters = {key: plain_values(checkpoint[key]) for key in _HYPERPARAMETERS if key in checkpoint}
        copied: dict[str, Any] = _copied({**checkpoint, **hyperparameters})
        return copied


def load(path: Any, sha256: str | None = None) -> dict[str, Any]:
    """Read a checkpoint or a state_dict from the disk, and check that it is complete.

    The checks are the digest, where it is given, and the checksums inside the zip archive that `torch.save` writes.
    Only containers, numbers, text and tensors are loaded (`weights_only=True`), whatever the environment sets.

    Args:
        path: path of a file; URLs are refused.
        sha256: expected digest of the file.

    Raises:
        CheckpointError: the file is missing, empty, incomplete, altered, unsafe, or no checkpoint.
    """
    try:
        return _load(path, sha256)
    except _RefusedError as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from None


class _RefusedError(Exception):
    """Why a file is not read."""


def _load(path: Any, sha256: str | None) -> dict[str, Any]:
    if "://" in str(path):
        raise _RefusedError("checkpoints are read from the disk; download it first, if you trust its source")
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise _RefusedError(error.strerror) from None
    if not data:
        raise _RefusedError("it is empty")
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise _RefusedError("it was changed after it was written: its digest differs")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as parts:
            broken = parts.testzip()
    except Exception:  # zipfile raises exceptions of many types for an incomplete archive
        raise _RefusedError("it is incomplete, or was not written by torch.save") from None
    if broken is not None:
        raise _RefusedError(f"it was altered: the checksum of {broken} does not match")
    try:
        loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:
        unsafe = _unsafe_globals(data)
        why = f"it asks for {', '.join(unsafe)}, which could run anything" if unsafe else "it is not a checkpoint"
        raise _RefusedError(why) from None
    if not isinstance(loaded, dict):
        raise _RefusedError(f"it holds a {type(loaded).__name__}, not a checkpoint")
    return loaded


def _unsafe_globals(data: bytes) -> list[str]:
    """The names that a file would import if it were unpickled."""
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(data))
    except Exception:
        return []


def _check_state(name: str, state: Any) -> None:
    """Check that the state of a callback can be read back, before hours of training depend on it."""
    stream = io.BytesIO()
    torch.save(state, stream)
    saved = stream.getvalue()
    try:
        torch.load(io.BytesIO(saved), weights_only=True)
    except Exception:
        unsafe = ", ".join(torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(saved)))
        raise CheckpointError(
            f"The state of the callback {name} holds {unsafe or 'what cannot be read'}, and could not be read back: "
            "let its state_dict() return containers, numbers, text and tensors."
        ) from None


def save(value: Any, path: Path) -> None:
    """Write a value with `torch.save`, atomically: a reader sees the old file or the new one, never a part."""
    with replacing(path) as stream:
        torch.save(value, stream)


def plain_values(value: Any) -> Any:
    """Convert hyperparameters to containers, numbers, text and tensors, which load with `weights_only=True`.

    >>> plain_values({"path": Path("a"), "rate": 0.1, "rows": range(2)})
    {'path': 'a', 'rate': 0.1, 'rows': 'range(0, 2)'}
    """
    if isinstance(value, Mapping):
        return {str(key): plain_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(item) for item in value]
    if value is None or isinstance(value, (bool, str, Tensor)):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else str(value)


def _copied(value: Any) -> Any:
    """The same containers with copies of their tensors, on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        items = {key: _copied(item) for key, item in value.items()}
        return items if type(value) is dict else type(value)(items)  # type: ignore[call-arg]
    return type(value)(map(_copied, value)) if type(value) in (list, tuple) else value
