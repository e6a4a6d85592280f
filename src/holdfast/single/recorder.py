"""The callback that records what happens in a fit and ends it early where the rules say so."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers.logger import Logger
from torch import Tensor

from holdfast.config.check import did_you_mean
from holdfast.config.schema import Config
from holdfast.data.seeding import derive, reseed
from holdfast.errors import HoldfastError
from holdfast.record.checkpoint import CheckpointIO
from holdfast.record.history import Epoch, History, Snapshot
from holdfast.record.parameter_path import flat, stride
from holdfast.record.stopping import CHECK_EVERY, StoppingRules, judge, largest_loss
from holdfast.single.event_logger import EventLogger
from holdfast.single.train_metrics import measure_train


class Recorder(Checkpoint):
    """Records losses, metrics and the best and the last epoch of a fit; ends it when a loss diverges.

    It is a Checkpoint callback, so that Lightning calls it after every other callback has logged its metrics.

    Args:
        config: configuration of the run: its seed, and the rules for the best epoch and for an early end.
        history: the history that is filled in.
        update: called with the history after every epoch, and every `CHECK_EVERY` iterations.

    Attributes:
        checkpoint_io: a plugin that the Trainer has to be given; it takes the snapshots.
        test_opened: how often the Trainer has opened the test rows.
    """

    def __init__(
        self, config: Config, history: History, update: Callable[[History], None] = lambda history: None
    ) -> None:
        self.history, self.checkpoint_io, self.test_opened = history, CheckpointIO(), 0
        self._config, self._rules, self._update = config, StoppingRules.from_config(config), update
        self._path_parameters: Sequence[Tensor] = ()  # those whose path is recorded
        self._path_stride = 1  # in iterations
        self._seeded_epoch = -1
        self._pending: list[Tensor] = []  # losses that were not read from the accelerator yet
        self._epoch_start = 0  # in iterations
        self._loss_factor = 1
        self._learning_rate = float("nan")

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Seed what the module draws while it is set up; its data module was set up right before, by another seed."""
        if stage == "fit":
            reseed(derive(self._config.seed, "setup"))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed the first epoch of a resumed run: Lightning fetches its first batch before the epoch starts."""
        if (epochs := self.history.reached.epochs) > 0:
            self._reseed(epochs)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock and the parameter path."""
        self.history.clock.append((len(self.history.losses), time.time()))
        self._start_path(trainer, pl_module)
        # Lightning divides the losses of accumulated batches by their number
        self._loss_factor = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count an opening of the test rows."""
        self.test_opened += 1

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make everything random in this epoch a function of seed and epoch alone."""
        if trainer.current_epoch != self._seeded_epoch:
            self._reseed(trainer.current_epoch)
        self._epoch_start = len(self.history.losses)
        if trainer.optimizers:
            self._learning_rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss, without waiting until an accelerator has computed it."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if loss is not None:
            loss = loss.mean() if loss.ndim else loss  # Lightning also trains on a loss of shape (1,)
            self._pending.append(loss * self._loss_factor if self._loss_factor > 1 else loss)
        if self._path_parameters and (len(self.history.losses) + len(self._pending)) % self._path_stride == 0:
            self.history.parameter_path.append(flat(self._path_parameters))
        if trainer.global_step == trainer.max_steps:
            trainer.should_stop = True  # Lightning validates before it stops, as in every last epoch
        if len(self._pending) >= CHECK_EVERY:
            self._read_losses(_users_loggers(trainer))
            if not self._rules.within(_reduced(trainer, largest_loss(self.history.losses[-CHECK_EVERY:]), "max")):
                trainer.should_stop = True  # ends the epoch here; it is judged as any other
            self._update(self.history)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Judge the epoch, and take a snapshot of it."""
        loggers = _users_loggers(trainer)
        self._read_losses(loggers)
        epoch, losses = trainer.current_epoch, self.history.losses[self._epoch_start :]
        metrics = self._metrics(trainer, pl_module, losses)
        largest = _reduced(trainer, largest_loss(losses), "max")
        if self._rules.metric not in metrics and self._rules.within(largest):
            raise _missing_metric(self._rules.metric, metrics, pl_module)
        standing = judge(self.history.reached.standing, epoch, metrics, largest, self._rules)
        # what a user's module logs may differ between processes, but all have to end in the same epoch
        standing = trainer.strategy.broadcast(standing)
        for logger in loggers:
            logger.log_metrics({"epoch": epoch, **metrics}, step=trainer.global_step)
            logger.save()  # a run that is resumed from this epoch needs it on disk
        snapshot = Snapshot(epoch, self.checkpoint_io.snapshot(trainer))
        self.history.end_epoch(Epoch(metrics, trainer.global_step, time.time()), standing, snapshot)
        if standing.end:
            trainer.should_stop = True
        self._update(self.history)

    def _metrics(self, trainer: pl.Trainer, module: pl.LightningModule, losses: list[float]) -> dict[str, float]:
        """The metrics of the epoch that ends, by name."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if losses:
            metrics["train/loss_epoch"] = _reduced(trainer, sum(losses) / len(losses), "mean")
        if self._config.trainer.full_train_loss:
            metrics.update(measure_train(trainer, module))
        metrics["train/lr"] = self._learning_rate
        return metrics

    def _reseed(self, epoch: int) -> None:
        reseed(derive(self._config.seed, "epoch", epoch))
        self._seeded_epoch = epoch

    def _start_path(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start to record the parameter path, if the model has two parameters and the report will show it."""
        parameters = [value for value in module.parameters() if value.requires_grad]
        batches = trainer.num_training_batches
        drawn = self._config.report is not False and math.isfinite(batches)
        if drawn and sum(value.numel() for value in parameters) == 2:
            self._path_parameters = parameters
            self._path_stride = stride(int(batches) * (trainer.max_epochs or 1))
            if not self.history.parameter_path:  # a resumed run has points already
                self.history.parameter_path.append(flat(parameters))

    def _read_losses(self, loggers: list[Logger]) -> None:
        """Read the losses of many iterations at once: each read waits for the accelerator."""
        if self._pending:
            losses = torch.stack(self._pending).tolist()
            for logger in loggers:
                for step, loss in enumerate(losses, start=len(self.history.losses)):
                    logger.log_metrics({"train/loss_step": loss}, step=step)
            self.history.losses += losses
            self.history.clock.append((len(self.history.losses), time.time()))
            self._pending.clear()


def _reduced(trainer: pl.Trainer, value: float, operation: str) -> float:
    """The maximum or the mean of a number over all processes of the run."""
    if trainer.world_size == 1:
        return value
    # a reduction to the maximum may drop a NaN, but not an infinity
    number = torch.tensor(value if math.isfinite(value) else math.inf, device=trainer.strategy.root_device)
    return float(trainer.strategy.reduce(number, reduce_op=operation))


def _users_loggers(trainer: pl.Trainer) -> list[Logger]:
    """The loggers that the user configured, which are given the same losses and metrics as the event file."""
    return [logger for logger in trainer.loggers if not isinstance(logger, EventLogger)]


def _missing_metric(metric: str, metrics: Mapping[str, float], module: pl.LightningModule) -> HoldfastError:
    logged = [name for name in metrics if name != "train/lr"]
    return HoldfastError(f"metric={metric} is not logged by {type(module).__name__}: {did_you_mean(metric, logged)}")
