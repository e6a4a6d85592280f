"""The training loop of a stack: jobs are trained as one program, and each ends as if it had been trained alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holdfast.arithmetic.gradients import gradients_for
from holdfast.arithmetic.layout import Batch, Indexes, Layout
from holdfast.arithmetic.optimizers import OPTIMIZERS, clip
from holdfast.arithmetic.tracing import TRACED_AFTER
from holdfast.record.archive import StackArchive, history_as_plain, restore_history
from holdfast.record.curves import Curves
from holdfast.record.history import SavedEpochs, StackHistory
from holdfast.record.parameter_path import StackPaths
from holdfast.record.stopping import CHECK_EVERY, StoppingRules, judge
from holdfast.stacked.batches import StackBatches
from holdfast.stacked.epoch import EpochSoFar
from holdfast.stacked.evaluation import evaluate
from holdfast.stacked.inputs import StackInputs
from holdfast.usercode.watch import UnstackableError, Watch

OnEpochEnd = Callable[[int, float], None]
"""Called after every epoch with its number and the best metric so far; NaN while there is none."""

_FEW_MULTIPLICATIONS = 1 << 20  # of an iteration: below, a second thread costs more than it saves


class Stack:
    """Trains jobs as one program.

    Args:
        inputs: the jobs.
        archive: where snapshots are written, and read; None for jobs of which no file is left.
    """

    def __init__(self, inputs: StackInputs, archive: StackArchive | None = None) -> None:
        self._inputs, self._config, self._rows = inputs, inputs.first, inputs.rows
        self._rules, self._archive = StoppingRules.from_config(inputs.first), archive
        traced_after = 3 if inputs.short else TRACED_AFTER  # a trial has to call each function untraced and traced
        self._gradients = gradients_for(inputs.module, inputs.trainer, inputs.job_values, traced_after)
        self._watch = None if inputs.shipped else Watch(inputs.module)
        self._batches = StackBatches(inputs.rows, self._gradients, inputs.trainer)
        self._optimizer = OPTIMIZERS[inputs.first.optimizer["_target_"]](
            [config.optimizer for config in inputs.configs]
        )
        self._jobs, self._iterations = len(inputs.configs), inputs.rows.iterations
        initial = inputs.initial_parameters
        self._dtype = np.float64 if initial.dtype == torch.float64 else np.float32  # of the losses
        has_paths = self._config.report is not False and len(initial) == 2
        self._paths = StackPaths(initial, self._config.epochs * self._iterations) if has_paths else None
        self._history = StackHistory.start(self._jobs, archive.curves if archive else Curves(self._jobs))
        self._layout = Layout.of(np.arange(self._jobs), inputs.rows.stream_of)
        self._parameters = initial[:, self._layout.jobs]  # (parameters, streams, width)
        self._epoch, self._so_far = 0, EpochSoFar.start(self._jobs)
        self._began = time.perf_counter()
        if archive and (snapshot := archive.snapshot):
            self._restore(snapshot)
        self._apply_layout()

    def train(self, on_epoch_end: OnEpochEnd | None = None) -> StackHistory:
        """Train all jobs to their ends, from the snapshot of the archive, if it has one.

        Args:
            on_epoch_end: called after every epoch with its number and the best metric so far.

        Raises:
            Stopped: a signal has arrived; the archive has a snapshot, from which the training goes on.
        """
        first = self._epoch
        with torch.no_grad(), self._threads():
            while self._epoch < self._config.epochs:
                self._train_epoch()
                self._judge()
                if self._watch and self._epoch == first:
                    self._watch.check()
                is_running = self._history.standing.end[self._layout.live] == ""
                if on_epoch_end:
                    on_epoch_end(self._epoch, self._best_metric())
                self._epoch += 1
                if not is_running.any():
                    break
                self._keep_running(is_running)
                self._so_far = EpochSoFar.start(len(self._layout.live))
                if self._epoch < self._config.epochs:
                    self._pause()
        if self._watch:
            self._watch.check()
        self._history.seconds, self._history.ended = self._seconds, time.time()
        return self._history

    @property
    def _seconds(self) -> float:
        """Duration of the training so far, before it was interrupted included."""
        return self._history.seconds + time.perf_counter() - self._began

    @contextmanager
    def _threads(self) -> Iterator[None]:
        """Use one thread if an iteration is too small for two."""
        before = torch.get_num_threads()
        if len(self._inputs.initial_parameters) * self._jobs * self._rows.batch_size < _FEW_MULTIPLICATIONS:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _train_epoch(self) -> None:
        """All iterations of an epoch; a job that diverges keeps the tensors of the check at which it had diverged."""
        rate, so_far = self._negative_rates(self._epoch), self._so_far
        order = self._batches.order(self._layout.streams, self._epoch)
        pending, width = list[Tensor](), self._layout.jobs.shape[1]
        while so_far.done < self._iterations and so_far.is_running.any():
            outcomes = [self._step(batch, rate) for batch in self._batches.next(order, so_far.done, width)]
            pending.append(self._gradients.losses(outcomes))
            so_far.done += len(outcomes)
            if so_far.done % CHECK_EVERY == 0 or so_far.done == self._iterations:
                losses, pending = self._collect(pending), []
                out = so_far.add(losses, self._rules)
                if so_far.done < self._iterations:
                    if out.any():
                        columns = self._layout.columns[out]
                        so_far.diverged.append((columns, self._copied(columns)))
                        so_far.is_running &= ~out
                    self._pause()
        for columns, tensors in so_far.diverged:
            for name, tensor in self._tensors().items():
                tensor.flatten(1)[:, columns] = tensors[name]

    def _pause(self) -> None:
        """Between two iterations, or epochs: write a snapshot, where one is due."""
        if self._archive:
            self._archive.pause(self._snapshot)

    def _snapshot(self) -> dict[str, Any]:
        """All that the training needs to go on from here, in plain containers and tensors."""
        return {
            "epoch": self._epoch,
            "laid_out": torch.from_numpy(np.unique(self._layout.jobs)),
            "live": torch.from_numpy(self._layout.live),
            "steps": self._optimizer.steps,
            "tensors": self._tensors(),
            "so_far": self._so_far.as_plain(),
            **history_as_plain(replace(self._history, seconds=self._seconds)),
        }

    def _restore(self, snapshot: dict[str, Any]) -> None:
        """Go on from a snapshot."""
        device = self._parameters.device
        restore_history(self._history, snapshot)
        for saved in (self._history.best, self._history.last):
            saved.tensors = {name: tensor.to(device) for name, tensor in saved.tensors.items()}
        self._epoch, self._so_far = snapshot["epoch"], EpochSoFar.of_plain(snapshot["so_far"])
        layout = Layout.of(snapshot["laid_out"].numpy(), self._rows.stream_of)
        is_live = np.isin(layout.live, snapshot["live"].numpy())
        self._layout = replace(layout, live=layout.live[is_live], columns=layout.columns[is_live])
        tensors = {name: tensor.to(device) for name, tensor in snapshot["tensors"].items()}
        self._parameters = tensors.pop("parameters")
        self._optimizer.state, self._optimizer.steps = tensors, snapshot["steps"]
        if self._paths:
            self._paths.resume(self._epoch * self._iterations + self._so_far.done)

    def _step(self, batch: Batch, rate: Tensor) -> Tensor:
        """One iteration; returns what its losses are computed from."""
        settings = self._config.trainer
        outcome, gradient = self._gradients(self._parameters, batch)
        if settings.gradient_clip_val is not None:
            gradient = clip(gradient, settings.gradient_clip_val, settings.gradient_clip_algorithm)
        self._optimizer.step(self._parameters, gradient, rate)
        if self._paths:
            self._paths.step(self._parameters)
        return outcome

    def _negative_rates(self, epoch: int) -> Tensor:
        """The negative learning rates of an epoch, shape `(streams, width)`."""
        dtype = torch.float64 if self._parameters.dtype == torch.float64 else torch.float32
        rates = self._inputs.learning_rates[epoch][self._layout.jobs]
        return -torch.as_tensor(rates, dtype=dtype, device=self._parameters.device)

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
        measured = self._measured(self._batches.val, "val")
        measured["train/loss_epoch"] = self._so_far.sums / (history.counts[live] - epoch * self._iterations)
        if self._config.trainer.full_train_loss:
            measured |= self._measured(self._batches.train, "train")
        measured["train/lr"] = self._inputs.learning_rates[epoch][live]
        if self._rules.metric not in measured:
            raise UnstackableError(f"metric={self._rules.metric} is not measured")
        metrics = {name: np.full(self._jobs, np.nan) for name in measured}
        for name, values in measured.items():
            metrics[name][live] = values
        history.curves.add_epoch(metrics)
        largest = np.zeros(self._jobs)
        largest[live] = np.where(self._so_far.is_running, self._so_far.largest, np.nan)
        history.standing = judge(history.standing, epoch, metrics, largest, self._rules)
        history.epochs[live] = epoch + 1
        self._save(history.best, metrics, history.standing.best_epoch[live] == epoch)
        is_over = history.standing.end[live] != ""
        self._save(history.last, metrics, is_over if epoch + 1 < self._config.epochs else np.ones_like(is_over))

    def _best_metric(self) -> float:
        """The best metric of all jobs so far; NaN while there is none."""
        best = self._history.standing.best
        values = best[np.isfinite(best)].tolist()
        return float((min if self._rules.mode == "min" else max)(values, default=np.nan))

    def _measured(self, prepared: list[Batch], split: str) -> dict[str, NDArray[np.float64]]:
        """The metrics of the live jobs over all rows of a split, each of shape `(live,)`."""
        # of all columns, jobs that are over included: a matrix product of another width rounds differently
        flat, jobs = self._parameters.flatten(1), self._layout.jobs.flatten()
        measured = evaluate(self._gradients, self._inputs, flat, jobs, split=split, prepared=prepared)
        return {name: values[self._layout.columns] for name, values in measured.items()}

    def _tensors(self) -> dict[str, Tensor]:
        """Everything that one epoch passes on to the next, each of shape `(parameters, streams, width)`."""
        return {"parameters": self._parameters, **self._optimizer.state}

    def _copied(self, columns: Indexes) -> dict[str, Tensor]:
        """Copies of some columns of all tensors, each of shape `(parameters, columns)`."""
        return {name: tensor.flatten(1)[:, columns] for name, tensor in self._tensors().items()}

    def _save(self, saved: SavedEpochs, metrics: Mapping[str, NDArray[np.float64]], mask: NDArray[np.bool_]) -> None:
        """Save this epoch for the live jobs that a mask selects."""
        if not mask.any():
            return
        jobs = self._layout.live[mask]
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
        self._layout = Layout.of(np.sort(layout.live[is_running]), self._rows.stream_of)
        columns = column_of[self._layout.jobs]  # (streams, width)
        self._parameters = self._parameters.flatten(1)[:, columns]
        self._optimizer.state = {name: each.flatten(1)[:, columns] for name, each in self._optimizer.state.items()}
        self._apply_layout()

    def _apply_layout(self) -> None:
        self._optimizer.set_layout(self._layout.jobs, self._parameters)
        self._gradients.set_layout(self._layout.jobs)
