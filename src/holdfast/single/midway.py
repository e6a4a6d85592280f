"""A checkpoint inside an epoch: a run on rows from disk, whose epochs may take hours, resumes from there.

Rows, their order and the position in it follow from seeds and counts. What a run gathers over an epoch beside its
losses, such as metrics of a user's own, is in no checkpoint: a run that does so resumes from its last complete epoch.
"""

from __future__ import annotations

import hashlib
import random
import time
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy as np
import torch

from holdfast.config.schema import Config
from holdfast.data import BufferedRows, DataModule
from holdfast.errors import CheckpointError
from holdfast.model import Module
from holdfast.record.checkpoint import load, save
from holdfast.record.history import History
from holdfast.record.resume_point import RESUME_KEY
from holdfast.record.writer import Writer
from holdfast.store.folders import RunFolder

if TYPE_CHECKING:
    from holdfast.single.recorder import Recorder

SECONDS_BETWEEN_CHECKPOINTS = 60.0
"""How much training inside an epoch a crash may lose, in seconds."""


def find_midway(folder: RunFolder, config_hash: str, epochs: int) -> dict[str, Any] | None:
    """The checkpoint inside an epoch that a run resumes from; None if it resumes from the end of an epoch.

    Args:
        folder: folder of the run.
        config_hash: digest of the run's configuration.
        epochs: number of epochs that the run has completed.

    Raises:
        CheckpointError: the file cannot be read.
    """
    if not folder.midway.exists():
        return None
    checkpoint = load(folder.midway)
    entry = checkpoint.get(RESUME_KEY, {})
    return checkpoint if (entry.get("config_hash"), entry.get("epoch")) == (config_hash, epochs) else None


def restore_inside(history: History, checkpoint: dict[str, Any]) -> None:
    """Add what a run had done of its present epoch to the history of its complete epochs."""
    entry = checkpoint[RESUME_KEY]
    history.losses += entry["losses"].tolist()
    history.clock += [(int(count), moment) for count, moment in entry["clock"].tolist()]
    history.parameter_path += list(entry["path"])


class Midway:
    """Writes a checkpoint every minute inside an epoch, and lets a run go on from one.

    Args:
        config: configuration of the run.
        folder: folder of the run.
        config_hash: digest of the run's configuration.
        writer: knows the duration of the run.
        resumed: the checkpoint inside an epoch that the run resumes from.
    """

    def __init__(
        self, config: Config, folder: RunFolder, config_hash: str, writer: Writer, resumed: dict[str, Any] | None
    ) -> None:
        self._path, self._config_hash, self._writer = folder.midway, config_hash, writer
        self._resumed = resumed
        # their states inside an epoch are unknown
        self._has_extras = bool(config.callbacks.extras or config.logger.extras)
        self._rows = ""  # a digest of what decides on the order of the rows
        self._written = time.monotonic()

    def begin(self, recorder: Recorder, trainer: pl.Trainer, module: pl.LightningModule) -> bool:
        """Go on from a checkpoint, if there is one; returns whether checkpoints inside an epoch can be taken.

        Args:
            recorder: records the epochs of the run.
            trainer: the Trainer, right before its first epoch.
            module: what it trains.

        Raises:
            CheckpointError: the checkpoint is of other rows.
        """
        data = trainer.datamodule  # type: ignore[attr-defined]
        rows = data.train if isinstance(data, DataModule) else None
        if isinstance(rows, BufferedRows):
            self._rows = hashlib.sha256(repr(rows.key).encode()).hexdigest()
        if self._resumed is not None:
            self._go_on(recorder, trainer, module, self._resumed[RESUME_KEY])
            self._resumed = None
        self._written = time.monotonic()
        batches = trainer.val_check_batch
        validates_inside = batches is None or batches < trainer.num_training_batches
        is_plain = isinstance(module, Module) and trainer.world_size == 1 and not self._has_extras
        return isinstance(rows, BufferedRows) and is_plain and not validates_inside

    def write_if_due(self, recorder: Recorder, trainer: pl.Trainer) -> None:
        """Write a checkpoint, where one is due and possible at this moment."""
        if time.monotonic() - self._written >= SECONDS_BETWEEN_CHECKPOINTS:
            loop = trainer.fit_loop.epoch_loop
            is_over = loop.batch_progress.is_last_batch or trainer.should_stop
            if not (is_over or loop._should_accumulate() or loop._results):
                self._write(recorder, trainer)

    def _write(self, recorder: Recorder, trainer: pl.Trainer) -> None:
        history, reached = recorder.history, recorder.history.reached
        pending, clock = recorder.pending, [pair for pair in history.clock if pair[0] > reached.losses]
        entry = {
            "config_hash": self._config_hash,
            "seconds": self._writer.seconds,
            "epoch": trainer.current_epoch,
            "rows": self._rows,
            "losses": torch.tensor(history.losses[reached.losses :], dtype=torch.float64),
            "pending": torch.stack(pending).cpu() if pending else torch.empty(0),
            "clock": torch.tensor(clock, dtype=torch.float64).reshape(-1, 2),
            "path": [point.cpu() for point in history.parameter_path[reached.points :]],
            "learning_rate": recorder.learning_rate,
            "random": _random_states(trainer.strategy.root_device),
        }
        save({**recorder.checkpoint_io.snapshot(trainer), RESUME_KEY: entry}, self._path)
        self._written = time.monotonic()

    def _go_on(
        self, recorder: Recorder, trainer: pl.Trainer, module: pl.LightningModule, entry: dict[str, Any]
    ) -> None:
        """Let everything be as it was at the checkpoint."""
        if entry["rows"] != self._rows:
            raise CheckpointError(
                "the rows, or the buffers into which they are read, have changed since this run was begun: begin a new "
                "run."
            )
        recorder.begin_epoch(trainer, module)
        recorder.learning_rate = entry["learning_rate"]
        recorder.pending += entry["pending"].to(trainer.strategy.root_device).unbind()
        _restore_random(entry["random"], trainer.strategy.root_device)


def _random_states(device: torch.device) -> dict[str, Any]:
    """The states of the global generators, in plain containers and tensors."""
    name, keys, *more = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *more],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def _restore_random(states: dict[str, Any], device: torch.device) -> None:
    version, numbers, more = states["python"]
    random.setstate((version, tuple(numbers), more))
    name, keys, *others = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *others))
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"], device)
