"""What Lightning's loops have counted so far, and how they are stopped."""

from __future__ import annotations

import math

import lightning.pytorch as pl
import torch


def stop(trainer: pl.Trainer) -> None:
    """Let a Trainer stop after this batch or epoch, whatever its `min_epochs` and `min_steps`."""
    trainer.fit_loop.min_epochs = trainer.fit_loop.epoch_loop.min_steps = None
    trainer.should_stop = True


def batches(trainer: pl.Trainer) -> int:
    """The batches trained on so far; `global_step` counts only what Lightning's own optimizers do."""
    return trainer.fit_loop.epoch_loop.batch_progress.total.ready


def step(trainer: pl.Trainer) -> int:
    """The step at which Lightning logs at this moment: batches that updated the parameters, over all epochs."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def reduced(trainer: pl.Trainer, value: float, operation: str) -> float:
    """The maximum or the mean of a number over all processes of the run."""
    if trainer.world_size == 1:
        return value
    # a reduction to the maximum may drop a NaN, but not an infinity
    number = torch.tensor(value if math.isfinite(value) else math.inf, dtype=torch.float64)
    number = number.to(trainer.strategy.root_device)
    return float(trainer.strategy.reduce(number, reduce_op=operation))
