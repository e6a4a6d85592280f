"""What watches a Lightning Trainer: the recorder of the trace, the logger behind it, and the progress bar."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers.logger import Logger
from torch import Tensor
from tqdm import tqdm

from holdfast.data import DataModule
from holdfast.errors import HoldfastError
from holdfast.model.module import Module, loss_sums, measure
from holdfast.seeding import derive, reseed
from holdfast.train.checkpoint import CheckpointIO
from holdfast.train.trace import CHECK_EVERY, Epoch, Rules, Snapshot, Trace, judge, worst
from holdfast.train.writer import Writer
from holdfast.validation import did_you_mean


class Recorder(Checkpoint):
    """Keeps the trace of a fit: losses, metrics, the best and the last epoch; ends a run that diverged.

    It is a Checkpoint callback, so that Lightning calls it after every other callback has logged its metrics.

    Args:
        trace: what is filled in.
        rules: what the best epoch is chosen by, and when a run ends early.
        checkpoint_io: takes the snapshots.
        seed: of everything random in a step, such as dropout.
        full_train_loss: measure the training metrics over all rows after every epoch.
        update: called with the trace as it grows.
    """

    def __init__(
        self,
        trace: Trace,
        rules: Rules,
        checkpoint_io: CheckpointIO,
        *,
        seed: int,
        full_train_loss: bool,
        update: Callable[[Trace], None],
    ) -> None:
        self.trace = trace
        self._rules, self._update = rules, update
        self.checkpoint_io = checkpoint_io
        self._seed, self._full_train_loss = seed, full_train_loss
        self._pending: list[Tensor] = []
        self._epoch_start = 0
        self._learning_rate = float("nan")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self.trace.clock.append((len(self.trace.losses), time.time()))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make what is random in this epoch a function of seed and epoch alone."""
        reseed(derive(self._seed, "epoch", trainer.current_epoch))
        self._epoch_start = len(self.trace.losses)
        if trainer.optimizers:
            self._learning_rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss, without waiting for an accelerator to have computed it."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if loss is not None:
            self._pending.append(loss)
        if len(self._pending) >= CHECK_EVERY:
            self._collect(_foreign(trainer))
            if not self._rules.within(worst(self.trace.losses[-CHECK_EVERY:])):
                trainer.should_stop = True  # the epoch ends here, and is judged as usual
            self._update(self.trace)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Judge the epoch, and keep a snapshot of it."""
        self._collect(_foreign(trainer))
        number, losses = trainer.current_epoch, self.trace.losses[self._epoch_start :]
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if losses:
            metrics["train/loss_epoch"] = sum(losses) / len(losses)
        if self._full_train_loss:
            metrics.update(_measure_train(trainer, pl_module))
        metrics["lr"] = self._learning_rate
        lost = worst(losses)
        if self._rules.metric not in metrics and self._rules.within(lost):
            logged = [name for name in metrics if name != "lr"]
            raise HoldfastError(
                f"metric={self._rules.metric} is not logged by {type(pl_module).__name__}: "
                f"{did_you_mean(self._rules.metric, logged)}"
            )
        trace = self.trace
        trace.standing = judge(trace.standing, number, metrics, lost, self._rules)
        trace.epochs.append(Epoch(metrics, trainer.global_step, time.time()))
        for logger in _foreign(trainer):
            logger.log_metrics({"epoch": number, **metrics}, step=trainer.global_step)
        trace.last = Snapshot(number, self.checkpoint_io.snapshot(trainer))
        if trace.standing.best_epoch == number:
            trace.best = trace.last
        if trace.standing.end:
            trainer.should_stop = True
        self._update(trace)

    def _collect(self, loggers: list[Logger]) -> None:
        """Read the losses of many iterations at once: each read waits for the accelerator."""
        if self._pending:
            losses = torch.stack(self._pending).tolist()
            for logger in loggers:
                for step, loss in enumerate(losses, start=len(self.trace.losses)):
                    logger.log_metrics({"train/loss_step": loss}, step=step)
            self.trace.losses += losses
            self.trace.clock.append((len(self.trace.losses), time.time()))
            self._pending.clear()


class EventLogger(Logger):
    """Hands what the user's own code logs through Lightning to the run's writer."""

    def __init__(self, writer: Writer) -> None:
        super().__init__()
        self._writer = writer

    @property
    def name(self) -> str:
        """No folder of its own."""
        return ""

    @property
    def version(self) -> str:
        """No folder of its own."""
        return ""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write metrics as they come."""
        self._writer.log({tag: value for tag, value in metrics.items() if tag != "epoch"}, step or 0)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The writer has the whole configuration already."""


class Progress(pl.Callback):
    """A bar over the whole fit, drawn at most ten times a second."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._bar: tqdm[Any] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin with an empty bar."""
        total = self._epochs * int(trainer.num_training_batches)
        self._bar = tqdm(total=total, mininterval=0.1, unit="it", leave=False, dynamic_ncols=True)

    def on_train_batch_end(self, *args: Any) -> None:
        """One iteration further."""
        assert self._bar is not None
        self._bar.update()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Name the epoch."""
        assert self._bar is not None
        self._bar.set_description(f"epoch {trainer.current_epoch + 1}/{self._epochs}", refresh=False)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Clear the line."""
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Clear the line."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _foreign(trainer: pl.Trainer) -> list[Logger]:
    """The loggers of the user's own, which are told what the writer is told."""
    return [logger for logger in trainer.loggers if not isinstance(logger, EventLogger)]


def _measure_train(trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, float]:
    """The metrics of the present weights over all training rows; none for a module that has no `loss(batch)`."""
    if not (isinstance(module, Module) or inspect.ismethod(getattr(module, "loss", None))):
        return {}
    data = trainer.datamodule  # type: ignore[attr-defined]
    batches = data.all_train_dataloader() if isinstance(data, DataModule) else trainer.train_dataloader
    sums, training = [], module.training
    module.eval()
    # a loader of the user's own may shuffle, which must not move the random numbers of the next epoch
    with torch.no_grad(), torch.random.fork_rng(devices=[]), trainer.precision_plugin.forward_context():
        for rows in batches or ():
            batch = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(rows))
            sums.append(module.statistics(batch) if isinstance(module, Module) else loss_sums(module, batch))
    module.train(training)
    return measure(module if isinstance(module, Module) else Module, sums, "train")
