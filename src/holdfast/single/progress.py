"""A progress bar over the whole fit."""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
from tqdm import tqdm


class FitProgress(pl.Callback):
    """A progress bar over all iterations of a fit, drawn at most ten times a second.

    Args:
        epochs: number of epochs of the fit.
    """

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._bar: tqdm[Any] = tqdm(disable=True)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the bar; without a total where the training rows are a stream."""
        batches = trainer.num_training_batches
        total = self._epochs * int(batches) if math.isfinite(batches) else None
        self._bar = tqdm(total=total, mininterval=0.1, unit="it", leave=False, dynamic_ncols=True)

    def on_train_batch_end(self, *args: Any) -> None:
        """Advance by one iteration."""
        self._bar.update()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the number of epochs done."""
        self._bar.set_description(f"epoch {trainer.current_epoch + 1}/{self._epochs}", refresh=False)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove the bar."""
        self._bar.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Remove the bar."""
        self._bar.close()
