"""The one writer: from a trace to a run's folder."""

from __future__ import annotations

import dataclasses
import socket
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from holdfast.config.check import key_of
from holdfast.config.schema import Config
from holdfast.errors import CheckpointError
from holdfast.record import events
from holdfast.record.checkpoint import save
from holdfast.record.history import Rules, Snapshot, Trace
from holdfast.record.parameter_path import as_file
from holdfast.single.restore import KEY, Place, state
from holdfast.store.files import replacing
from holdfast.store.folders import RunFolder
from holdfast.store.result import Result, Status
from holdfast.store.versions import versions

SECONDS_BETWEEN_WRITES = 5.0
"""How much of a run may have to be trained again after a crash; also how old TensorBoard's view may be."""


class Writer:
    """Writes a run's folder while it is trained, a few seconds apart, and completes it at the end.

    Args:
        folder: the run's.
        rules: what its best epoch is chosen by.
        config_hash: digest of its configuration.
        tensorboard: whether to write an event file.
        hparams: the row of this run in TensorBoard's HParams.

    Attributes:
        leader: whether this process is the one of its run that writes.
    """

    def __init__(
        self,
        folder: RunFolder,
        rules: Rules,
        config_hash: str,
        *,
        tensorboard: bool,
        hparams: Mapping[str, Any],
        leader: bool = True,
    ) -> None:
        self._folder, self._rules, self._hparams = folder, rules, hparams
        self._config_hash, self._tensorboard, self.leader = config_hash, tensorboard, leader
        self._events: events.EventFile | None = None
        self._steps = self._epochs = 0
        self._place = Place()
        self._saved: dict[str, tuple[Snapshot, bool]] = {}
        self._began = self._written = time.monotonic()
        self._logged: set[str] = set()

    def go_on(self, checkpoint: Mapping[str, Any], trace: Trace) -> None:
        """Take up what was written of a run that was stopped; what came after its last epoch is written again."""
        found = checkpoint[KEY]
        self._place = Place(**found["place"])
        self._began -= found["seconds"]
        self._steps, self._epochs = self._place.steps, self._place.epochs
        self._logged = set(self._place.logged)
        best, last = trace.reached.best, trace.reached.last
        if last is not None:
            self._saved[self._folder.last.name] = (last, False)
        if best is not None and best.checkpoint:
            self._saved[self._folder.best.name] = (best, True)
        if not self.leader:
            return
        for file in self._folder.event_files():
            if file.name == self._place.name:
                self._events = events.EventFile(file)
                self._events.cut(self._place.size)
            elif file.suffix == RunFolder.EVENTS:  # another may be that of the user's own logger
                file.unlink()

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Write what the user's own code logs through Lightning, as it comes."""
        self._logged |= metrics.keys()
        now = [time.time()]
        self._append(*(events.scalars(tag, [step], [value], now) for tag, value in metrics.items()))

    def update(self, trace: Trace) -> None:
        """Bring the folder up to date, if that was not done just now."""
        if trace.reached.losses == len(trace.losses) and self._events:  # an epoch has ended
            name = self._events.path.name
            self._place = Place(name, self._events.size, self._steps, self._epochs, sorted(self._logged))
        if time.monotonic() - self._written > SECONDS_BETWEEN_WRITES:
            self.flush(trace)

    def flush(self, trace: Trace, *, final: bool = False) -> None:
        """Bring the folder up to date: the best and the last checkpoint, and the curves.

        Args:
            trace: the run so far.
            final: whether it is over; until then the last checkpoint holds what is needed to go on.
        """
        if not self.leader:
            return
        self._append(*self._curves(trace))
        # best before last: whoever resumes from the last checkpoint finds the best one that belongs to it, or a later
        reached = trace.reached
        for path, snapshot in ((self._folder.best, reached.best), (self._folder.last, reached.last)):
            whole = final or path == self._folder.best
            if snapshot is not None and self._saved.get(path.name) != (snapshot, whole):
                if not snapshot.checkpoint:
                    raise CheckpointError(
                        f"{path} is of a later epoch than {self._folder.last}, and that did not come."
                    )
                ours = {} if whole else {KEY: state(trace, self._config_hash, self.seconds, self._place)}
                save({**snapshot.checkpoint, **ours}, path)
                self._saved[path.name] = (snapshot, whole)
        self._written = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long the run has taken, with the time before it was stopped."""
        return time.monotonic() - self._began

    def finish(
        self,
        trace: Trace,
        status: Status,
        *,
        overrides: list[str],
        error: str | None = None,
        test: dict[str, float] | None = None,
        test_opened: int = 0,
    ) -> Result:
        """Complete the folder; `result.json` is written last."""
        seconds = self.seconds
        self.flush(trace, final=True)
        best = trace.reached.best
        if best is not None and self.leader:
            save(best.checkpoint["state_dict"], self._folder.weights)
        if trace.descent and self.leader:
            with replacing(self._folder.parameter_path) as stream:
                stream.write(as_file(torch.stack([point.cpu() for point in trace.descent])))
        now = time.time()
        tested = [events.scalars(tag, [trace.reached.epochs], [value], [now]) for tag, value in (test or {}).items()]
        epochs = [entry(number, epoch.metrics, self._rules.metric) for number, epoch in enumerate(trace.epochs)]
        found = bests(epochs[best.epoch] if best else {}, self._rules.metric)
        curves = [events.scalars(tag, [0], [value], [now]) for tag, value in found.items()]
        self._append(*curves, *tested, events.session_end(status == "completed", now) if self._tensorboard else b"")
        result = Result(
            status=status,
            overrides=overrides,
            config_hash=self._config_hash,
            metric=self._rules.metric,
            best=epochs[best.epoch] if best else None,
            last=epochs[-1] if epochs else None,
            epochs=len(epochs),
            iterations=trace.epochs[-1].iterations if epochs else 0,
            seconds=seconds,
            error=error,
            test=dict(test) if test else None,
            test_opened=test_opened,
            versions=versions(),
        )
        return self._folder.commit(result) if self.leader else result

    def _curves(self, trace: Trace) -> list[bytes]:
        """The records of all that is new since the last time."""
        steps = np.arange(self._steps, len(trace.losses))
        clock = np.array(trace.clock or [(0, 0.0)])
        times = np.interp(steps + 1, clock[:, 0], clock[:, 1])
        records = [events.scalars("train/loss_step", steps, trace.losses[self._steps :], times)]
        points: dict[str, list[tuple[int, float, float]]] = {}
        epochs = trace.reached.epochs
        for number, epoch in enumerate(trace.begun[self._epochs : epochs], start=self._epochs):
            for tag in epoch.metrics.keys() - self._logged:
                points.setdefault(tag, []).append((number, epoch.metrics[tag], epoch.ended))
        records += [events.scalars(tag, *zip(*points[tag], strict=True)) for tag in sorted(points)]
        self._steps, self._epochs = len(trace.losses), epochs
        return records

    def _append(self, *records: bytes) -> None:
        if not (self._tensorboard and self.leader):
            return
        if self._events is None:
            now = time.time()
            self._events = events.EventFile(self._folder.events(now, socket.gethostname()))
            self._events.append(events.version(now), events.session_start(self._hparams, now))
        self._events.append(*records)


def write_tested(folder: RunFolder, metrics: Mapping[str, float]) -> None:
    """Let TensorBoard show the test metrics of a run that was finished before it was tested."""
    now = time.time()
    curves = [events.scalars(tag, [0], [value], [now]) for tag, value in metrics.items()]
    with replacing(folder.test_events) as stream:
        stream.write(b"".join([events.version(now), *curves]))


def entry(epoch: int, metrics: Mapping[str, float], metric: str) -> dict[str, Any]:
    """An epoch in `result.json`; the metrics that are looked for are there even if nobody logged them."""
    return {"epoch": epoch, metric: None, "val/loss": None, "train/loss": None, **metrics}


def bests(best: Mapping[str, Any], metric: str) -> dict[str, float]:
    """The best epoch, by which jobs are ranked; of a curve, HParams shows the last."""
    found = {name: best.get(name) for name in sorted({metric, "val/loss", "train/loss"})}
    return {f"best/{name}": value for name, value in found.items() if value is not None and np.isfinite(value)}


def hparams(config: Config, overrides: list[str]) -> dict[str, Any]:
    """The row of a run in TensorBoard's HParams: what a user usually varies, and every key that was typed."""
    row = {key: getattr(config, key) for key in ("lr", "batch_size", "epochs", "seed")}
    for group in ("data", "model", "optimizer"):
        row[group] = getattr(config, group)["_target_"].rpartition(".")[2]
    for word in overrides:
        if word.startswith("~"):
            continue
        key, typed = key_of(word), word.partition("=")[2]
        node: Any = config
        for part in key.split("."):
            # what the schema does not know, such as a group of the user's own, is shown as it was typed
            node = node.get(part, typed) if isinstance(node, Mapping) else getattr(node, part, typed)
        if not (isinstance(node, Mapping) or dataclasses.is_dataclass(node)):
            row[key] = node
    return row
