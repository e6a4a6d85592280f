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


def find_checkpoint(folder: RunFolder, config_hash: str) -> dict[str, Any] | None:
    """The checkpoint that a run resumes from; None if the run starts from its first epoch.

    Args:
        folder: folder of the run.
        config_hash: digest of the run's configuration.

    Raises:
        CheckpointError: `last.ckpt` cannot be read, or is of another configuration.
    """
    if not folder.last.exists():
        return None
    checkpoint = load(folder.last)
    if RESUME_KEY not in checkpoint:
        return None  # the run had ended, and is to be run again
    if checkpoint[RESUME_KEY]["config_hash"] != config_hash:
        raise CheckpointError(f"{folder.last} is of another configuration; remove it to begin this run anew.")
    return checkpoint


def check_table(checkpoint: Mapping[str, Any], module: pl.LightningModule) -> None:
    """Refuse to go on with a table whose files have changed since the checkpoint was written.

    Raises:
        CheckpointError: they have.
    """
    before, now = checkpoint.get("hyper_parameters", {}).get("table"), module.hparams.get("table")
    if before is not None and now is not None and before["files"] != list(now["files"]):
        raise CheckpointError("the files of the table have changed since this run was begun: begin a new run.")


def restored(checkpoint: dict[str, Any], folder: RunFolder) -> History:
    """The history of a run as it was at the end of its last epoch.

    Args:
        checkpoint: what `find_checkpoint` returned.
        folder: folder of the run.
    """
    saved = checkpoint[RESUME_KEY]
    standing, epochs = Standing(**saved["standing"]), [Epoch(**epoch) for epoch in saved["epochs"]]
    best = None
    if standing.best_epoch >= 0:
        # `best.ckpt` is written first: after a crash between the two it is of a later epoch, which is trained again
        content = load(folder.best)
        best = Snapshot(standing.best_epoch, content if content.get("epoch") == standing.best_epoch else {})
    last = Snapshot(len(epochs) - 1, {key: value for key, value in checkpoint.items() if key != RESUME_KEY})
    return History(
        losses=saved["losses"].tolist(),
        clock=[(int(count), time) for count, time in saved["clock"].tolist()],
        parameter_path=list(saved["descent"]),
        recorded=epochs,
        reached=Reached(len(epochs), len(saved["losses"]), len(saved["descent"]), standing, best, last),
    )


def prepare_to_resume(trainer: pl.Trainer, reached: Reached) -> None:
    """Prepare a Trainer to resume from the end of the epoch that was reached."""
    # Lightning would take a run with max_steps for one that was interrupted inside an epoch
    trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger):
            _restore_rows(logger, reached)


def _restore_rows(logger: CSVLogger, reached: Reached) -> None:
    """Give a logger the rows that it wrote before the end of an epoch; it would start an empty table."""
    try:
        text = (Path(logger.log_dir) / ExperimentWriter.NAME_METRICS_FILE).read_text()
    except FileNotFoundError:
        return
    rows = [row for row in csv.DictReader(text.splitlines()) if _is_before(row, reached)]
    logger.experiment.metrics += [{key: value for key, value in row.items() if value} for row in rows]
    logger.save()


def _is_before(row: Mapping[str, str], reached: Reached) -> bool:
    """Whether a row was written before the end of an epoch; rows of single iterations have no epoch."""
    return int(row["epoch"]) < reached.epochs if row.get("epoch") else int(row["step"]) < reached.losses
