"""Writes the folder of one run from its history: checkpoints, event file, `result.json`."""

from __future__ import annotations

import dataclasses
import math
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from holdfast.config.job import CONTROLS, JobSpec
from holdfast.config.keys import key_of
from holdfast.errors import CheckpointError
from holdfast.record import events
from holdfast.record.checkpoint import save
from holdfast.record.history import History, Snapshot
from holdfast.record.parameter_path import to_npy
from holdfast.record.resume_point import RESUME_KEY, EventPosition, resume_entry
from holdfast.record.stopping import StoppingRules
from holdfast.store.files import replacing
from holdfast.store.folders import RunFolder
from holdfast.store.result import Result, Status
from holdfast.store.versions import versions

SECONDS_BETWEEN_WRITES = 5.0
"""How much training a crash may lose, and how far TensorBoard may lag behind, in seconds."""


class Writer:
    """Writes a run's folder every few seconds while it trains, and completes it at the end.

    Args:
        folder: the folder of the run.
        rules: the stopping rules; they name the metric of the best epoch.
        config_hash: digest of the run's configuration.
        tensorboard: whether to write an event file.
        hparams: the row of this run in TensorBoard's HParams.

    Attributes:
        leader: whether this process writes; one process of a run does.
        bare: makes the content of `model.pth` from a `state_dict` of the module.
    """

    def __init__(
        self,
        folder: RunFolder,
        rules: StoppingRules,
        config_hash: str,
        *,
        tensorboard: bool,
        hparams: Mapping[str, Any],
        leader: bool = True,
    ) -> None:
        self._folder, self._rules, self._hparams = folder, rules, hparams
        self._config_hash, self._tensorboard, self.leader = config_hash, tensorboard, leader
        self.bare: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
        self._events: events.EventFile | None = None
        self._steps = self._epochs = 0  # numbers of iterations and epochs in the event file
        self._position = EventPosition()
        self._saved: dict[str, tuple[Snapshot, bool]] = {}
        self._began = self._written = time.monotonic()
        self._logged: set[str] = set()

    def resume(self, checkpoint: Mapping[str, Any], history: History) -> None:
        """Continue the files of an interrupted run; what was written after its last complete epoch is removed.

        Args:
            checkpoint: the content of `last.ckpt`.
            history: the history restored from it.
        """
        entry = checkpoint[RESUME_KEY]
        self._position = EventPosition(**entry["place"])
        self.count_from(entry["seconds"])
        self._steps, self._epochs = self._position.steps, self._position.epochs
        self._logged = set(self._position.logged)
        best, last = history.reached.best, history.reached.last
        if last is not None:
            self._saved[self._folder.last.name] = (last, False)
        if best is not None and best.checkpoint:
            self._saved[self._folder.best.name] = (best, True)
        if not self.leader:
            return
        for file in self._folder.event_files():
            if file.name == self._position.name:
                self._events = events.EventFile(file)
                self._events.truncate(self._position.size)
            elif file.suffix == RunFolder.EVENTS:  # other files may belong to the user's own logger
                file.unlink()

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Write metrics that the user's code logs through Lightning, at once."""
        self._logged |= metrics.keys()
        now = [time.time()]
        self._append(*(events.scalars(tag, [step], [value], now) for tag, value in metrics.items()))

    def update(self, history: History) -> None:
        """Bring the folder up to date, if the last write was more than `SECONDS_BETWEEN_WRITES` ago."""
        if history.reached.losses == len(history.losses) and self._events:  # an epoch has ended
            name = self._events.path.name
            self._position = EventPosition(name, self._events.size, self._steps, self._epochs, sorted(self._logged))
        if time.monotonic() - self._written > SECONDS_BETWEEN_WRITES:
            self.flush(history)

    def flush(self, history: History, *, final: bool = False) -> None:
        """Bring the folder up to date: the best and the last checkpoint, and the curves.

        Args:
            history: the run so far.
            final: whether the run is over; until then `last.ckpt` also holds what is needed to resume.

        Raises:
            CheckpointError: a run resumed before its best epoch never reached that epoch again.
        """
        if not self.leader:
            return
        self._append(*self._new_curves(history))
        # best before last: the best.ckpt that a resumed run reads is that of its last.ckpt or a later one
        reached = history.reached
        for path, snapshot in ((self._folder.best, reached.best), (self._folder.last, reached.last)):
            complete = final or path == self._folder.best
            if snapshot is not None and self._saved.get(path.name) != (snapshot, complete):
                if not snapshot.checkpoint:
                    raise CheckpointError(
                        f"{path} is of a later epoch than {self._folder.last}, and that epoch was not reached again."
                    )
                extra = {}
                if not complete:
                    extra[RESUME_KEY] = resume_entry(history, self._config_hash, self.seconds, self._position)
                save({**snapshot.checkpoint, **extra}, path)
                self._saved[path.name] = (snapshot, complete)
        self._written = time.monotonic()

    @property
    def seconds(self) -> float:
        """Duration of the run, the time before it was resumed included."""
        return time.monotonic() - self._began

    def count_from(self, seconds: float) -> None:
        """Count the duration of the run from what it was when it was interrupted."""
        self._began = time.monotonic() - seconds

    def finish(
        self,
        history: History,
        status: Status,
        *,
        overrides: list[str],
        error: str | None = None,
        test: dict[str, float] | None = None,
        test_opened: int = 0,
    ) -> Result:
        """Complete the folder; `result.json` is written last.

        Args:
            history: the whole run.
            status: how it ended.
            overrides: the command-line overrides of the run.
            error: why it diverged or failed.
            test: metrics on the test rows.
            test_opened: how often the test rows were opened.
        """
        seconds = self.seconds
        self.flush(history, final=True)
        best, epochs = history.reached.best, history.epochs
        if best is not None and self.leader:
            save(self.bare(best.checkpoint["state_dict"]), self._folder.weights)
        if history.parameter_path and self.leader:
            with replacing(self._folder.parameter_path) as stream:
                stream.write(to_npy(torch.stack(history.parameter_path).to("cpu", torch.float32).numpy()))
        entries = [epoch_entry(number, epoch.metrics, self._rules.metric) for number, epoch in enumerate(epochs)]
        best_entry = epoch_entry(best.epoch, epochs[best.epoch].best, self._rules.metric) if best else None
        self._append(*self._final_records(best_entry or {}, test or {}, len(epochs), status))
        result = Result(
            status=status,
            overrides=overrides,
            config_hash=self._config_hash,
            metric=self._rules.metric,
            best=best_entry,
            last=entries[-1] if entries else None,
            epochs=len(entries),
            iterations=epochs[-1].iterations if epochs else 0,
            seconds=seconds,
            error=error,
            test=dict(test) if test else None,
            test_opened=test_opened,
            versions=versions(),
            by_epoch=self._rules.by_epoch(epoch.metrics.get(self._rules.metric, math.nan) for epoch in epochs),
        )
        return self._folder.commit(result) if self.leader else result

    def _final_records(
        self, best: Mapping[str, Any], test: Mapping[str, float], epochs: int, status: Status
    ) -> list[bytes]:
        """The records that end an event file."""
        now = time.time()
        curves = [events.scalars(tag, [0], [value], [now]) for tag, value in best_scalars(best, self._rules.metric)]
        tested = [events.scalars(tag, [epochs], [value], [now]) for tag, value in test.items()]
        return [*curves, *tested, events.session_end(status == "completed", now) if self._tensorboard else b""]

    def _new_curves(self, history: History) -> list[bytes]:
        """The records of everything since the last call."""
        steps = np.arange(self._steps, len(history.losses))
        clock = np.array(history.clock or [(0, 0.0)])
        times = np.interp(steps + 1, clock[:, 0], clock[:, 1])
        records = [events.scalars("train/loss_step", steps, history.losses[self._steps :], times)]
        points: dict[str, list[tuple[int, float, float]]] = {}
        epochs = history.reached.epochs
        for number, epoch in enumerate(history.recorded[self._epochs : epochs], start=self._epochs):
            for tag in epoch.metrics.keys() - self._logged:
                points.setdefault(tag, []).append((number, epoch.metrics[tag], epoch.ended))
        records += [events.scalars(tag, *zip(*points[tag], strict=True)) for tag in sorted(points)]
        self._steps, self._epochs = len(history.losses), epochs
        return records

    def _append(self, *records: bytes) -> None:
        """Append records to the event file, and create it first if needed."""
        if not (self._tensorboard and self.leader):
            return
        if self._events is None:
            now = time.time()
            self._events = events.EventFile(self._folder.events(now, socket.gethostname()))
            self._events.append(events.version(now), events.session_start(self._hparams, now))
        self._events.append(*records)


def write_tested(folder: RunFolder, metrics: Mapping[str, float]) -> None:
    """Write an event file with the test metrics of a run that was tested after it had finished."""
    now = time.time()
    curves = [events.scalars(tag, [0], [value], [now]) for tag, value in metrics.items()]
    with replacing(folder.test_events) as stream:
        stream.write(b"".join([events.version(now), *curves]))


def epoch_entry(epoch: int, metrics: Mapping[str, float], metric: str) -> dict[str, Any]:
    """An epoch in `result.json`; the chosen metric and both losses have a key even if they were not logged.

    >>> epoch_entry(3, {"val/loss": 0.5}, metric="val/loss")
    {'epoch': 3, 'val/loss': 0.5, 'train/loss': None}
    """
    return {"epoch": epoch, metric: None, "val/loss": None, "train/loss": None, **metrics}


def best_scalars(best: Mapping[str, Any], metric: str) -> list[tuple[str, float]]:
    """The scalars of the best epoch, by which jobs are ranked; HParams shows the last point of a curve.

    >>> best_scalars({"epoch": 3, "val/loss": 0.5, "train/loss": None}, metric="val/loss")
    [('best/val/loss', 0.5)]
    """
    values = {name: best.get(name) for name in sorted({metric, "val/loss", "train/loss"})}
    return [(f"best/{name}", value) for name, value in values.items() if value is not None and np.isfinite(value)]


def hparams(job: JobSpec) -> dict[str, Any]:
    """The row of a job in TensorBoard's HParams: the swept keys; of a single run the rate, batch size and overrides.

    Groups and mappings are shown as they were typed.
    """
    given = {key_of(item): item.partition("=")[2] for item in job.overrides if not item.startswith("~")}
    keys = ["lr", "batch_size", *given] if job.swept is None else job.swept
    row = {}
    for key in keys:
        if key in CONTROLS:
            continue
        node: Any = job.config
        for part in key.split("."):
            # a key that the schema does not have, such as a group of the user's own, is shown as the text given
            node = node.get(part, given.get(key)) if isinstance(node, Mapping) else getattr(node, part, given.get(key))
        row[key] = given.get(key) if isinstance(node, Mapping) or dataclasses.is_dataclass(node) else node
    return row
