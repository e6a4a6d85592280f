"""The checkpoints of the jobs of a stack, as Lightning writes them for jobs trained alone.

Lightning trains each kind of job for one batch, and its checkpoint of that is given the values of the job.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from holdfast.config.schema import Config
from holdfast.data import BufferedRows, Rows
from holdfast.data.datamodule import AnyRows
from holdfast.data.order import EVALUATION_ROWS
from holdfast.model import Module
from holdfast.record.checkpoint import CheckpointIO, plain_values
from holdfast.record.history import SavedEpochs
from holdfast.runtime.isolation import isolated
from holdfast.single.build import build, build_trainer, seed_rows
from holdfast.stacked.inputs import StackInputs


class StackCheckpoints:
    """Makes the checkpoints of jobs that were trained in a stack.

    Args:
        inputs: the jobs.
        dry_runs: checkpoints of one batch, by the kind of job; filled here, and shared by the stacks of a sweep.
    """

    def __init__(self, inputs: StackInputs, dry_runs: dict[str, dict[str, Any]]) -> None:
        self._inputs, self._dry_runs = inputs, dry_runs
        named = {name: value for name, value in inputs.module.named_parameters() if value.requires_grad}
        self._shapes = {name: value.shape for name, value in named.items()}
        ends = np.cumsum([value.numel() for value in named.values()]).tolist()
        sizes = zip(named, ends, strict=True)
        self._parts = {name: slice(end - named[name].numel(), end) for name, end in sizes}
        names = {id(value): name for name, value in named.items()}
        entries = inputs.module.state_dict(keep_vars=True)
        # a state_dict holds a shared parameter under each of its names
        self._named = {key: names[id(value)] for key, value in entries.items() if id(value) in names}

    @property
    def iterations(self) -> int:
        """Number of iterations of an epoch."""
        return self._inputs.rows.iterations

    def weights(self, job: int, saved: SavedEpochs, column: int) -> dict[str, Any]:
        """The content of `model.pth` of a job, at its saved epoch; arguments as for `checkpoint`."""
        return self._module(job).bare(self._state_dict(job, saved, column))

    def checkpoint(self, job: int, saved: SavedEpochs, column: int) -> dict[str, Any]:
        """The checkpoint of a job at its saved epoch.

        Args:
            job: its index among the inputs.
            saved: the saved epochs of the stack in which it was trained.
            column: its index in that stack.
        """
        dry, inputs = self._dry_run(job), self._inputs
        epoch, iterations = int(saved.epoch[column]), int(saved.iterations[column])
        states, validated = inputs.scheduler_states[job], -(-len(inputs.rows.data.val) // EVALUATION_ROWS)
        schedules = [["epoch", 1, False]] if states else []
        counts = Counts(epoch, iterations, self.iterations, validated, schedules)
        changed = {
            "epoch": epoch,
            "global_step": iterations,
            "state_dict": self._state_dict(job, saved, column),
            "loops": counts.in_loops(dry["loops"]),
            "optimizer_states": [self._optimizer(dry["optimizer_states"][0], job, saved, column)],
            "lr_schedulers": [self._scheduler(dry["lr_schedulers"][0], job, epoch)] if states else [],
            "hyper_parameters": plain_values(inputs.hparams[inputs.hparams_of[job]]),
            "datamodule_hyper_parameters": plain_values(inputs.rows.hparams[job]),
        }
        return {key: changed.get(key, value) for key, value in dry.items()}

    def _tensor(self, saved: SavedEpochs, kind: str, name: str, column: int) -> Tensor:
        """One parameter of a job, or a part of the state of its optimizer."""
        part = saved.tensors[kind][self._parts[name], column].cpu()
        # a copy, since a file holds all of the memory that a tensor is a view of, here that of all jobs
        return part.reshape(self._shapes[name]).clone()

    def _module(self, job: int) -> Module:
        return self._inputs.module_of(int(self._inputs.rows.dataset_of[job]))

    def _state_dict(self, job: int, saved: SavedEpochs, column: int) -> dict[str, Any]:
        trained = {name: self._tensor(saved, "parameters", name, column) for name in self._parts}
        state = self._module(job).state_dict()
        for key, value in state.items():
            if key in self._named:
                state[key] = trained[self._named[key]]
            elif isinstance(value, Tensor):
                state[key] = value.cpu()
        return state

    def _optimizer(self, dry: Mapping[str, Any], job: int, saved: SavedEpochs, column: int) -> dict[str, Any]:
        """The state of the optimizer for each parameter, and its settings."""
        state = {}
        for (index, entry), name in zip(dry["state"].items(), self._parts, strict=False):
            step = {"step": torch.full_like(entry["step"], saved.iterations[column])} if "step" in entry else {}
            # every other tensor has the shape of its parameter
            tensors = {key: self._tensor(saved, key, name, column) for key in entry if key != "step"}
            state[index] = {key: {**step, **tensors}[key] for key in entry}
        group, settings = dict(dry["param_groups"][0]), self._inputs.configs[job].optimizer
        group |= {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in settings.items()
            if key in group and key != "lr"
        }
        group["lr"] = self._rate(job, int(saved.epoch[column]))
        if "initial_lr" in group:
            group["initial_lr"] = settings["lr"]
        return {"state": state, "param_groups": [group]}

    def _scheduler(self, dry: Mapping[str, Any], job: int, epoch: int) -> dict[str, Any]:
        initial = self._inputs.configs[job].optimizer["lr"]
        state = self._inputs.scheduler_states[job][epoch]
        return {**dry, **state, "base_lrs": [initial], "_last_lr": [self._rate(job, epoch)]}

    def _rate(self, job: int, epoch: int) -> float:
        """The learning rate after an epoch."""
        return float(self._inputs.learning_rates[epoch + 1, job])

    def _dry_run(self, job: int) -> dict[str, Any]:
        """A checkpoint that Lightning writes after one batch."""
        config = self._inputs.configs[job]
        options = tuple(bool(value) for value in config.optimizer.values())  # they decide what the state holds
        groups = (config.model, config.scheduler, config.trainer, config.precision, config.data["_target_"])
        key = repr((options, config.optimizer["_target_"], *groups))
        if key not in self._dry_runs:
            rows = {name: _in_memory(getattr(self._inputs.rows.data, name)) for name in ("train", "val")}
            with isolated():
                _, self._dry_runs[key] = dry_run(config, lambda data: vars(data).update(rows))
        return self._dry_runs[key]


def _in_memory(rows: AnyRows) -> Rows:
    """The rows of a dry run, which needs no more than one batch."""
    return rows.head(EVALUATION_ROWS) if isinstance(rows, BufferedRows) else rows


def dry_run(
    config: Config, prepare: Callable[[pl.LightningDataModule], object] = lambda data: None
) -> tuple[pl.Trainer, dict[str, Any]]:
    """Let Lightning train a job for one batch; returns the Trainer, and a checkpoint of that moment.

    Args:
        config: configuration of the job.
        prepare: is given the data module.
    """
    checkpoint_io = CheckpointIO()
    one_batch = dataclasses.replace(config.trainer, limit_train_batches=1, limit_val_batches=1)
    config = dataclasses.replace(config, trainer=one_batch)
    module, data = build(config)
    prepare(data)
    trainer = build_trainer(config, data, plugins=[checkpoint_io], logger=False, enable_checkpointing=False)
    trainer.fit_loop.max_epochs = 1
    seed_rows()
    trainer.fit(module, datamodule=data)
    return trainer, checkpoint_io.snapshot(trainer)


class Counts(NamedTuple):
    """What Lightning's loops count.

    Attributes:
        epoch: the epoch that ends.
        iterations: so far, over all epochs.
        per_epoch: iterations of an epoch.
        validated: batches of a validation.
        schedules: of each scheduler the interval, the frequency, and whether it looks at a metric.
    """

    epoch: int
    iterations: int
    per_epoch: int
    validated: int
    schedules: Sequence[Sequence[Any]]

    def in_loops(self, loops: Mapping[str, Any]) -> dict[str, Any]:
        """Lightning's loop counters with these counts."""
        current = self.iterations - self.epoch * self.per_epoch
        fit = dict(loops["fit_loop"])
        batches, steps = "epoch_loop.batch_progress", "epoch_loop.automatic_optimization.optim_progress"
        validation, scheduled = "epoch_loop.val_loop.batch_progress", "epoch_loop.scheduler_progress"
        fit["epoch_loop.state_dict"] = {**fit["epoch_loop.state_dict"], "_batches_that_stepped": self.iterations}
        fit[batches] = _counter(fit[batches], self.iterations, current)
        fit[batches]["is_last_batch"] = current == self.per_epoch
        optimizer = fit[steps]["optimizer"]
        fit[steps] = {"optimizer": {key: _counter(value, self.iterations, current) for key, value in optimizer.items()}}
        if self.validated:
            fit[validation] = _counter(fit[validation], self.validated, self.validated)
        if self.schedules:
            total, now = map(sum, zip(*map(self._scheduled, self.schedules), strict=True))
            fit[scheduled] = _counter(fit[scheduled], total, now)
        done = _counter(fit["epoch_progress"], self.epoch + 1, self.epoch + 1)
        # Lightning saves a checkpoint before it counts the epoch as completed
        fit["epoch_progress"] = {
            **done,
            **{part: {**done[part], "completed": self.epoch} for part in ("total", "current")},
        }
        return {**loops, "fit_loop": fit}

    def _scheduled(self, schedule: Sequence[Any]) -> tuple[int, int]:
        """How often a scheduler was stepped, over all epochs and in this one."""
        interval, frequency, looks_at_a_metric = schedule
        current = self.iterations - self.epoch * self.per_epoch
        if interval == "step":
            now = current // frequency
            return self.epoch * (self.per_epoch // frequency) + now, now
        before = self.epoch // frequency
        is_stepped = not looks_at_a_metric and current == self.per_epoch and (self.epoch + 1) % frequency == 0
        return before + is_stepped, int(is_stepped)


def _counter(progress: Mapping[str, Any], total: int, current: int) -> dict[str, Any]:
    """One of Lightning's progress counters with other counts."""
    counts = {"total": total, "current": current}
    return {**progress, **{part: dict.fromkeys(progress[part], count) for part, count in counts.items()}}
