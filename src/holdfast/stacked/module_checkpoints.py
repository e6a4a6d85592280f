"""The checkpoints of jobs whose steps were called in a stack, as Lightning writes them for jobs trained alone."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from holdfast.config.schema import Config
from holdfast.model import Module
from holdfast.record.checkpoint import plain_values
from holdfast.record.history import SavedEpochs
from holdfast.runtime.isolation import isolated
from holdfast.single.build import build, build_module
from holdfast.stacked.checkpoints import Counts, dry_run


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
        counts = Counts(epoch, iterations, self.iterations, plain["batches"][1], plain["schedules"])
        module, data = build(self._configs[number], initial=False)
        hparams = {"hyper_parameters": module.hparams, "datamodule_hyper_parameters": data.hparams}
        changed = {
            "epoch": epoch,
            "global_step": iterations,
            "state_dict": self._state_dict(saved, column),
            "loops": counts.in_loops(dry["loops"]),
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
        # copies, since a file holds all of the memory that a tensor is a view of, here that of all jobs
        return {
            name: part.reshape(self._dry.shapes[name]).clone() for name, part in zip(names[group], parts, strict=True)
        }

    def _state_dict(self, saved: SavedEpochs, column: int) -> dict[str, Any]:
        stored: dict[str, Tensor] = {}
        for group in range(len(saved.plain[column]["names"])):
            stored |= self._parts(saved, "parameters", group, column)
        for key, value in saved.tensors.items():
            if key.startswith("buffer/"):
                name = key.removeprefix("buffer/")
                stored[name] = value[:, column].cpu().reshape(self._dry.shapes[name]).clone()
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
                    state[index][key] = saved.tensors[kind][0, column].cpu().to(value.dtype).clone()
                else:
                    state[index][key] = self._parts(saved, kind, group, column)[name]
        groups = [
            {**before, **now, "params": before["params"]}
            for before, now in zip(dry["param_groups"], plain["param_groups"], strict=True)
        ]
        return {"state": state, "param_groups": groups}


def _dry_run(config: Config) -> _DryRun:
    """Let Lightning train a job for one batch."""
    with isolated():
        trainer, checkpoint = dry_run(config)
        module = trainer.lightning_module
        named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        names = {id(value): name for name, value in named.items()}
        optimized = [names[id(value)] for group in trainer.optimizers[0].param_groups for value in group["params"]]
        entries = module.state_dict(keep_vars=True)
        canonical = {key: names[id(value)] for key, value in entries.items() if id(value) in names}
        shapes = {name: value.shape for name, value in named.items()}
        return _DryRun(checkpoint, shapes, optimized, canonical)
