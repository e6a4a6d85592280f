"""The training loop of a stack: jobs are trained as one program, and each ends as if it had been trained alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holdfast.arithmetic.gradients import gradients_for, on_device
from holdfast.arithmetic.layout import Batch, Indexes, Layout
from holdfast.arithmetic.optimizers import OPTIMIZERS, clip
from holdfast.arithmetic.tracing import TRACED_AFTER
from holdfast.data import row_order
from holdfast.record.history import SavedEpochs, StackHistory
from holdfast.record.parameter_path import StackPaths
from holdfast.record.stopping import CHECK_EVERY, StoppingRules, judge, largest_loss
from holdfast.stacked.evaluation import evaluate
from holdfast.stacked.inputs import StackInputs
from holdfast.usercode.watch import UnstackableError, Watch

OnEpochEnd = Callable[[int, float], None]
"""Called after every epoch with its number and the best metric so far; NaN while there is none."""

_NUMBERS_GATHERED = 1 << 20  # gathered at a time: enough to be fast, few enough to stay in the cache
_FEW_MULTIPLICATIONS = 1 << 20  # of an iteration: below, a second thread costs more than it saves


class Stack:
    """Trains jobs as one program.

    Args:
        inputs: the jobs.
    """

    def __init__(self, inputs: StackInputs) -> None:
        self._inputs, self._config, self._rows = inputs, inputs.first, inputs.rows
        self._rules = StoppingRules.from_config(inputs.first)
        traced_after = 3 if inputs.short else TRACED_AFTER  # a trial has to call each function untraced and traced
        self._gradients = gradients_for(inputs.module, inputs.trainer, inputs.job_values, traced_after)
        self._watch = None if inputs.shipped else Watch(inputs.module)
        self._train = [self._prepared(rows) for rows in inputs.rows.train]  # for each data set
        self._val = [self._prepared(rows) for rows in inputs.rows.val]
        parts = zip(*self._train, strict=True)
        self._all_train = self._train[0] if len(self._train) == 1 else tuple(map(torch.cat, parts))
        self._optimizer = OPTIMIZERS[inputs.first.optimizer["_target_"]](
            [config.optimizer for config in inputs.configs]
        )
        self._jobs, self._iterations = len(inputs.configs), inputs.rows.iterations
        total, initial = self._config.epochs * self._iterations, inputs.initial_parameters
        self._history = StackHistory.start(
            self._jobs, total, np.float64 if initial.dtype == torch.float64 else np.float32
        )
        if self._config.report is not False and len(initial) == 2:
            self._history.paths = StackPaths(initial, total)
        self._layout = Layout.of(np.arange(self._jobs), inputs.rows.stream_of)
        self._parameters = initial[:, self._layout.jobs]  # (parameters, streams, width)
        self._apply_layout()

    def train(self, on_epoch_end: OnEpochEnd | None = None) -> StackHistory:
        """Train all jobs to their ends.

        Args:
            on_epoch_end: called after every epoch with its number and the best metric so far.
        """
        began, history = time.perf_counter(), self._history
        with torch.no_grad(), self._threads():
            for epoch in range(self._config.epochs):
                self._train_epoch(epoch)
                self._judge(epoch)
                if self._watch and epoch == 0:
                    self._watch.check()
                is_running = history.standing.end[self._layout.live] == ""
                if on_epoch_end:
                    on_epoch_end(epoch, self._best_metric())
                if not is_running.any():
                    break
                self._keep_running(is_running)
        if self._watch:
            self._watch.check()
        return replace(history, losses=history.losses[: history.counts.max()], seconds=time.perf_counter() - began)

    def _prepared(self, rows: Any) -> Batch:
        return self._gradients.prepare(on_device(self._inputs.trainer, rows))

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

    def _train_epoch(self, epoch: int) -> None:
        """All iterations of an epoch; a job that diverges keeps the tensors of the check at which it had diverged."""
        rate, order = self._negative_rates(epoch), self._order(epoch)
        done, paths = 0, self._history.paths
        is_running = np.ones(len(self._layout.live), dtype=bool)
        diverged: list[tuple[Indexes, dict[str, Tensor]]] = []  # columns, and a copy of their tensors
        pending: list[Tensor] = []
        while done < self._iterations and is_running.any():
            outcomes = [self._step(batch, rate) for batch in self._batches(order, done)]
            pending.append(self._gradients.losses(outcomes))
            done += len(outcomes)
            if done % CHECK_EVERY == 0 or done == self._iterations:
                losses = self._collect(pending, epoch * self._iterations + done, is_running)
                pending = []
                out = is_running & ~self._rules.within(largest_loss(losses))
                if done < self._iterations and out.any():
                    diverged.append((self._layout.columns[out], self._copied(self._layout.columns[out])))
                    is_running &= ~out
        if paths:
            paths.end_epoch((epoch + 1) * self._iterations, self._layout.live, self._layout.columns)
        for columns, tensors in diverged:
            for name, tensor in self._tensors().items():
                tensor.flatten(1)[:, columns] = tensors[name]

    def _step(self, batch: Batch, rate: Tensor) -> Tensor:
        """One iteration; returns what its losses are computed from."""
        settings = self._config.trainer
        outcome, gradient = self._gradients(self._parameters, batch)
        if settings.gradient_clip_val is not None:
            gradient = clip(gradient, settings.gradient_clip_val, settings.gradient_clip_algorithm)
        self._optimizer.step(self._parameters, gradient, rate)
        if self._history.paths:
            self._history.paths.step(self._parameters)
        return outcome

    def _negative_rates(self, epoch: int) -> Tensor:
        """The negative learning rates of an epoch, shape `(streams, width)`."""
        dtype = torch.float64 if self._parameters.dtype == torch.float64 else torch.float32
        rates = self._inputs.learning_rates[epoch][self._layout.jobs]
        return -torch.as_tensor(rates, dtype=dtype, device=self._parameters.device)

    def _collect(self, pending: list[Tensor], count: int, is_running: NDArray[np.bool_]) -> NDArray[Any]:
        """Copy the losses of many iterations to the CPU at once: only here the program waits for the accelerator.

        Args:
            pending: losses, each of shape `(iterations, streams, width)`.
            count: number of iterations so far.
            is_running: whether each live job has not diverged in this epoch, shape `(live,)`.

        Returns:
            The losses of the live jobs, shape `(iterations, live)`.
        """
        history, layout = self._history, self._layout
        dtype = torch.float64 if history.losses.dtype == np.float64 else torch.float32
        losses: NDArray[Any] = torch.cat(pending).flatten(1).to("cpu", dtype).numpy()[:, layout.columns]
        jobs = layout.live[is_running]
        history.losses[count - len(losses) : count, jobs] = losses[:, is_running]
        history.counts[jobs] = count
        history.clock.append((count, time.time()))
        return losses

    def _order(self, epoch: int) -> Tensor:
        """The indexes of the rows that each stream visits, in order, shape `(streams, rows)`."""
        rows = len(self._rows.data.train)
        orders = []
        for index in self._layout.streams:
            stream = self._rows.streams[index]
            order = row_order(rows, stream.seed, epoch) if stream.shuffle else torch.arange(rows)
            orders.append(order + stream.dataset * rows)
        return torch.stack(orders).to(self._parameters.device)

    def _batches(self, order: Tensor, done: int) -> list[Batch]:
        """The batches of the next iterations, gathered together.

        Args:
            order: shape `(streams, rows)`.
            done: number of iterations of this epoch so far.
        """
        (streams, rows), width, size, count = order.shape, self._layout.jobs.shape[1], self._rows.batch_size, 1
        full_batches = rows // size
        if done < full_batches:
            numbers = streams * size * (sum(part[0].numel() for part in self._all_train) + width)
            count = max(1, min(full_batches - done, CHECK_EVERY - done % CHECK_EVERY, _NUMBERS_GATHERED // numbers))
        start, last = done * size, rows - full_batches * size
        size = size if done < full_batches else last
        index = order[:, start : start + count * size]
        index = index.view(streams, count, size).transpose(0, 1).reshape(-1)  # (count * streams * size,)
        gathered = tuple(
            part.index_select(0, index).view(count, streams, size, *part.shape[1:]) for part in self._all_train
        )
        return self._gradients.batches(gathered, width)

    def _judge(self, epoch: int) -> None:
        """Measure the live jobs, update their standing, and save the epochs that are best or last."""
        history, live, start = self._history, self._layout.live, epoch * self._iterations
        losses = history.losses[start : start + self._iterations, live].astype(np.float64)
        is_complete = history.counts[live] == start + self._iterations
        measured = self._measured(self._val, "val")
        measured["train/loss_epoch"] = _means(losses, history.counts[live] - start)
        if self._config.trainer.full_train_loss:
            measured |= self._measured(self._train, "train")
        measured["train/lr"] = self._inputs.learning_rates[epoch][live]
        if self._rules.metric not in measured:
            raise UnstackableError(f"metric={self._rules.metric} is not measured")
        if not history.metrics:
            history.metrics = {name: np.full((self._config.epochs, self._jobs), np.nan) for name in measured}
        for name, values in measured.items():
            history.metrics[name][epoch, live] = values
        largest = np.zeros(self._jobs)
        largest[live] = np.where(is_complete, largest_loss(losses), np.nan)
        metrics = {name: values[epoch] for name, values in history.metrics.items()}
        history.standing = judge(history.standing, epoch, metrics, largest, self._rules)
        history.epochs[live] = epoch + 1
        history.ended.append(time.time())
        self._save(history.best, epoch, history.standing.best_epoch[live] == epoch)
        is_over = history.standing.end[live] != ""
        self._save(history.last, epoch, is_over if epoch + 1 < self._config.epochs else np.ones_like(is_over))

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

    def _save(self, saved: SavedEpochs, epoch: int, mask: NDArray[np.bool_]) -> None:
        """Save this epoch for the live jobs that a mask selects."""
        if not mask.any():
            return
        jobs = self._layout.live[mask]
        saved.epoch[jobs], saved.iterations[jobs] = epoch, self._history.counts[jobs]
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


def _means(losses: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean of the first `counts` losses of each job, shape `(iterations, jobs)` to `(jobs,)`."""
    if (counts == len(losses)).all():
        means: NDArray[np.float64] = losses.mean(0)
        return means
    return np.array([column[:count].mean() for column, count in zip(losses.T, counts, strict=True)])
