"""The Lightning logger behind which a run's event file is written."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.loggers.logger import _DummyExperiment as DummyExperiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import Logger

from holdfast.record.writer import Writer
from holdfast.store.folders import RunFolder


class EventLogger(Logger):
    """Passes the metrics that the user's code logs through Lightning to the run's writer.

    Args:
        writer: writer of the run.
        folder: folder of the run.

    Attributes:
        experiment: torch's SummaryWriter, for what is not a number, such as images; in a process that writes no files
            it does nothing.
    """

    name = version = ""  # Lightning's names of subfolders

    def __init__(self, writer: Writer, folder: RunFolder) -> None:
        super().__init__()
        self._writer, self._folder = writer, folder
        self.experiment: Any = _DeferredSummaryWriter(folder) if writer.leader else DummyExperiment()

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self._folder.path)

    log_dir = save_dir

    def finalize(self, status: str) -> None:
        """Close the SummaryWriter, if there is one."""
        if "_writer" in vars(self.experiment):
            self.experiment.close()

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write metrics as they come; `epoch`, which Lightning adds, is left out."""
        self._writer.log({tag: value for tag, value in metrics.items() if tag != "epoch"}, step or 0)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the writer has the whole configuration already."""


def users_loggers(trainer: pl.Trainer) -> list[Logger]:
    """The loggers that the user configured, which are given the same metrics as the event file."""
    return [logger for logger in trainer.loggers if not isinstance(logger, EventLogger)]


def close_runs(trainer: pl.Trainer) -> None:
    """End what a logger leaves open: a run of Weights & Biases, into which the next job would write."""
    for logger in users_loggers(trainer):
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()


class _DeferredSummaryWriter:
    """torch's SummaryWriter, imported and created at its first use.

    A cached property of the logger would not do: Lightning reads `logger.experiment` of every logger in every fit.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    @cached_property
    def _writer(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self._folder.experiment), filename_suffix=RunFolder.EVENTS)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)
