"""Jobs that differ only in numbers, trained as one program; each comes out as if it had been run alone."""

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

from holdfast.data import row_order
from holdfast.record.history import SavedEpochs, StackHistory
from holdfast.record.parameter_path import StackPaths
from holdfast.record.stopping import CHECK_EVERY, Standing, StoppingRules, judge, largest_loss
from holdfast.stacked.evaluation import evaluate
from holdfast.stacked.gradients import Batch, engine, on_device
from holdfast.stacked.inputs import Members
from holdfast.stacked.layout import Grid, Numbers
from holdfast.stacked.optimizers import RULES, clip
from holdfast.stacked.tracing import TRACED_AFTER
from holdfast.usercode.watch import UnstackableError, Watch

OnEpochEnd = Callable[[int, float], None]
"""Called after every epoch with its number and the best metric so far; NaN while there is none."""

_GATHERED = 1 << 20  # numbers gathered at a time: enough to be quick, few enough to stay in the cache
_SMALL = 1 << 20  # multiplications of an iteration below which a second thread costs more than it brings


class Stack:
    """Trains jobs as one program.

    Args:
        members: the jobs.
    """

    def __init__(self, members: Members) -> None:
        self._members, self._config = members, members.first
        self._rules = StoppingRules.from_config(members.first)
        traced_after = 3 if members.short else TRACED_AFTER  # a trial calls each function as it is, and traced
        self._engine = engine(members.module, members.trainer, members.numbers, traced_after)
        self._watch = None if members.shipped else Watch(members.module)
        self._train = [self._prepared(rows) for rows in members.train]
        self._val = [self._prepared(rows) for rows in members.val]
        parts = zip(*self._train, strict=True)
        self._together = self._train[0] if len(self._train) == 1 else tuple(map(torch.cat, parts))
        settings = [config.optimizer for config in members.configs]
        self._update = RULES[members.first.optimizer["_target_"]](settings)
        self._size, self._iterations, self._jobs = members.batch_size, members.iterations, len(members.configs)
        self._begin()

    def train(self, on_epoch_end: OnEpochEnd | None = None) -> StackHistory:
        """Train all jobs to their ends.

        Args:
            on_epoch_end: called after every epoch with its number and the best metric so far.
        """
        began = time.perf_counter()
        with torch.no_grad(), self._threads():
            for epoch in range(self._config.epochs):
                self._train_epoch(epoch)
                self._judge(epoch)
                if self._watch and epoch == 0:
                    self._watch.check()
                running = self._standing.end[self._grid.live] == ""
                if on_epoch_end:
                    on_epoch_end(epoch, self._best_value())
                if not running.any():
                    break
                self._go_on_with(running)
        if self._watch:
            self._watch.check()
        return StackHistory(
            losses=self._losses[: self._counts.max()],
            counts=self._counts,
            clock=self._clock,
            metrics=self._metrics,
            epochs=self._epochs,
            ended=self._ended,
            standing=self._standing,
            best=self._best,
            last=self._last,
            seconds=time.perf_counter() - began,
            paths=self._descents,
        )

    def _prepared(self, rows: Any) -> tuple[Tensor, ...]:
        return self._engine.prepare(on_device(self._members.trainer, rows))

    @contextmanager
    def _threads(self) -> Iterator[None]:
        """One thread where an iteration is too small for two."""
        before = torch.get_num_threads()
        if len(self._members.start) * self._jobs * self._size < _SMALL:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _begin(self) -> None:
        self._grid = Grid.of(np.arange(self._jobs), self._members.stream_of)
        self._parameters = self._members.start[:, self._grid.jobs]  # (parameters, streams, jobs)
        self._place()
        total = self._config.epochs * self._iterations
        kind = np.float64 if self._members.start.dtype == torch.float64 else np.float32
        self._losses = np.full((total, self._jobs), np.nan, dtype=kind)
        self._counts = np.zeros(self._jobs, dtype=np.int64)
        self._epochs = np.zeros(self._jobs, dtype=np.int64)
        self._clock, self._ended = [(0, time.time())], list[float]()
        self._metrics: dict[str, NDArray[np.float64]] = {}
        self._standing = Standing(
            best_epoch=np.full(self._jobs, -1),
            best=np.full(self._jobs, np.nan),
            reference=np.full(self._jobs, np.nan),
            waited=np.zeros(self._jobs, dtype=np.int64),
            end=np.full(self._jobs, "", dtype="<U8"),
        )
        follow = self._config.report is not False and len(self._members.start) == 2
        self._descents = StackPaths(self._members.start, total) if follow else None
        self._best, self._last = (
            SavedEpochs(np.full(self._jobs, -1), np.zeros(self._jobs, dtype=np.int64)) for _ in range(2)
        )

    def _train_epoch(self, epoch: int) -> None:
        """All iterations of an epoch; jobs that are lost on the way are put back to where they were found lost."""
        rate, order = self._rate(epoch), self._order(epoch)
        config, done = self._config.trainer, 0
        running = np.ones(len(self._grid.live), dtype=bool)
        lost: list[tuple[Numbers, dict[str, Tensor]]] = []
        pending: list[Tensor] = []
        while done < self._iterations and running.any():
            outcomes = []
            for batch in self._batches(order, done):
                outcome, gradient = self._engine(self._parameters, batch)
                if config.gradient_clip_val is not None:
                    gradient = clip(gradient, config.gradient_clip_val, config.gradient_clip_algorithm)
                self._update.step(self._parameters, gradient, rate)
                outcomes.append(outcome)
                if self._descents:
                    self._descents.step(self._parameters)
            pending.append(self._engine.losses(outcomes))
            done += len(outcomes)
            if done % CHECK_EVERY == 0 or done == self._iterations:
                losses = self._collect(pending, epoch * self._iterations + done, running)
                pending = []
                out = running & ~self._rules.within(largest_loss(losses))
                if done < self._iterations and out.any():
                    lost.append((self._grid.at[out], self._taken(self._grid.at[out])))
                    running &= ~out
        if self._descents:
            self._descents.end_epoch((epoch + 1) * self._iterations, self._grid.live, self._grid.at)
        for at, tensors in lost:
            for name, tensor in self._tensors().items():
                tensor.flatten(1)[:, at] = tensors[name]

    def _rate(self, epoch: int) -> Tensor:
        """The learning rates of an epoch, negative, shape `(streams, jobs)`."""
        wide = torch.float64 if self._parameters.dtype == torch.float64 else torch.float32
        return -torch.as_tensor(self._members.rates[epoch][self._grid.jobs], dtype=wide, device=self._parameters.device)

    def _collect(self, pending: list[Tensor], reached: int, running: NDArray[np.bool_]) -> NDArray[Any]:
        """Read the losses of many iterations at once: here, and nowhere else, is waited for the accelerator.

        Returns:
            Those of the live jobs, shape `(iterations, live jobs)`.
        """
        kind = torch.float64 if self._losses.dtype == np.float64 else torch.float32
        losses: NDArray[Any] = torch.cat(pending).flatten(1).to("cpu", kind).numpy()[:, self._grid.at]
        jobs = self._grid.live[running]
        self._losses[reached - len(losses) : reached, jobs] = losses[:, running]
        self._counts[jobs] = reached
        self._clock.append((reached, time.time()))
        return losses

    def _order(self, epoch: int) -> Tensor:
        """The rows that each stream visits, in order, shape `(streams, rows)`."""
        rows = len(self._members.data.train)
        orders = []
        for stream in self._grid.streams:
            origin, seed, shuffle = self._members.streams[stream]
            order = row_order(rows, seed, epoch) if shuffle else torch.arange(rows)
            orders.append(order + origin * rows)
        return torch.stack(orders).to(self._parameters.device)

    def _batches(self, order: Tensor, done: int) -> list[tuple[Tensor, ...]]:
        """The batches of the next iterations, gathered together."""
        streams, rows = order.shape
        whole = rows // self._size
        size, count = self._size, 1
        if done < whole:
            numbers = streams * size * (sum(part[0].numel() for part in self._together) + self._grid.jobs.shape[1])
            count = max(1, min(whole - done, CHECK_EVERY - done % CHECK_EVERY, _GATHERED // numbers))
        else:
            size = rows - whole * size
        index = order[:, done * self._size : done * self._size + count * size]
        index = index.view(streams, count, size).transpose(0, 1).reshape(-1)
        gathered = tuple(
            part.index_select(0, index).view(count, streams, size, *part.shape[1:]) for part in self._together
        )
        return self._engine.batches(gathered, self._grid.jobs.shape[1])

    def _judge(self, epoch: int) -> None:
        """Measure all jobs, find out where they stand, and keep what has to be kept."""
        live, start = self._grid.live, epoch * self._iterations
        losses = self._losses[start : start + self._iterations, live].astype(np.float64)
        full = self._counts[live] == start + self._iterations
        measured = self._measured(self._val, "val")
        measured["train/loss_epoch"] = (
            np.array(
                [column[: count - start].mean() for column, count in zip(losses.T, self._counts[live], strict=True)]
            )
            if not full.all()
            else losses.mean(0)
        )
        if self._config.trainer.full_train_loss:
            measured |= self._measured(self._train, "train")
        measured["train/lr"] = self._members.rates[epoch][live]
        if self._rules.metric not in measured:
            raise UnstackableError(f"metric={self._rules.metric} is not measured")
        if not self._metrics:
            self._metrics = {name: np.full((self._config.epochs, self._jobs), np.nan) for name in measured}
        for name, values in measured.items():
            self._metrics[name][epoch, live] = values
        lost = np.zeros(self._jobs)
        lost[live] = np.where(full, largest_loss(losses), np.nan)
        now = {name: values[epoch] for name, values in self._metrics.items()}
        self._standing = judge(self._standing, epoch, now, lost, self._rules)
        self._epochs[live] = epoch + 1
        self._ended.append(time.time())
        self._keep(self._best, epoch, self._standing.best_epoch[live] == epoch)
        over = self._standing.end[live] != ""
        self._keep(self._last, epoch, over if epoch + 1 < self._config.epochs else np.ones_like(over))

    def _best_value(self) -> float:
        """The best metric of all jobs so far; NaN while there is none."""
        values = self._standing.best[np.isfinite(self._standing.best)].tolist()
        return float((min if self._rules.mode == "min" else max)(values, default=np.nan))

    def _measured(self, prepared: list[Batch], split: str) -> dict[str, NDArray[np.float64]]:
        """The metrics of the live jobs over all rows of a split, each of shape `(live jobs,)`."""
        # of the whole grid, with jobs that are over: a product of another width rounds otherwise
        flat, jobs = self._parameters.flatten(1), self._grid.jobs.flatten()
        measured = evaluate(self._engine, self._members, flat, jobs, split=split, prepared=prepared)
        return {name: values[self._grid.at] for name, values in measured.items()}

    def _tensors(self) -> dict[str, Tensor]:
        """All that an epoch leaves to the next, by name."""
        return {"parameters": self._parameters, **self._update.state}

    def _taken(self, at: Numbers) -> dict[str, Tensor]:
        """The tensors of some jobs, by their places; copies."""
        return {name: tensor.flatten(1)[:, at] for name, tensor in self._tensors().items()}

    def _keep(self, kept: SavedEpochs, epoch: int, which: NDArray[np.bool_]) -> None:
        if not which.any():
            return
        jobs = self._grid.live[which]
        kept.epoch[jobs], kept.iterations[jobs] = epoch, self._counts[jobs]
        for name, tensor in self._taken(self._grid.at[which]).items():
            if name not in kept.tensors:
                kept.tensors[name] = tensor.new_zeros(len(tensor), self._jobs)
            kept.tensors[name][:, jobs] = tensor

    def _go_on_with(self, running: NDArray[np.bool_]) -> None:
        """Leave jobs that are over out of account; their numbers are still moved until they are half of all."""
        grid = self._grid
        if 2 * running.sum() > grid.jobs.size:
            self._grid = replace(grid, live=grid.live[running], at=grid.at[running])
            return
        place = np.empty(self._jobs, dtype=np.int64)
        place[grid.live] = grid.at
        self._grid = Grid.of(np.sort(grid.live[running]), self._members.stream_of)
        at = place[self._grid.jobs]
        self._parameters = self._parameters.flatten(1)[:, at]
        self._update.state = {name: tensor.flatten(1)[:, at] for name, tensor in self._update.state.items()}
        self._place()

    def _place(self) -> None:
        """Say where each job lies, after the grid has changed."""
        self._update.place(self._grid.jobs, self._parameters)
        self._engine.place(self._grid.jobs)
