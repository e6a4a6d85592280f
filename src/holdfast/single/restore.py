"""Resumes a run from its `last.ckpt`, exactly as if it had never been interrupted."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers.csv_logs import CSVLogger, ExperimentWriter

from holdfast.errors import CheckpointError
from holdfast.record.checkpoint import load
from holdfast.record.history import Epoch, History, Reached, Snapshot
from holdfast.record.resume_point import RESUME_KEY
from holdfast.record.stopping import Standing
from holdfast.store.folders import RunFolder


def find(folder: RunFolder, config_hash: str) -> dict[str, Any] | None:
    """The checkpoint that a run can go on from; None if it has to begin anew.

    Raises:
        CheckpointError: there is a last checkpoint, but it cannot be read, or is of another configuration.
    """
    if not folder.last.exists():
        return None
    found = load(folder.last)
    if RESUME_KEY not in found:
        return None  # the run was over, and is to be run again
    if found[RESUME_KEY]["config_hash"] != config_hash:
        raise CheckpointError(f"{folder.last} is of another configuration; remove it to begin this run anew.")
    return found


def restore(checkpoint: dict[str, Any], folder: RunFolder) -> History:
    """The trace as it was at the end of the last epoch."""
    found = checkpoint[RESUME_KEY]
    standing, epochs = Standing(**found["standing"]), [Epoch(**epoch) for epoch in found["epochs"]]
    best = None
    if standing.best_epoch >= 0:
        # if the process was killed between the two files, the best is already that of a later epoch; it comes again
        kept = load(folder.best)
        best = Snapshot(standing.best_epoch, kept if kept.get("epoch") == standing.best_epoch else {})
    last = Snapshot(len(epochs) - 1, {key: value for key, value in checkpoint.items() if key != RESUME_KEY})
    return History(
        losses=found["losses"].tolist(),
        clock=[(int(count), time) for count, time in found["clock"].tolist()],
        parameter_path=list(found["descent"]),
        recorded=epochs,
        reached=Reached(len(epochs), len(found["losses"]), len(found["descent"]), standing, best, last),
    )


def go_on(trainer: pl.Trainer, reached: Reached) -> None:
    """Make a Trainer ready to go on from the end of an epoch."""
    # it takes a run with max_steps for one that was stopped inside an epoch
    trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger):
            _keep_rows(logger, reached)


def _keep_rows(logger: CSVLogger, reached: Reached) -> None:
    """Hand a logger the rows that it wrote before an epoch ended: by itself it would begin its table anew."""
    try:
        text = (Path(logger.log_dir) / ExperimentWriter.NAME_METRICS_FILE).read_text()
    except FileNotFoundError:
        return
    rows = [row for row in csv.DictReader(text.splitlines()) if _is_before(row, reached)]
    logger.experiment.metrics += [{key: value for key, value in row.items() if value} for row in rows]
    logger.save()


def _is_before(row: Mapping[str, str], reached: Reached) -> bool:
    """Whether a row was written before an epoch ended; those of single iterations name no epoch."""
    return int(row["epoch"]) < reached.epochs if row.get("epoch") else int(row["step"]) < reached.losses
