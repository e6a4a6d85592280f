"""The callback that records what happens in a fit and ends it early where the rules say so."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from holdfast.config.keys import did_you_mean
from holdfast.config.schema import Config
from holdfast.data import DataModule
from holdfast.data.seeding import derive, reseed
from holdfast.errors import HoldfastError
from holdfast.record.checkpoint import CheckpointIO
from holdfast.record.history import Epoch, History, Snapshot
from holdfast.record.parameter_path import flat, stride
from holdfast.record.stopping import CHECK_EVERY, StoppingRules, judge, largest_loss
from holdfast.single.event_logger import users_loggers
from holdfast.single.loop_state import batches, reduced, step, stop
from holdfast.single.midway import Midway
from holdfast.single.train_metrics import measure_train


class Recorder(Checkpoint):
    """Records losses, metrics and the best and the last epoch of a fit; ends it when a loss diverges.

    It is a Checkpoint callback, so that Lightning calls it after every other callback has logged its metrics.

    Args:
        config: configuration of the run: its seed, and the rules for the best epoch and for an early end.
        history: the history that is filled in.
        update: called with the history after every epoch, and every `CHECK_EVERY` iterations.
        midway: writes checkpoints inside epochs; None for none.

    Attributes:
        checkpoint_io: a plugin that the Trainer has to be given; it takes the snapshots.
        pending: losses that were not read from the accelerator yet.
        learning_rate: at the beginning of the epoch.
        test_opened: how often the Trainer has opened the test rows.
    """

    def __init__(
        self,
        config: Config,
        history: History,
        update: Callable[[History], None] = lambda history: None,
        midway: Midway | None = None,
    ) -> None:
        self.history, self.checkpoint_io, self.test_opened = history, CheckpointIO(), 0
        self._config, self._rules, self._update = config, StoppingRules.from_config(config), update
        self._midway, self._writes_inside = midway, False
        self._path_parameters: Sequence[Tensor] = ()  # those whose path is recorded
        self._path_stride = 1  # in iterations
        self._seeded_epoch = -1
        self._users_loggers: list[Logger] = []
        self._log_every = 1
        self.pending: list[Tensor] = []
        self._epoch_start = 0  # in iterations
        self._loss_factor = 1
        self._validated = -1  # number of batches before the last validation
        self._validation_metrics: frozenset[str] = frozenset()  # names
        self._inside: _Inside | None = None
        self.learning_rate = float("nan")

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
        self._users_loggers = users_loggers(trainer)
        self._log_every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        self._writes_inside = self._midway is not None and self._midway.begin(self, trainer, pl_module)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count an opening of the test rows."""
        self.test_opened += 1

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make everything random in this epoch a function of seed and epoch alone."""
        if trainer.current_epoch != self._seeded_epoch:
            self._reseed(trainer.current_epoch)
        if trainer.optimizers:
            self.learning_rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.begin_epoch(trainer, pl_module)

    def begin_epoch(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to record an epoch, or go on with one that a resumed run has begun before."""
        self._epoch_start, self._inside = self.history.reached.losses, None
        # Lightning divides the losses of accumulated batches by their number, which a callback may change here
        self._loss_factor = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss, without waiting until an accelerator has computed it."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if loss is not None:
            loss = loss.mean() if loss.ndim else loss  # Lightning also trains on a loss of shape (1,)
            self.pending.append(loss * self._loss_factor if self._loss_factor > 1 else loss)
            if self._users_loggers and (step(trainer) + 1) % self._log_every == 0:
                self._log_loss(trainer)
        if self._path_parameters and (len(self.history.losses) + len(self.pending)) % self._path_stride == 0:
            self.history.parameter_path.append(flat(self._path_parameters))
        if 0 < trainer.max_steps <= trainer.global_step:
            stop(trainer)  # Lightning validates before it stops, as in every last epoch
        if len(self.pending) >= CHECK_EVERY:
            self._read_losses()
            if not self._rules.within(reduced(trainer, largest_loss(self.history.losses[-CHECK_EVERY:]), "max")):
                stop(trainer)  # ends the epoch here; it is judged as any other
            self._update(self.history)
        if self._writes_inside and self._midway is not None:
            self._midway.write_if_due(self, trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note what was measured, and with which weights; inside an epoch, keep the best weights."""
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        assert trainer._results is not None
        self._validated = batches(trainer)
        self._validation_metrics = frozenset(trainer._results.metrics(on_step=False)["callback"])
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return
        metrics = {name: float(trainer.callback_metrics[name]) for name in sorted(self._validation_metrics)}
        standing, snapshot = self.history.reached.standing, None
        best_so_far = self._inside is None or bool(self._rules.better(metrics, *self._inside.rank(self._rules)))
        if not trainer.strategy.broadcast(best_so_far):
            return
        if trainer.strategy.broadcast(bool(self._rules.better(metrics, standing.best, standing.best_loss))):
            # the loader of a user's data module is in use at this moment
            if self._config.trainer.full_train_loss and isinstance(trainer.datamodule, DataModule):  # type: ignore[attr-defined]
                metrics |= measure_train(trainer, pl_module)
            snapshot = Snapshot(trainer.current_epoch, self.checkpoint_io.snapshot(trainer))
        metrics["train/lr"] = self.learning_rate
        self._inside = _Inside(batches(trainer), metrics, snapshot)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Judge the epoch, and take a snapshot of it."""
        self._read_losses()
        epoch, losses = trainer.current_epoch, self.history.losses[self._epoch_start :]
        metrics = self._metrics(trainer, pl_module, losses)
        largest = reduced(trainer, largest_loss(losses), "max")
        inside = self._best_inside(trainer, metrics)
        judged = {**metrics, **inside.metrics} if inside else metrics
        to_come = trainer.enable_validation and self._inside is None and self._validated != batches(trainer)
        if self._rules.metric not in judged and not to_come and self._rules.within(largest):
            raise _missing_metric(self._rules.metric, judged, pl_module)
        may_stop = epoch + 1 >= (trainer.min_epochs or 0) and trainer.global_step >= (trainer.min_steps or 0)
        standing = judge(self.history.reached.standing, epoch, judged, largest, self._rules, may_stop=may_stop)
        # what a user's module logs may differ between processes, but all have to end in the same epoch
        standing = trainer.strategy.broadcast(standing)
        for logger in self._users_loggers:
            logger.log_metrics({"epoch": epoch, **metrics}, step=step(trainer) - 1)
            logger.save()  # a run that is resumed from this epoch needs it on disk
        snapshot = Snapshot(epoch, self.checkpoint_io.snapshot(trainer))
        recorded = Epoch(metrics, trainer.global_step, time.time(), inside.metrics if inside else None)
        candidate = inside.snapshot if inside and inside.snapshot else snapshot
        self.history.end_epoch(recorded, standing, candidate, snapshot)
        if standing.end:
            stop(trainer)
        self._update(self.history)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse a run whose metric was never measured."""
        epochs, metric = self.history.epochs, self._rules.metric
        if epochs and not self.history.reached.standing.end and not any(metric in epoch.best for epoch in epochs):
            raise HoldfastError(
                f"metric={metric} was never measured: no validation took place in {len(epochs)} epochs; see "
                "trainer.check_val_every_n_epoch and trainer.val_check_interval"
            )

    def _best_inside(self, trainer: pl.Trainer, metrics: Mapping[str, float]) -> _Inside | None:
        """The best validation inside the epoch that ends, if it is better than what its end measured."""
        inside = self._inside
        if (
            inside is None
            or inside.batches == batches(trainer)
            or not self._rules.within_metric(metrics.get("val/loss", 0.0))
        ):
            return None
        return None if self._rules.better(metrics, *inside.rank(self._rules)) else inside

    def _metrics(self, trainer: pl.Trainer, module: pl.LightningModule, losses: list[float]) -> dict[str, float]:
        """The metrics of the present weights, by name; those of an earlier validation are left out."""
        stale = self._validation_metrics if self._validated != batches(trainer) else frozenset()
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name not in stale}
        if losses:
            # a module that logs train/loss on_epoch has its own, which Lightning weights by the rows of each batch
            metrics.setdefault("train/loss_epoch", reduced(trainer, sum(losses) / len(losses), "mean"))
        if self._config.trainer.full_train_loss:
            metrics.update(measure_train(trainer, module))
        metrics["train/lr"] = self.learning_rate
        return metrics

    def _log_loss(self, trainer: pl.Trainer) -> None:
        """Give the user's loggers the loss of the last batch, at the steps at which Lightning logs."""
        if not trainer.fit_loop._should_accumulate():
            for logger in self._users_loggers:
                logger.log_metrics({"train/loss_step": float(self.pending[-1])}, step=step(trainer))

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

    def _read_losses(self) -> None:
        """Read the losses of many iterations at once: each read waits for the accelerator."""
        if self.pending:
            self.history.losses += torch.stack(self.pending).tolist()
            self.history.clock.append((len(self.history.losses), time.time()))
            self.pending.clear()


@dataclass(frozen=True)
class _Inside:
    """The best validation inside an epoch so far.

    Attributes:
        batches: number of batches before it.
        metrics: what it measured.
        snapshot: the weights; None where an earlier epoch was better, so that nobody will ask for them.
    """

    batches: int
    metrics: dict[str, float]
    snapshot: Snapshot | None

    def rank(self, rules: StoppingRules) -> tuple[float, float]:
        """What `StoppingRules.better` compares others with."""
        return self.metrics.get(rules.metric, math.nan), self.metrics.get("val/loss", math.nan)


def _missing_metric(metric: str, metrics: Mapping[str, float], module: pl.LightningModule) -> HoldfastError:
    # never a metric of the training or the test rows: a choice by it would not be an honest one
    logged = [name for name in metrics if not name.startswith(("train", "test"))]
    lesson = did_you_mean(metric, logged) if logged else f'log it in validation_step: self.log("{metric}", ...)'
    return HoldfastError(f"metric={metric} is not logged by {type(module).__name__}: {lesson}")
