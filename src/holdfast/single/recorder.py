"""What watches a Lightning Trainer: the recorder of the trace, and the logger behind it."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.data import sized_len
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers.logger import Logger
from torch import Tensor

from holdfast.config.check import did_you_mean
from holdfast.data import DataModule
from holdfast.data.seeding import derive, reseed
from holdfast.errors import HoldfastError
from holdfast.model.module import Module, loss_sums, measure
from holdfast.record.checkpoint import CheckpointIO
from holdfast.record.history import Epoch, History, Snapshot
from holdfast.record.parameter_path import flat, stride
from holdfast.record.stopping import CHECK_EVERY, StoppingRules, judge, largest_loss
from holdfast.record.writer import Writer
from holdfast.store.folders import RunFolder


class Recorder(Checkpoint):
    """Keeps the trace of a fit: losses, metrics, the best and the last epoch; ends a run that diverged.

    It is a Checkpoint callback, so that Lightning calls it after every other callback has logged its metrics.

    Args:
        trace: what is filled in.
        rules: what the best epoch is chosen by, and when a run ends early.
        checkpoint_io: takes the snapshots.
        seed: of everything random in a step, such as dropout.
        full_train_loss: measure the training metrics over all rows after every epoch.
        descent: keep the way of two parameters.
        update: called with the trace as it grows.
    """

    def __init__(
        self,
        trace: History,
        rules: StoppingRules,
        checkpoint_io: CheckpointIO,
        *,
        seed: int,
        full_train_loss: bool,
        descent: bool,
        update: Callable[[History], None],
    ) -> None:
        self.trace = trace
        self._rules, self._update = rules, update
        self.checkpoint_io = checkpoint_io
        self._seed, self._full_train_loss, self._descent = seed, full_train_loss, descent
        self._followed: Sequence[Tensor] = ()
        self._stride, self._seeded = 1, -1
        self._pending: list[Tensor] = []
        self._epoch_start = 0
        self._share = 1
        self.test_opened = 0
        self._learning_rate = float("nan")

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Seed what the module draws while it is set up; its data module was set up right before, by another seed."""
        if stage == "fit":
            reseed(derive(self._seed, "setup"))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Where a run goes on, Lightning asks for the first batch before the epoch begins, and else after that."""
        if (epochs := self.trace.reached.epochs) > 0:
            reseed(derive(self._seed, "epoch", epochs))
            self._seeded = epochs

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self.trace.clock.append((len(self.trace.losses), time.time()))
        self._follow(trainer, pl_module)
        self._share = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count an opening of the test rows."""
        self.test_opened += 1

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make what is random in this epoch a function of seed and epoch alone."""
        if trainer.current_epoch != self._seeded:
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
            # Lightning hands over what it has divided for accumulation; it also trains on a loss of shape (1,)
            loss = loss.mean() if loss.ndim else loss
            self._pending.append(loss * self._share if self._share > 1 else loss)
        if self._followed and (len(self.trace.losses) + len(self._pending)) % self._stride == 0:
            self.trace.parameter_path.append(flat(self._followed))
        if trainer.global_step == trainer.max_steps:
            trainer.should_stop = True  # as for every last epoch, Lightning validates before it ends
        if len(self._pending) >= CHECK_EVERY:
            self._collect(_foreign(trainer))
            if not self._rules.within(_over_all(trainer, largest_loss(self.trace.losses[-CHECK_EVERY:]), "max")):
                trainer.should_stop = True  # the epoch ends here, and is judged as usual
            self._update(self.trace)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Judge the epoch, and keep a snapshot of it."""
        self._collect(_foreign(trainer))
        number, losses = trainer.current_epoch, self.trace.losses[self._epoch_start :]
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if losses:
            metrics["train/loss_epoch"] = _over_all(trainer, sum(losses) / len(losses), "mean")
        if self._full_train_loss:
            metrics.update(_measure_train(trainer, pl_module))
        metrics["train/lr"] = self._learning_rate
        lost = _over_all(trainer, largest_loss(losses), "max")
        if self._rules.metric not in metrics and self._rules.within(lost):
            logged = [name for name in metrics if name != "train/lr"]
            raise HoldfastError(
                f"metric={self._rules.metric} is not logged by {type(pl_module).__name__}: "
                f"{did_you_mean(self._rules.metric, logged)}"
            )
        # what a user's own module logs may differ between processes, but they have to end together
        standing = trainer.strategy.broadcast(judge(self.trace.reached.standing, number, metrics, lost, self._rules))
        for logger in _foreign(trainer):
            logger.log_metrics({"epoch": number, **metrics}, step=trainer.global_step)
            logger.save()  # what was logged may not be missing where the run goes on from this epoch
        snapshot = Snapshot(number, self.checkpoint_io.snapshot(trainer))
        self.trace.end_epoch(Epoch(metrics, trainer.global_step, time.time()), standing, snapshot)
        if standing.end:
            trainer.should_stop = True
        self._update(self.trace)

    def _follow(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Begin to keep the parameters, if that was asked for and they are two."""
        parameters = [value for value in module.parameters() if value.requires_grad]
        batches = trainer.num_training_batches
        if self._descent and sum(value.numel() for value in parameters) == 2 and math.isfinite(batches):
            self._followed = parameters
            self._stride = stride(int(batches) * (trainer.max_epochs or 1))
            if not self.trace.parameter_path:  # there are points where a run is gone on with
                self.trace.parameter_path.append(flat(parameters))

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


class _LazySummaryWriter:
    """torch's SummaryWriter, for what is no number, such as images; made at its first use, since it imports slowly."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._writer: Any = None

    def __getattr__(self, name: str) -> Any:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder.experiment), filename_suffix=RunFolder.EVENTS)
        return getattr(self._writer, name)

    def close(self) -> None:
        """Write what is still held."""
        if self._writer is not None:
            self._writer.close()


class EventLogger(Logger):
    """Hands what the user's own code logs through Lightning to the run's writer."""

    def __init__(self, writer: Writer, folder: RunFolder) -> None:
        super().__init__()
        self._writer, self._folder = writer, folder
        self.experiment = _LazySummaryWriter(folder)

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self._folder.path)

    @property
    def log_dir(self) -> str:
        """The run's folder."""
        return str(self._folder.path)

    def finalize(self, status: str) -> None:
        """Write what the SummaryWriter still holds."""
        self.experiment.close()

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


def _over_all(trainer: pl.Trainer, value: float, how: str) -> float:
    """A number of this process, as the largest or the mean over all processes of the run."""
    if trainer.world_size == 1:
        return value
    # a maximum may lose a NaN on its way, not an infinity
    number = torch.tensor(value if math.isfinite(value) else math.inf, device=trainer.strategy.root_device)
    return float(trainer.strategy.reduce(number, reduce_op=how))


def _foreign(trainer: pl.Trainer) -> list[Logger]:
    """The loggers of the user's own, which are told what the writer is told."""
    return [logger for logger in trainer.loggers if not isinstance(logger, EventLogger)]


def _has_loss(module: pl.LightningModule) -> bool:
    """Whether a module of the user's own has a method `loss(batch)`."""
    method = getattr(module, "loss", None)
    if not inspect.ismethod(method):
        return False
    try:
        inspect.signature(method).bind(None)
    except TypeError:
        return False
    return True


def _measure_train(trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, float]:
    """The metrics of the present weights over all training rows; none for a module that has no `loss(batch)`."""
    if not (isinstance(module, Module) or _has_loss(module)):
        return {}
    data = trainer.datamodule  # type: ignore[attr-defined]
    batches = data.all_train_dataloader() if isinstance(data, DataModule) else trainer.train_dataloader
    if sized_len(batches) is None:
        return {}  # a stream may have no end
    sums, training = [], module.training
    module.eval()
    # a loader of the user's own may shuffle, which must not move the random numbers of the next epoch
    with torch.no_grad(), torch.random.fork_rng(devices=[]), trainer.precision_plugin.forward_context():
        for rows in batches:  # type: ignore[union-attr]
            batch = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(rows))
            sums.append(module.statistics(batch) if isinstance(module, Module) else loss_sums(module, batch))
    module.train(training)
    if trainer.world_size > 1 and not isinstance(data, DataModule):
        sums = [trainer.strategy.reduce(torch.stack(sums).sum(0), reduce_op="sum")]  # each process has read its share
    return measure(module if isinstance(module, Module) else Module, sums, "train")
