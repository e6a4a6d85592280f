"""The checkpoints of the jobs of a stack, as Lightning writes them for jobs trained alone.

Lightning trains each kind of job for one batch, and its checkpoint of that is given the values of the job.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from holdfast.data.order import EVALUATION_ROWS
from holdfast.record.checkpoint import CheckpointIO, plain_values
from holdfast.record.history import SavedEpochs
from holdfast.runtime.isolation import isolated
from holdfast.single.build import build, build_trainer
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
        return self._inputs.module.bare(self._state_dict(saved, column))

    def checkpoint(self, job: int, saved: SavedEpochs, column: int) -> dict[str, Any]:
        """The checkpoint of a job at its saved epoch.

        Args:
            job: its index among the inputs.
            saved: the saved epochs of the stack in which it was trained.
            column: its index in that stack.
        """
        dry, inputs = self._dry_run(job), self._inputs
        epoch, iterations = int(saved.epoch[column]), int(saved.iterations[column])
        states = inputs.scheduler_states[job]
        changed = {
            "epoch": epoch,
            "global_step": iterations,
            "state_dict": self._state_dict(saved, column),
            "loops": self._loops(dry["loops"], epoch, iterations),
            "optimizer_states": [self._optimizer(dry["optimizer_states"][0], job, saved, column)],
            "lr_schedulers": [self._scheduler(dry["lr_schedulers"][0], job, epoch)] if states else [],
            "hyper_parameters": plain_values(inputs.hparams[inputs.hparams_of[job]]),
            "datamodule_hyper_parameters": plain_values(inputs.rows.hparams[job]),
        }
        return {key: changed.get(key, value) for key, value in dry.items()}

    def _tensor(self, saved: SavedEpochs, kind: str, name: str, column: int) -> Tensor:
        """One parameter of a job, or a part of the state of its optimizer."""
        return saved.tensors[kind][self._parts[name], column].reshape(self._shapes[name]).cpu()

    def _state_dict(self, saved: SavedEpochs, column: int) -> dict[str, Any]:
        trained = {name: self._tensor(saved, "parameters", name, column) for name in self._parts}
        state = self._inputs.module.state_dict()
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
            checkpoint_io = CheckpointIO()
            one_batch = dataclasses.replace(config.trainer, limit_train_batches=1, limit_val_batches=1)
            config = dataclasses.replace(config, trainer=one_batch)
            with isolated():
                module, data = build(config)
                data.train, data.val = self._inputs.rows.data.train, self._inputs.rows.data.val  # type: ignore[attr-defined]
                trainer = build_trainer(config, data, plugins=[checkpoint_io], logger=False, enable_checkpointing=False)
                trainer.fit_loop.max_epochs = 1
                trainer.fit(module, datamodule=data)
                self._dry_runs[key] = checkpoint_io.snapshot(trainer)
        return self._dry_runs[key]

    def _loops(self, loops: dict[str, Any], epoch: int, iterations: int) -> dict[str, Any]:
        """Lightning's loop counters at the end of an epoch."""
        current = iterations - epoch * self._inputs.rows.iterations
        validated = -(-len(self._inputs.rows.data.val) // EVALUATION_ROWS)
        fit = dict(loops["fit_loop"])
        batches, steps = "epoch_loop.batch_progress", "epoch_loop.automatic_optimization.optim_progress"
        validation, scheduled = "epoch_loop.val_loop.batch_progress", "epoch_loop.scheduler_progress"
        fit["epoch_loop.state_dict"] = {**fit["epoch_loop.state_dict"], "_batches_that_stepped": iterations}
        fit[batches] = counter(fit[batches], iterations, current)
        fit[batches]["is_last_batch"] = current == self._inputs.rows.iterations
        optimizer = fit[steps]["optimizer"]
        fit[steps] = {"optimizer": {key: counter(value, iterations, current) for key, value in optimizer.items()}}
        fit[validation] = counter(fit[validation], validated, validated)
        if self._inputs.scheduler_states[0]:
            fit[scheduled] = counter(fit[scheduled], epoch + 1, 1)
        done = counter(fit["epoch_progress"], epoch + 1, epoch + 1)
        # Lightning saves a checkpoint before it counts the epoch as completed
        fit["epoch_progress"] = {**done, **{part: {**done[part], "completed": epoch} for part in ("total", "current")}}
        return {**loops, "fit_loop": fit}


def counter(progress: Mapping[str, Any], total: int, current: int) -> dict[str, Any]:
    """One of Lightning's progress counters with other counts."""
    counts = {"total": total, "current": current}
    return {**progress, **{part: dict.fromkeys(progress[part], count) for part, count in counts.items()}}
