"""What a stack is trained from: rows, initial parameters, learning rates, and the values in which its jobs differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from holdfast.arithmetic.job_values import JobValues, differing_values
from holdfast.config.options import OPTIONS
from holdfast.config.schema import Config
from holdfast.model import Module
from holdfast.single.build import build_module, build_trainer, is_table
from holdfast.stacked.schedule import learning_rates
from holdfast.stacked.streams import StackRows
from holdfast.usercode.state import State, read
from holdfast.usercode.variables import globals_restored
from holdfast.usercode.watch import UnstackableError


def is_shipped(config: Config) -> bool:
    """Whether model and data of a job ship with Holdfast, and so are tested in stacks."""
    return config.model["_target_"] in OPTIONS and config.data["_target_"] in OPTIONS


class StackInputs:
    """The jobs of a stack, before they are trained.

    Args:
        configs: the configuration of each job; they share a structure, as `holdfast.planning.plan` finds it.
        short: keep few rows, for a trial.

    Raises:
        UnstackableError: the jobs cannot be trained together after all.

    Attributes:
        configs: the configuration of each job; `first` is that of the first job.
        shipped: whether model and data ship with Holdfast.
        rows: their data sets, and the order in which each job visits its rows.
        trainer: a Trainer that knows the device and the precision.
        learning_rates: the learning rate of every epoch, and of the one after the last, shape `(epochs + 1, jobs)`.
        scheduler_states: for each job the state of its scheduler after every epoch; empty without a scheduler.
        module: the module that stands for all jobs, but where they have tables that are encoded differently.
        initial_parameters: shape `(parameters, jobs)`.
        job_values: the values, beside the parameters, in which the modules of the jobs differ.
        modules: every different module, for a trial; `hparams_of` is the index of each job's.
        hparams: the hyperparameters of every different module; `hparams_of` is the index of each job's.
        hparams_of: shape `(jobs,)`.
    """

    def __init__(self, configs: Sequence[Config], *, short: bool = False) -> None:
        self.configs, self.first, self.short = configs, configs[0], short
        self.shipped = is_shipped(self.first)
        self.rows = StackRows(configs, shipped=self.shipped, short=short)
        self.trainer = build_trainer(self.first, self.rows.data, logger=False, enable_checkpointing=False)
        self.learning_rates, self.scheduler_states = learning_rates(configs)
        self.modules: list[Module] = []
        self.hparams: list[dict[str, Any]] = []
        self.module, self.initial_parameters, self.job_values = self._build_modules()

    def _build_modules(self) -> tuple[Module, Tensor, list[JobValues]]:
        """Build each different module once."""
        # globals that building one module changes must not reach the next
        with nullcontext(lambda: None) if self.shipped else globals_restored() as restore:
            return self._build_all(restore)

    def _build_all(self, restore: Callable[[], object]) -> tuple[Module, Tensor, list[JobValues]]:
        indexes: dict[tuple[str, int, str | None, int], int] = {}
        vectors, hparams_of, states = [], [], list[State]()
        self._of_tables: dict[int, Module] = {}
        for index, config in enumerate(self.configs):
            table = int(self.rows.dataset_of[index]) if is_table(config) else 0
            key = (repr(config.model), config.seed, config.init_weights, table)
            if key not in indexes:
                indexes[key] = len(indexes)
                module = self._build(config)
                if not self.shipped:
                    states.append(read(module))
                restore()
                _check_constants(self._of_tables.setdefault(table, module), module)
                vectors.append(torch.cat([value.detach().flatten() for value in _trained(module).values()]))
                self.hparams.append(dict(module.hparams.items()))
                if self.short:
                    self.modules.append(module)
            hparams_of.append(indexes[key])
        self.hparams_of = np.array(hparams_of)
        device = self.trainer.strategy.root_device
        initial = torch.stack(vectors, dim=1)[:, hparams_of].to(device)  # (parameters, jobs)
        if len({state.structure() for state in states}) > 1:
            name = type(self._of_tables[0]).__name__
            raise UnstackableError(f"the modules {name} of these jobs differ in more than numbers")
        differing = differing_values(states[0], [states[index] for index in hparams_of], initial) if states else []
        first, *_ = (module.to(device) for module in self._of_tables.values())
        return first, initial, differing

    def module_of(self, dataset: int) -> Module:
        """The module that stands for the jobs with a data set."""
        return self._of_tables.get(dataset, self.module)

    def _build(self, config: Config) -> Module:
        module = build_module(config)
        assert isinstance(module, Module)
        self.trainer.precision_plugin.convert_module(module)
        if len({value.dtype for value in _trained(module).values()}) > 1:
            raise UnstackableError(f"{type(module).__name__} has parameters of several types")
        return module


def _trained(module: Module) -> dict[str, Tensor]:
    return {name: value for name, value in module.named_parameters() if value.requires_grad}


def _check_constants(first: Module, module: Module) -> None:
    """Check that the untrained entries of two modules' `state_dict` are the same."""
    if module is first:
        return
    expected, entries = (
        {name: value for name, value in each.state_dict(keep_vars=True).items() if not is_trained(value)}
        for each in (first, module)
    )
    if expected.keys() != entries.keys() or not all(is_equal(value, expected[name]) for name, value in entries.items()):
        raise UnstackableError(f"{type(module).__name__} has buffers, or a state, that differ from job to job")


def is_trained(value: Any) -> bool:
    """Whether an entry of a `state_dict` is a trained parameter.

    >>> is_trained(nn.Parameter(torch.zeros(1))), is_trained(torch.zeros(1))
    (True, False)
    """
    return isinstance(value, nn.Parameter) and value.requires_grad


def is_equal(one: Any, other: Any) -> bool:
    """Whether two entries of a `state_dict` are the same."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return repr(one) == repr(other)
