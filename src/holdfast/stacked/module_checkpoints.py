"""The checkpoints of jobs whose steps were called in a stack, as Lightning writes them for jobs trained alone."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from holdfast.config.schema import Config
from holdfast.model import Module
from holdfast.record.checkpoint import CheckpointIO, plain_values
from holdfast.record.history import SavedEpochs
from holdfast.runtime.isolation import isolated
from holdfast.single.build import build, build_module, build_trainer, seed_rows
from holdfast.stacked.checkpoints import counter


class _DryRun(NamedTuple):
    """A checkpoint that Lightning writes after one batch, and what the module and its optimizer are made of.

    Attributes:
        checkpoint: as Lightning writes it.
        shapes: of the parameters and buffers, by name.
        optimized: names of the parameters of the optimizer, in order.
        canonical: the name under which each entry of the `state_dict` is stored.
    """

    checkpoint: dict[str, Any]
    shapes: dict[str, torch.Size]
    optimized: list[str]
    canonical: dict[str, str]


class ModuleCheckpoints:
    """Makes the checkpoints of the jobs of one stack.

    Args:
        configs: configurations of some of its jobs.
        plain: of the saved epoch of one of them.

    Attributes:
        iterations: number of iterations of an epoch.
    """

    def __init__(self, configs: list[Config], plain: Mapping[str, Any]) -> None:
        self._configs = configs
        self.iterations: int = plain["batches"][0]
        self._dry = _dry_run(configs[0])

    def weights(self, number: int, saved: SavedEpochs, column: int) -> dict[str, Any]:
        """The content of `model.pth` of a job, at its saved epoch."""
        state = self._state_dict(saved, column)
        module = build_module(self._configs[number], initial=False)
        return module.bare(state) if isinstance(module, Module) else dict(state)

    def checkpoint(self, number: int, saved: SavedEpochs, column: int) -> dict[str, Any]:
        """The checkpoint of a job at its saved epoch.

        Args:
            number: its index among the configurations.
            saved: the saved epochs of the stack in which it was trained.
            column: its index in that stack.
        """
        dry, plain = self._dry.checkpoint, saved.plain[column]
        epoch, iterations = int(saved.epoch[column]), int(saved.iterations[column])
        module, data = build(self._configs[number], initial=False)
        hparams = {"hyper_parameters": module.hparams, "datamodule_hyper_parameters": data.hparams}
        changed = {
            "epoch": epoch,
            "global_step": iterations,
            "state_dict": self._state_dict(saved, column),
            "loops": _loops(dry["loops"], epoch, iterations, plain),
            "optimizer_states": [self._optimizer(dry["optimizer_states"][0], saved, column)],
            "lr_schedulers": plain["lr_schedulers"],
            **{key: plain_values(dict(value)) for key, value in hparams.items()},
        }
        return {key: changed.get(key, value) for key, value in dry.items()}

    def _parts(self, saved: SavedEpochs, kind: str, group: int, column: int) -> dict[str, Tensor]:
        """The parts of a vector of one group of the optimizer, by the name of the parameter."""
        names, vector = saved.plain[column]["names"], saved.tensors[kind][:, column].cpu()
        sizes = [[self._dry.shapes[name].numel() for name in some] for some in names]
        if kind == "parameters":
            vector = torch.split(vector, [sum(some) for some in sizes])[group]
        parts = torch.split(vector, sizes[group])
        return {name: part.reshape(self._dry.shapes[name]) for name, part in zip(names[group], parts, strict=True)}

    def _state_dict(self, saved: SavedEpochs, column: int) -> dict[str, Any]:
        stored: dict[str, Tensor] = {}
        for group in range(len(saved.plain[column]["names"])):
            stored |= self._parts(saved, "parameters", group, column)
        for key, value in saved.tensors.items():
            if key.startswith("buffer/"):
                name = key.removeprefix("buffer/")
                stored[name] = value[:, column].cpu().reshape(self._dry.shapes[name])
        state: dict[str, Any] = copy.copy(self._dry.checkpoint["state_dict"])
        state.update({key: stored[name] for key, name in self._dry.canonical.items() if key in state})
        return state

    def _optimizer(self, dry: Mapping[str, Any], saved: SavedEpochs, column: int) -> dict[str, Any]:
        """The state of the optimizer for each parameter, and its settings."""
        plain, state = saved.plain[column], dict[int, dict[str, Any]]()
        group_of = {name: group for group, names in enumerate(plain["names"]) for name in names}
        for index, entry in dry["state"].items():
            name = self._dry.optimized[index]
            group = group_of[name]
            state[index] = {}
            for key, value in entry.items():
                kind = f"optimizer/{group}/{key}"
                if kind not in saved.tensors:
                    state[index][key] = value
                elif len(saved.tensors[kind]) == 1 and value.dim() == 0:
                    state[index][key] = saved.tensors[kind][0, column].cpu().to(value.dtype)
                else:
                    state[index][key] = self._parts(saved, kind, group, column)[name]
        groups = [
            {**before, **now, "params": before["params"]}
            for before, now in zip(dry["param_groups"], plain["param_groups"], strict=True)
        ]
        return {"state": state, "param_groups": groups}


def _dry_run(config: Config) -> _DryRun:
    """Let Lightning train a job for one batch."""
    checkpoint_io = CheckpointIO()
    one_batch = dataclasses.replace(config.trainer, limit_train_batches=1, limit_val_batches=1)
    config = dataclasses.replace(config, trainer=one_batch)
    with isolated():
        module, data = build(config)
        trainer = build_trainer(config, data, plugins=[checkpoint_io], logger=False, enable_checkpointing=False)
        trainer.fit_loop.max_epochs = 1
        seed_rows()
        trainer.fit(module, datamodule=data)
        named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        names = {id(value): name for name, value in named.items()}
        optimized = [names[id(value)] for group in trainer.optimizers[0].param_groups for value in group["params"]]
        entries = module.state_dict(keep_vars=True)
        canonical = {key: names[id(value)] for key, value in entries.items() if id(value) in names}
        shapes = {name: value.shape for name, value in named.items()}
        return _DryRun(checkpoint_io.snapshot(trainer), shapes, optimized, canonical)


def _loops(loops: dict[str, Any], epoch: int, iterations: int, plain: Mapping[str, Any]) -> dict[str, Any]:
    """Lightning's loop counters at the end of an epoch."""
    per_epoch, validated = plain["batches"]
    current = iterations - epoch * per_epoch
    fit = dict(loops["fit_loop"])
    batches, steps = "epoch_loop.batch_progress", "epoch_loop.automatic_optimization.optim_progress"
    validation, scheduled = "epoch_loop.val_loop.batch_progress", "epoch_loop.scheduler_progress"
    fit["epoch_loop.state_dict"] = {**fit["epoch_loop.state_dict"], "_batches_that_stepped": iterations}
    fit[batches] = counter(fit[batches], iterations, current)
    fit[batches]["is_last_batch"] = current == per_epoch
    optimizer = fit[steps]["optimizer"]
    fit[steps] = {"optimizer": {key: counter(value, iterations, current) for key, value in optimizer.items()}}
    if validated:
        fit[validation] = counter(fit[validation], validated, validated)
    total = now = 0
    for interval, frequency, plateau in plain["schedules"]:
        if interval == "step":
            total += epoch * (per_epoch // frequency) + current // frequency
            now += current // frequency
        elif plateau:
            total += epoch // frequency
        elif current == per_epoch:
            total += (epoch + 1) // frequency
            now += (epoch + 1) % frequency == 0
        else:
            total += epoch // frequency
    if plain["schedules"]:
        fit[scheduled] = counter(fit[scheduled], total, now)
    done = counter(fit["epoch_progress"], epoch + 1, epoch + 1)
    # Lightning saves a checkpoint before it counts the epoch as completed
    fit["epoch_progress"] = {**done, **{part: {**done[part], "completed": epoch} for part in ("total", "current")}}
    return {**loops, "fit_loop": fit}
