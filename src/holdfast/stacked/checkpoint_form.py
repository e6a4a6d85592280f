"""The checkpoints of stacked jobs: each as Lightning writes it for a job alone, all made from one of its own."""

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
from holdfast.single.assemble import assemble, build
from holdfast.single.isolation import isolated
from holdfast.stacked.inputs import Members
from holdfast.stacked.template import Marks, archives


class Snapshots:
    """Checkpoints of the jobs of a stack.

    Args:
        members: the jobs.
        forms: of checkpoints, by their structure; filled here.
    """

    def __init__(self, members: Members, forms: dict[str, dict[str, Any]]) -> None:
        self._members, self._configs, self._forms = members, members.configs, forms
        self._hparams = [plain_values(hparams) for hparams in members.hparams]
        self._data_hparams = {id(hparams): plain_values(hparams) for hparams in members.data_hparams}
        named = {name: value for name, value in members.module.named_parameters() if value.requires_grad}
        self._shapes = {name: value.shape for name, value in named.items()}
        ends = np.cumsum([value.numel() for value in named.values()]).tolist()
        sizes = zip(named, ends, strict=True)
        self._parts = {name: slice(end - named[name].numel(), end) for name, end in sizes}
        names = {id(value): name for name, value in named.items()}
        held = members.module.state_dict(keep_vars=True)
        # a shared parameter stands in a state_dict under each of its names
        self._named = {key: names[id(value)] for key, value in held.items() if id(value) in names}

    def weights(self, kept: SavedEpochs, jobs: Sequence[int]) -> list[bytes]:
        """The parameters of some jobs, as `model.pth`."""
        return archives(self._state_dict, Marks(), {}, self._tensors(kept, jobs))

    def checkpoints(self, kept: SavedEpochs, jobs: Sequence[int]) -> list[bytes]:
        """The checkpoints of some jobs, each of its own epoch."""
        alike: dict[Hashable, list[int]] = {}
        for place, job in enumerate(jobs):
            alike.setdefault(self._structure(kept, job), []).append(place)
        made = [b""] * len(jobs)
        for places in alike.values():
            some = self._alike(kept, [jobs[place] for place in places])
            for place, checkpoint in zip(places, some, strict=True):
                made[place] = checkpoint
        return made

    def _structure(self, kept: SavedEpochs, job: int) -> Hashable:
        """All of a checkpoint but its numbers and tensors."""
        remembered = self._members.schedules[job]
        return (
            int(kept.epoch[job]),
            int(kept.iterations[job]),
            self._options(job),
            _outline(remembered[kept.epoch[job]] if remembered else None),
            _outline(self._hparams_of(job)),
            _outline(self._data_hparams_of(job)),
        )

    def _alike(self, kept: SavedEpochs, jobs: Sequence[int]) -> list[bytes]:
        """The checkpoints of jobs that differ in nothing but numbers and tensors."""
        job, numbers, dry = jobs[0], dict[str, NDArray[np.float64]](), self._dry_run(jobs[0])
        epoch, iterations = int(kept.epoch[job]), int(kept.iterations[job])

        def tree(slots: Any) -> dict[str, Any]:
            form = _Form(self._members, jobs, epoch, slots, numbers)
            remembered = self._members.schedules[job]
            schedulers = [form.scheduler(dry["lr_schedulers"][0])] if remembered else []
            changed = {
                "epoch": epoch,
                "global_step": iterations,
                "state_dict": self._state_dict(slots),
                "loops": self._counted(dry["loops"], epoch, iterations),
                "optimizer_states": [form.optimizer(dry["optimizer_states"][0], iterations, list(self._shapes))],
                "lr_schedulers": schedulers,
                "hyper_parameters": form.numbered("hparams", self._hparams_of),
                "datamodule_hyper_parameters": form.numbered("data_hparams", self._data_hparams_of),
            }
            return {key: changed.get(key, value) for key, value in dry.items()}

        return archives(tree, Marks(), numbers, self._tensors(kept, jobs))

    def _tensors(self, kept: SavedEpochs, jobs: Sequence[int]) -> dict[str, Tensor]:
        """What was kept, by what it is and of which parameter, each with the jobs first."""
        found = {
            f"{what}/{name}": tensor[part][:, list(jobs)].T.reshape(-1, *self._shapes[name]).cpu()
            for what, tensor in kept.tensors.items()
            for name, part in self._parts.items()
        }
        return found | {f"parameters/{key}": found[f"parameters/{name}"] for key, name in self._named.items()}

    def _state_dict(self, slots: Any) -> dict[str, Any]:
        state: dict[str, Any] = self._members.module.state_dict()
        for name, value in state.items():
            if name in self._named:
                state[name] = slots.tensor(f"parameters/{name}", value)
            elif isinstance(value, Tensor):
                state[name] = value.cpu()
        return state

    def _options(self, job: int) -> Hashable:
        """What decides which tensors an optimizer remembers."""
        return tuple(bool(value) for value in self._configs[job].optimizer.values())

    def _hparams_of(self, job: int) -> dict[str, Any]:
        hparams: dict[str, Any] = self._hparams[self._members.hparams_of[job]]
        return hparams

    def _data_hparams_of(self, job: int) -> dict[str, Any]:
        hparams: dict[str, Any] = self._data_hparams[id(self._members.data_hparams[job])]
        return hparams

    def _dry_run(self, job: int) -> dict[str, Any]:
        """A checkpoint of Lightning's own after one batch: its numbers mean nothing, its form is right."""
        config = self._configs[job]
        groups = (config.model, config.scheduler, config.trainer, config.precision, config.data["_target_"])
        key = repr((self._options(job), config.optimizer["_target_"], *groups))
        if key not in self._forms:
            taker, short = (
                CheckpointIO(),
                dataclasses.replace(config.trainer, limit_train_batches=1, limit_val_batches=1),
            )
            config = dataclasses.replace(config, trainer=short)
            with isolated():
                module, data = build(config)
                data.train, data.val = self._members.data.train, self._members.data.val  # type: ignore[attr-defined]
                trainer = assemble(config, data, plugins=[taker], logger=False, enable_checkpointing=False)
                trainer.fit_loop.max_epochs = 1
                trainer.fit(module, datamodule=data)
                self._forms[key] = taker.snapshot(trainer)
        return self._forms[key]

    def _counted(self, loops: dict[str, Any], epoch: int, iterations: int) -> dict[str, Any]:
        """Lightning's counters at the end of an epoch."""
        current = iterations - epoch * self._members.iterations
        validated = -(-len(self._members.data.val) // EVALUATION_ROWS)
        fit = dict(loops["fit_loop"])
        batches, steps = "epoch_loop.batch_progress", "epoch_loop.automatic_optimization.optim_progress"
        validation, scheduled = "epoch_loop.val_loop.batch_progress", "epoch_loop.scheduler_progress"
        fit["epoch_loop.state_dict"] = {**fit["epoch_loop.state_dict"], "_batches_that_stepped": iterations}
        fit[batches] = _counter(fit[batches], iterations, current)
        fit[batches]["is_last_batch"] = current == self._members.iterations
        optimizer = fit[steps]["optimizer"]
        fit[steps] = {"optimizer": {key: _counter(value, iterations, current) for key, value in optimizer.items()}}
        fit[validation] = _counter(fit[validation], validated, validated)
        if self._members.schedules[0]:
            fit[scheduled] = _counter(fit[scheduled], epoch + 1, 1)
        done = _counter(fit["epoch_progress"], epoch + 1, epoch + 1)
        # the epoch is not over yet when it is kept
        fit["epoch_progress"] = {**done, **{part: {**done[part], "completed": epoch} for part in ("total", "current")}}
        return {**loops, "fit_loop": fit}


class _Form:
    """Parts of a checkpoint with slots in the place of what differs between jobs.

    Args:
        members: all jobs.
        jobs: those that differ in nothing else.
        epoch: the one that is kept.
        slots: has a stand-in for every number and every tensor.
        numbers: filled with those of the jobs, by name.
    """

    def __init__(
        self, members: Members, jobs: Sequence[int], epoch: int, slots: Any, numbers: dict[str, NDArray[np.float64]]
    ) -> None:
        self._members, self._jobs, self._epoch = members, jobs, epoch
        self._slots, self._numbers = slots, numbers

    def optimizer(self, dry: Mapping[str, Any], iterations: int, names: Sequence[str]) -> dict[str, Any]:
        """What an optimizer remembers of each parameter, and its settings."""
        state = {
            index: {
                # every other tensor is of the shape of its parameter
                key: torch.full_like(value, iterations) if key == "step" else self._slots.tensor(f"{key}/{name}", value)
                for key, value in held.items()
            }
            for (index, held), name in zip(dry["state"].items(), names, strict=False)
        }
        group = dict(dry["param_groups"][0])
        group |= self.numbered("optimizer", lambda job: _settings(self._members.configs[job], group))
        group["lr"] = self._rate()
        if "initial_lr" in group:
            group["initial_lr"] = self._initial()
        return {"state": state, "param_groups": [group]}

    def scheduler(self, dry: Mapping[str, Any]) -> dict[str, Any]:
        """What a scheduler remembers."""
        remembered = self.numbered("scheduler", lambda job: self._members.schedules[job][self._epoch])
        return {**dry, **remembered, "base_lrs": [self._initial()], "_last_lr": [self._rate()]}

    def numbered(self, name: str, of: Callable[[int], Any]) -> Any:
        """What a job has, with a slot for each number that is not whole."""
        return _numbered(of(self._jobs[0]), lambda path: self._number(f"{name}/{path}", lambda job: _at(of(job), path)))

    def _rate(self) -> float:
        return self._number("rate", lambda job: self._members.rates[self._epoch + 1, job])

    def _initial(self) -> float:
        return self._number("lr", lambda job: self._members.configs[job].optimizer["lr"])

    def _number(self, name: str, of: Callable[[int], Any]) -> float:
        if name not in self._numbers:
            self._numbers[name] = np.array([of(job) for job in self._jobs], dtype=np.float64)
        value: float = self._slots.number(name)
        return value


def _settings(config: Config, group: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an optimizer that torch keeps, but for the rate, with torch's tuples."""
    kept = {key: value for key, value in config.optimizer.items() if key in group and key != "lr"}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in kept.items()}


def _counter(progress: Mapping[str, Any], total: int, current: int) -> dict[str, Any]:
    """One of Lightning's counters with other counts."""
    counts = {"total": total, "current": current}
    return {**progress, **{part: dict.fromkeys(progress[part], count) for part, count in counts.items()}}


def _numbered(value: Any, number: Callable[[str], float], path: str = "") -> Any:
    """The same containers with another number in the place of every one that is not whole, by its path."""
    if isinstance(value, Mapping):
        return {key: _numbered(item, number, f"{path}/{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_numbered(item, number, f"{path}/{place}") for place, item in enumerate(value))
    return number(path[1:]) if isinstance(value, float) else value


def _at(value: Any, path: str) -> Any:
    """What lies at a path of `_numbered`."""
    return reduce(lambda node, key: node[int(key) if isinstance(node, (list, tuple)) else key], path.split("/"), value)


def _outline(value: Any) -> str:
    """Containers without their numbers, as text."""
    return repr(_numbered(value, lambda path: 0.0))
