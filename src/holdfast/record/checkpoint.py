"""Lightning checkpoints: taken in memory, reduced to plain values, written whole."""

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

_SNAPSHOT = "snapshot"  # the path that asks for a checkpoint in memory


class CheckpointIO(TorchCheckpointIO):
    """Writes checkpoints beside their names and renames them, so that none is ever torn; can keep one in memory."""

    def __init__(self) -> None:
        super().__init__()
        self._taken: dict[str, Any] = {}
        self._first = True

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint, or keep it."""
        if path == _SNAPSHOT:
            self._taken = checkpoint
        else:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            save(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint: from the disk, whole, and nothing in it is executed."""
        return load(path)

    def snapshot(self, trainer: pl.Trainer) -> dict[str, Any]:
        """The checkpoint that Lightning would write now, independent of what is trained on."""
        trainer.save_checkpoint(_SNAPSHOT)
        taken, self._taken = self._taken, {}
        for name, state in taken.get("callbacks", {}).items() if self._first else ():
            _check_state(name, state)
        self._first = False
        taken = {**taken, **{key: plain(taken[key]) for key in _HYPERPARAMETERS if key in taken}}
        independent: dict[str, Any] = _independent(taken)
        return independent


def load(path: Any, sha256: str | None = None) -> dict[str, Any]:
    """Read a checkpoint, or a state_dict, and nothing else.

    Whether it is whole is told by its digest, where that is known, and otherwise by the checksums that every file of
    torch's has of its parts. Only containers, numbers, text and tensors are read: what could be executed is refused,
    whatever the environment says.

    Args:
        path: of a file; no address.
        sha256: its digest.

    Raises:
        CheckpointError: the file is missing, empty, torn, altered, unsafe or something else.
    """

    def refused(why: str) -> CheckpointError:
        return CheckpointError(f"{path} cannot be read: {why}.")

    if "://" in str(path):
        raise refused("checkpoints are read from the disk; download it first, if you trust where it comes from")
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise refused(f"{error.strerror}") from None
    if not data:
        raise refused("it is empty")
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise refused("it is not the file that was written: its digest is another")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as parts:
            broken = parts.testzip()
    except Exception:  # of a torn archive zipfile raises whatever its bytes lead to
        raise refused("it is torn, or no file of torch.save") from None
    if broken is not None:
        raise refused(f"it was altered: the checksum of {broken} does not match")
    try:
        loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:
        try:
            unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(data))
        except Exception:
            unsafe = []
        why = f"it asks for {', '.join(unsafe)}, which could run anything" if unsafe else "it is no checkpoint"
        raise refused(why) from None
    if not isinstance(loaded, dict):
        raise refused(f"it holds a {type(loaded).__name__}, no checkpoint")
    return loaded


def _check_state(name: str, state: Any) -> None:
    """Make sure that what a callback keeps can be read back, before all is trained and cannot be."""
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
