"""The training metrics over all training rows, with the weights of one moment."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.data import sized_len
from torch import Tensor

from holdfast.data import DataModule
from holdfast.model.module import Module, loss_sums, measure
from holdfast.runtime.modes import evaluating


def measure_train(trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, float]:
    """Measure the present weights on all training rows.

    Args:
        trainer: the Trainer at the end of an epoch.
        module: what it trains.

    Returns:
        The metrics by name, as `train/loss`; empty for a module without a method `loss(batch)`, and for a stream.
    """
    if not (isinstance(module, Module) or has_loss(module)):
        return {}
    data = trainer.datamodule  # type: ignore[attr-defined]
    batches = data.all_train_dataloader() if isinstance(data, DataModule) else trainer.train_dataloader
    if sized_len(batches) is None:
        return {}  # a stream may have no end
    sums = []
    # a user's loader may shuffle, which must not change the random numbers of the next epoch
    drawing, precision = torch.random.fork_rng(devices=[]), trainer.precision_plugin.forward_context()
    with torch.no_grad(), evaluating(module), drawing, precision:
        for rows in batches:  # type: ignore[union-attr]
            batch = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(rows))
            sums.append(module.statistics(batch) if isinstance(module, Module) else loss_sums(module, batch))
    is_shared = data.is_shared("train") if isinstance(data, DataModule) else trainer.world_size > 1
    return measure(
        module if isinstance(module, Module) else Module, sums, "train", added(trainer) if is_shared else None
    )


def added(trainer: pl.Trainer) -> Callable[[Tensor], Tensor]:
    """The function that adds up the sums of all processes of a run."""

    def add(total: Tensor) -> Tensor:
        reduced: Tensor = trainer.strategy.reduce(total.to(trainer.strategy.root_device), reduce_op="sum")
        return reduced

    return add


def has_loss(module: pl.LightningModule) -> bool:
    """Whether a user's module has a method `loss(batch)`."""
    method = getattr(module, "loss", None)
    if not inspect.ismethod(method):
        return False
    return len(inspect.signature(method).parameters) == 1  # `loss(predictions, targets)` is another function
