"""The checkpoints of the jobs of a stack, as Lightning writes them for jobs trained alone.

A dry run of one batch gives a checkpoint of Lightning's; the tensors and numbers of each job are filled in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holdfast.config.schema import Config
from holdfast.data.order import EVALUATION_ROWS
from holdfast.record.checkpoint import CheckpointIO, plain_values
from holdfast.record.history import SavedEpochs
from holdfast.runtime.isolation import isolated
from holdfast.single.build import build, build_trainer
from holdfast.stacked.inputs import StackInputs
from holdfast.stacked.template import Placeholders, archives


class StackCheckpoints:
    """Checkpoints of the jobs of a stack.

    Args:
        inputs: the inputs of the stack.
        dry_runs: a cache of the checkpoints of dry runs, by their structure; filled here.
    """

    def __init__(self, inputs: StackInputs, dry_runs: dict[str, dict[str, Any]]) -> None:
        self._inputs, self._configs, self._dry_runs = inputs, inputs.configs, dry_runs
        self._hparams = [plain_values(hparams) for hparams in inputs.hparams]
        self._data_hparams = {id(hparams): plain_values(hparams) for hparams in inputs.rows.hparams}
        named = {name: value for name, value in inputs.module.named_parameters() if value.requires_grad}
        self._shapes = {name: value.shape for name, value in named.items()}
        ends = np.cumsum([value.numel() for value in named.values()]).tolist()
        sizes = zip(named, ends, strict=True)
        self._parts = {name: slice(end - named[name].numel(), end) for name, end in sizes}
        names = {id(value): name for name, value in named.items()}
        entries = inputs.module.state_dict(keep_vars=True)
        # a state_dict holds a shared parameter under each of its names
        self._named = {key: names[id(value)] for key, value in entries.items() if id(value) in names}

    def weights(self, saved: SavedEpochs, jobs: Sequence[int]) -> list[bytes]:
        """The parameters of some jobs, as `model.pth`."""
        bare = self._inputs.module.bare
        return archives(lambda slots: bare(self._state_dict(slots)), Placeholders(), {}, self._tensors(saved, jobs))

    def checkpoints(self, saved: SavedEpochs, jobs: Sequence[int]) -> list[bytes]:
        """The checkpoints of some jobs, each of its saved epoch."""
        groups: dict[Hashable, list[int]] = {}
        for row, job in enumerate(jobs):
            groups.setdefault(self._structure(saved, job), []).append(row)
        checkpoints = [b""] * len(jobs)
        for rows in groups.values():
            some = self._of_one_structure(saved, [jobs[row] for row in rows])
            for row, checkpoint in zip(rows, some, strict=True):
                checkpoints[row] = checkpoint
        return checkpoints

    def _structure(self, saved: SavedEpochs, job: int) -> Hashable:
        """Everything in a checkpoint except its numbers and tensors."""
        states = self._inputs.scheduler_states[job]
        return (
            int(saved.epoch[job]),
            int(saved.iterations[job]),
            self._options(job),
            _outline(states[saved.epoch[job]] if states else None),
            _outline(self._hparams_of(job)),
            _outline(self._data_hparams_of(job)),
        )

    def _of_one_structure(self, saved: SavedEpochs, jobs: Sequence[int]) -> list[bytes]:
        """The checkpoints of jobs that differ in numbers and tensors alone."""
        job, numbers, dry = jobs[0], dict[str, NDArray[np.float64]](), self._dry_run(jobs[0])
        epoch, iterations = int(saved.epoch[job]), int(saved.iterations[job])

        def checkpoint(slots: Any) -> dict[str, Any]:
            parts = _Parts(self._inputs, jobs, epoch, slots, numbers)
            states = self._inputs.scheduler_states[job]
            schedulers = [parts.scheduler(dry["lr_schedulers"][0])] if states else []
            changed = {
                "epoch": epoch,
                "global_step": iterations,
                "state_dict": self._state_dict(slots),
                "loops": self._loops(dry["loops"], epoch, iterations),
                "optimizer_states": [parts.optimizer(dry["optimizer_states"][0], iterations, list(self._shapes))],
                "lr_schedulers": schedulers,
                "hyper_parameters": parts.numbered("hparams", self._hparams_of),
                "datamodule_hyper_parameters": parts.numbered("data_hparams", self._data_hparams_of),
            }
            return {key: changed.get(key, value) for key, value in dry.items()}

        return archives(checkpoint, Placeholders(), numbers, self._tensors(saved, jobs))

    def _tensors(self, saved: SavedEpochs, jobs: Sequence[int]) -> dict[str, Tensor]:
        """The saved tensors by `kind/parameter`, such as `exp_avg/network.weight`, each of shape `(jobs, ...)`."""
        tensors = {
            f"{kind}/{name}": tensor[part][:, list(jobs)].T.reshape(-1, *self._shapes[name]).cpu()
            for kind, tensor in saved.tensors.items()
            for name, part in self._parts.items()
        }
        return tensors | {f"parameters/{key}": tensors[f"parameters/{name}"] for key, name in self._named.items()}

    def _state_dict(self, slots: Any) -> dict[str, Any]:
        state: dict[str, Any] = self._inputs.module.state_dict()
        for name, value in state.items():
            if name in self._named:
                state[name] = slots.tensor(f"parameters/{name}", value)
            elif isinstance(value, Tensor):
                state[name] = value.cpu()
        return state

    def _options(self, job: int) -> Hashable:
        """The settings that decide which tensors the state of an optimizer has."""
        return tuple(bool(value) for value in self._configs[job].optimizer.values())

    def _hparams_of(self, job: int) -> dict[str, Any]:
        hparams: dict[str, Any] = self._hparams[self._inputs.hparams_of[job]]
        return hparams

    def _data_hparams_of(self, job: int) -> dict[str, Any]:
        hparams: dict[str, Any] = self._data_hparams[id(self._inputs.rows.hparams[job])]
        return hparams

    def _dry_run(self, job: int) -> dict[str, Any]:
        """A checkpoint that Lightning writes after one batch: only its structure is used."""
        config = self._configs[job]
        groups = (config.model, config.scheduler, config.trainer, config.precision, config.data["_target_"])
        key = repr((self._options(job), config.optimizer["_target_"], *groups))
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
        fit[batches] = _counter(fit[batches], iterations, current)
        fit[batches]["is_last_batch"] = current == self._inputs.rows.iterations
        optimizer = fit[steps]["optimizer"]
        fit[steps] = {"optimizer": {key: _counter(value, iterations, current) for key, value in optimizer.items()}}
        fit[validation] = _counter(fit[validation], validated, validated)
        if self._inputs.scheduler_states[0]:
            fit[scheduled] = _counter(fit[scheduled], epoch + 1, 1)
        done = _counter(fit["epoch_progress"], epoch + 1, epoch + 1)
        # Lightning saves a checkpoint before it counts the epoch as completed
        fit["epoch_progress"] = {**done, **{part: {**done[part], "completed": epoch} for part in ("total", "current")}}
        return {**loops, "fit_loop": fit}


class _Parts:
    """Parts of a checkpoint, with slots for the numbers and tensors that differ between jobs.

    Args:
        inputs: the inputs of the stack.
        jobs: the indexes of jobs of the same structure.
        epoch: the saved epoch.
        slots: gives a stand-in for every number and every tensor.
        numbers: filled with the numbers of the jobs by name, each of shape `(jobs,)`.
    """

    def __init__(
        self, inputs: StackInputs, jobs: Sequence[int], epoch: int, slots: Any, numbers: dict[str, NDArray[np.float64]]
    ) -> None:
        self._inputs, self._jobs, self._epoch = inputs, jobs, epoch
        self._slots, self._numbers = slots, numbers

    def optimizer(self, dry: Mapping[str, Any], iterations: int, names: Sequence[str]) -> dict[str, Any]:
        """The state of the optimizer for each parameter, and its settings."""
        state = {
            index: {
                # every other tensor has the shape of its parameter
                key: torch.full_like(value, iterations) if key == "step" else self._slots.tensor(f"{key}/{name}", value)
                for key, value in entry.items()
            }
            for (index, entry), name in zip(dry["state"].items(), names, strict=False)
        }
        group = dict(dry["param_groups"][0])
        group |= self.numbered("optimizer", lambda job: _settings(self._inputs.configs[job], group))
        group["lr"] = self._rate()
        if "initial_lr" in group:
            group["initial_lr"] = self._initial()
        return {"state": state, "param_groups": [group]}

    def scheduler(self, dry: Mapping[str, Any]) -> dict[str, Any]:
        """The state of the scheduler."""
        state = self.numbered("scheduler", lambda job: self._inputs.scheduler_states[job][self._epoch])
        return {**dry, **state, "base_lrs": [self._initial()], "_last_lr": [self._rate()]}

    def numbered(self, name: str, of: Callable[[int], Any]) -> Any:
        """The value of a job, with a slot for each float."""
        return _numbered(of(self._jobs[0]), lambda path: self._number(f"{name}/{path}", lambda job: _at(of(job), path)))

    def _rate(self) -> float:
        return self._number("rate", lambda job: self._inputs.learning_rates[self._epoch + 1, job])

    def _initial(self) -> float:
        return self._number("lr", lambda job: self._inputs.configs[job].optimizer["lr"])

    def _number(self, name: str, of: Callable[[int], Any]) -> float:
        if name not in self._numbers:
            self._numbers[name] = np.array([of(job) for job in self._jobs], dtype=np.float64)
        value: float = self._slots.number(name)
        return value


def _settings(config: Config, group: Mapping[str, Any]) -> dict[str, Any]:
    """The optimizer's settings that torch keeps in a parameter group, without the rate, lists as tuples."""
    settings = {key: value for key, value in config.optimizer.items() if key in group and key != "lr"}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}


def _counter(progress: Mapping[str, Any], total: int, current: int) -> dict[str, Any]:
    """One of Lightning's progress counters with other counts."""
    counts = {"total": total, "current": current}
    return {**progress, **{part: dict.fromkeys(progress[part], count) for part, count in counts.items()}}


def _numbered(value: Any, number: Callable[[str], float], path: str = "") -> Any:
    """The same containers with each float replaced by `number(path)`."""
    if isinstance(value, Mapping):
        return {key: _numbered(item, number, f"{path}/{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_numbered(item, number, f"{path}/{index}") for index, item in enumerate(value))
    return number(path[1:]) if isinstance(value, float) else value


def _at(value: Any, path: str) -> Any:
    """The value at a path of `_numbered`."""
    return reduce(lambda node, key: node[int(key) if isinstance(node, (list, tuple)) else key], path.split("/"), value)


def _outline(value: Any) -> str:
    """Containers without their floats, as text."""
    return repr(_numbered(value, lambda path: 0.0))
