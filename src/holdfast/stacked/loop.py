"""The training loop of a stack: jobs are trained as one program, and each ends as if it had been trained alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holdfast.arithmetic.layout import Indexes, Layout
from holdfast.record.archive import StackArchive, history_as_plain, restore_history
from holdfast.record.curves import Curves
from holdfast.record.history import SavedEpochs, StackHistory
from holdfast.record.parameter_path import StackPaths
from holdfast.record.stopping import CHECK_EVERY, StoppingRules, judge
from holdfast.runtime.allocator import freed_memory_kept
from holdfast.runtime.threads import threads
from holdfast.stacked.engine import Engine
from holdfast.stacked.epoch import EpochSoFar
from holdfast.usercode.watch import UnstackableError

OnEpochEnd = Callable[[int, float], None]
"""Called after every epoch with its number and the best metric so far; NaN while there is none."""

_FEW_MULTIPLICATIONS = 1 << 20  # of an iteration: below, a second thread costs more than it saves


class Stack:
    """Trains jobs as one program.

    Args:
        engine: computes what is trained.
        archive: where snapshots are written, and read; None for jobs of which no file is left.
    """

    def __init__(self, engine: Engine, archive: StackArchive | None = None) -> None:
        config = engine.config
        self._engine, self._config = engine, config
        self._rules, self._archive = StoppingRules.from_config(config), archive
        self._jobs, self._iterations = engine.jobs, engine.iterations
        initial = engine.parameters
        self._size = len(initial)
        self._dtype = np.float64 if initial.dtype == torch.float64 else np.float32  # of the losses
        has_paths = config.report is not False and len(initial) == 2
        self._paths = StackPaths(initial.flatten(1), config.epochs * self._iterations) if has_paths else None
        self._history = StackHistory.start(self._jobs, archive.curves if archive else Curves(self._jobs))
        self._layout = Layout.of(np.arange(self._jobs), engine.stream_of)
        self._epoch, self._so_far = 0, EpochSoFar.start(self._jobs)
        self._began = time.perf_counter()
        if archive and (snapshot := archive.snapshot):
            self._restore(snapshot)
        else:
            engine.set_tensors({"parameters": initial.flatten(1)[:, self._layout.jobs]}, self._layout, 0)

    def train(self, on_epoch_end: OnEpochEnd | None = None) -> StackHistory:
        """Train all jobs to their ends, from the snapshot of the archive, if it has one.

        Args:
            on_epoch_end: called after every epoch with its number and the best metric so far.

        Raises:
            Stopped: a signal has arrived; the archive has a snapshot, from which the training goes on.
        """
        first = self._epoch
        with torch.no_grad(), freed_memory_kept(), threads(1 if self._is_small() else None):
            while self._epoch < self._config.epochs:
                self._train_epoch()
                self._judge()
                if self._epoch == first:
                    self._engine.check()
                is_running = self._history.standing.end[self._layout.live] == ""
                if on_epoch_end:
                    on_epoch_end(self._epoch, self._best_metric())
                self._epoch += 1
                if not is_running.any():
                    break
                self._keep_running(is_running)
                self._so_far = EpochSoFar.start(len(self._layout.live))
                if self._epoch < self._config.epochs:
                    self._pause(between_epochs=True)
        self._engine.check()
        self._history.seconds, self._history.ended = self._seconds, time.time()
        return self._history

    @property
    def _seconds(self) -> float:
        """Duration of the training so far, before it was interrupted included."""
        return self._history.seconds + time.perf_counter() - self._began

    def _is_small(self) -> bool:
        """Whether an iteration is too small for two threads."""
        return self._size * self._jobs * self._engine.batch_size < _FEW_MULTIPLICATIONS

    def _train_epoch(self) -> None:
        """All iterations of an epoch; a job that diverges keeps the tensors of the check at which it had diverged."""
        so_far, engine, pending = self._so_far, self._engine, list[Tensor]()
        engine.begin_epoch(self._epoch)
        while so_far.done < self._iterations and so_far.is_running.any():
            outcomes = engine.train(so_far.done, self._paths.step if self._paths else None)
            pending.append(engine.losses(outcomes))
            so_far.done += len(outcomes)
            if so_far.done % CHECK_EVERY == 0 or so_far.done == self._iterations:
                losses, pending = self._collect(pending), []
                out = so_far.add(losses, self._rules)
                if so_far.done < self._iterations:
                    if out.any():
                        columns = self._layout.columns[out]
                        so_far.diverged.append((columns, self._copied(columns)))
                        engine.freeze(columns)
                        so_far.is_running &= ~out
                    self._pause(between_epochs=False)
        for columns, tensors in so_far.diverged:
            engine.put(columns, tensors)

    def _pause(self, *, between_epochs: bool) -> None:
        """Between two epochs, or within one: write a snapshot, where one is due."""
        if self._archive:
            self._archive.pause(self._snapshot if between_epochs or self._engine.splits_epochs else None)

    def _snapshot(self) -> dict[str, Any]:
        """All that the training needs to go on from here, in plain containers and tensors."""
        return {
            "epoch": self._epoch,
            "laid_out": torch.from_numpy(np.unique(self._layout.jobs)),
            "live": torch.from_numpy(self._layout.live),
            "steps": self._epoch * self._iterations + self._so_far.done,
            "so_far": self._so_far.as_plain(),
            **self._engine.snapshot(),
            **history_as_plain(replace(self._history, seconds=self._seconds)),
        }

    def _restore(self, snapshot: dict[str, Any]) -> None:
        """Go on from a snapshot."""
        restore_history(self._history, snapshot)
        device = self._engine.parameters.device
        for saved in (self._history.best, self._history.last):
            saved.tensors = {name: tensor.to(device) for name, tensor in saved.tensors.items()}
        self._epoch, self._so_far = snapshot["epoch"], EpochSoFar.of_plain(snapshot["so_far"])
        layout = Layout.of(snapshot["laid_out"].numpy(), self._engine.stream_of)
        is_live = np.isin(layout.live, snapshot["live"].numpy())
        self._layout = replace(layout, live=layout.live[is_live], columns=layout.columns[is_live])
        self._engine.restore(snapshot, self._layout, snapshot["steps"])
        if self._paths:
            self._paths.resume(self._epoch * self._iterations + self._so_far.done)

    def _collect(self, pending: list[Tensor]) -> NDArray[Any]:
        """Copy the losses of many iterations to the CPU at once: only here the program waits for the accelerator.

        Args:
            pending: losses, each of shape `(iterations, streams, width)`.

        Returns:
            The losses of the live jobs, shape `(iterations, live)`.
        """
        history, layout, is_running = self._history, self._layout, self._so_far.is_running
        dtype = torch.float64 if self._dtype == np.float64 else torch.float32
        losses: NDArray[Any] = torch.cat(pending).flatten(1).to("cpu", dtype).numpy()[:, layout.columns]
        jobs, count = layout.live[is_running], self._epoch * self._iterations + self._so_far.done
        of_all = np.full((len(losses), self._jobs), np.nan, dtype=self._dtype)
        of_all[:, jobs] = losses[:, is_running]
        points = self._paths.collect(count, jobs, layout.columns[is_running]) if self._paths else None
        history.curves.add_iterations(count, of_all, points)
        history.counts[jobs] = count
        return losses

    def _judge(self) -> None:
        """Measure the live jobs, update their standing, and save the epochs that are best or last."""
        history, live, epoch = self._history, self._layout.live, self._epoch
        columns = self._layout.columns
        measured = {name: values[columns] for name, values in self._engine.validate(epoch).items()}
        mean = self._so_far.sums / (history.counts[live] - epoch * self._iterations)
        measured.setdefault("train/loss_epoch", mean)  # which a module may log itself, weighted by rows
        if self._config.trainer.full_train_loss:
            measured |= {name: values[columns] for name, values in self._engine.measure_train().items()}
        measured["train/lr"] = self._engine.rates(epoch)[live]
        if self._rules.metric not in measured:
            raise UnstackableError(f"metric={self._rules.metric} is not measured")
        metrics = {name: np.full(self._jobs, np.nan) for name in measured}
        for name, values in measured.items():
            metrics[name][live] = values
        if history.curves.names and set(metrics) != set(history.curves.names):
            raise UnstackableError("it logs metrics in some epochs that it does not log in the first")
        history.curves.add_epoch(metrics)
        self._take_logged()
        largest = np.zeros(self._jobs)
        largest[live] = np.where(self._so_far.is_running, self._so_far.largest, np.nan)
        history.standing = judge(history.standing, epoch, metrics, largest, self._rules)
        history.epochs[live] = epoch + 1
        self._save(history.best, metrics, history.standing.best_epoch[live] == epoch)
        is_over = history.standing.end[live] != ""
        self._save(history.last, metrics, is_over if epoch + 1 < self._config.epochs else np.ones_like(is_over))

    def _take_logged(self) -> None:
        """Give the curves what was logged through Lightning."""
        for step, epoch_start, values in self._engine.logged:
            of_all = {name: np.full(self._jobs, np.nan) for name in values}
            for name, of_columns in values.items():
                of_all[name][self._layout.live] = of_columns[self._layout.columns]
            self._history.curves.add_logged(step, epoch_start, of_all)
        self._engine.logged.clear()

    def _best_metric(self) -> float:
        """The best metric of all jobs so far; NaN while there is none."""
        best = self._history.standing.best
        values = best[np.isfinite(best)].tolist()
        return float((min if self._rules.mode == "min" else max)(values, default=np.nan))

    def _copied(self, columns: Indexes) -> dict[str, Tensor]:
        """Copies of some columns of all tensors, each of shape `(parameters, columns)`."""
        return {name: tensor.flatten(1)[:, columns] for name, tensor in self._engine.tensors().items()}

    def _save(self, saved: SavedEpochs, metrics: Mapping[str, NDArray[np.float64]], mask: NDArray[np.bool_]) -> None:
        """Save this epoch for the live jobs that a mask selects."""
        if not mask.any():
            return
        jobs = self._layout.live[mask]
        if (plain := self._engine.plain(jobs)) is not None:
            saved.plain = saved.plain or [None] * self._jobs
            for job, entry in zip(jobs, plain, strict=True):
                saved.plain[job] = entry
        saved.epoch[jobs], saved.iterations[jobs] = self._epoch, self._history.counts[jobs]
        for name, values in metrics.items():
            saved.metrics.setdefault(name, np.full(self._jobs, np.nan))[jobs] = values[jobs]
        for name, tensor in self._copied(self._layout.columns[mask]).items():
            if name not in saved.tensors:
                saved.tensors[name] = tensor.new_zeros(len(tensor), self._jobs)
            saved.tensors[name][:, jobs] = tensor

    def _keep_running(self, is_running: NDArray[np.bool_]) -> None:
        """Drop jobs that are over: from the live ones at once, from the tensors when they fill half of the columns."""
        layout = self._layout
        if 2 * is_running.sum() > layout.jobs.size:
            self._layout = replace(layout, live=layout.live[is_running], columns=layout.columns[is_running])
            return
        column_of = np.empty(self._jobs, dtype=np.int64)
        column_of[layout.live] = layout.columns
        self._layout = Layout.of(np.sort(layout.live[is_running]), self._engine.stream_of)
        columns = column_of[self._layout.jobs]  # (streams, width)
        tensors = {name: tensor.flatten(1)[:, columns] for name, tensor in self._engine.tensors().items()}
        self._engine.set_tensors(tensors, self._layout, (self._epoch) * self._iterations)
