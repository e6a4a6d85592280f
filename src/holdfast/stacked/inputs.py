"""What the jobs of a stack bring along: rows and their order, initial parameters, learning rates."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from holdfast.config.options import OPTIONS, source
from holdfast.config.schema import Config
from holdfast.data import DataModule, Rows
from holdfast.model import Module
from holdfast.single.build import build_data, build_module, build_trainer, set_up
from holdfast.stacked.numbers import JobNumbers, differing
from holdfast.stacked.schedule import rates
from holdfast.usercode.state import State, read
from holdfast.usercode.variables import globals_restored
from holdfast.usercode.watch import UnstackableError


def is_shipped(config: Config) -> bool:
    """Whether model and data of a job ship with Holdfast: the tests of the stack vouch for these."""
    return config.model["_target_"] in OPTIONS and config.data["_target_"] in OPTIONS


def shorten(data: DataModule) -> None:
    """Keep as many rows as a trial needs: two full batches and a short one, and some to validate on."""
    size = len(data.train) if data.batch_size == "full" else data.batch_size
    data.train = _head(data.train, 2 * size + (size + 1) // 2)
    data.val = _head(data.val, TRIAL_ROWS)


def _head(rows: Rows, number: int) -> Rows:
    # copies: a loss that changes its rows in place must not reach the user's
    return Rows(rows.x[:number].clone(), rows.y[:number].clone())


TRIAL_ROWS = 100
"""Validation rows of a trial."""


class Members:
    """The jobs of a stack, before they are trained.

    Args:
        configs: of jobs that `sweep.plan` has put together.
        short: keep few rows, for a trial.

    Raises:
        UnstackableError: they cannot be trained together after all.

    Attributes:
        configs: of each job; `first` is that of the first.
        data: one of their data modules.
        train, val: the rows of every data set among them.
        source_of: the data set of each job, shape `(jobs,)`.
        streams: each order of rows: its data set, its seed, and whether it is shuffled.
        stream_of: the stream of each job, shape `(jobs,)`.
        trainer: says where and how precisely they are trained.
        module: one of their modules.
        start: their initial parameters, shape `(parameters, jobs)`.
        rates: their learning rates in every epoch, and after the last, shape `(epochs + 1, jobs)`.
        schedules: what each one's scheduler remembers after every epoch.
        numbers: the numbers in which the jobs differ beside their parameters.
        modules: every different module, for a trial; `hparams_of` says which is a job's.
        hparams: the hyperparameters of every different module; `hparams_of` says which are a job's.
        data_hparams: the hyperparameters of the data module of each job.
    """

    def __init__(self, configs: Sequence[Config], *, short: bool = False) -> None:
        self.configs, self.first, self.short = configs, configs[0], short
        self.shipped = is_shipped(self.first)
        self.train: list[Rows] = []
        self.val: list[Rows] = []
        self.data_hparams: list[dict[str, Any]] = []
        self.data = self._read()
        self.trainer = build_trainer(self.first, self.data, logger=False, enable_checkpointing=False)
        self.rates, self.schedules = rates(configs)
        self.module, self.start, self.numbers = self._initial()

    @property
    def batch_size(self) -> int:
        """Rows of an iteration."""
        size = self.data.batch_size
        return len(self.data.train) if size == "full" else size

    @property
    def iterations(self) -> int:
        """Of an epoch."""
        return -(-len(self.data.train) // self.batch_size)

    def _read(self) -> DataModule:
        """The rows of every job, and the order in which it visits them."""
        modules: dict[str, DataModule] = {}
        hparams: dict[str, dict[str, Any]] = {}
        sources: dict[str, int] = {}
        of_data: dict[str, int] = {}
        streams: dict[tuple[int, int, bool], int] = {}
        stream_of, source_of = [], []
        for config in self.configs:
            key = repr(config.data)
            if key not in modules:
                data = modules[key] = _build_data(config)
                hparams[key] = dict(data.hparams)
                origin = source(config.data) if self.shipped else ""
                if origin not in sources:
                    set_up(data)
                    if self.short:
                        shorten(data)
                    # what the rows of the user's own are made from is not known: those that are equal are held once
                    origin = origin or _rows_digest(data)
                if origin not in sources:
                    sources[origin] = len(sources)
                    self.train.append(data.train)
                    self.val.append(data.val)
                of_data[key] = sources[origin]
            data = modules[key]
            stream = (of_data[key], data.order_seed, data.shuffle)
            stream_of.append(streams.setdefault(stream, len(streams)))
            source_of.append(of_data[key])
            self.data_hparams.append(hparams[key])
        self.streams = list(streams)
        self.stream_of, self.source_of = np.array(stream_of), np.array(source_of)
        self._check_rows(list(modules.values()))
        return modules[repr(self.first.data)]

    def _check_rows(self, modules: Sequence[DataModule]) -> None:
        for rows in (self.train, self.val):
            shapes = {(part.x.shape, part.y.shape, part.x.dtype, part.y.dtype) for part in rows}
            if len(shapes) > 1:
                raise UnstackableError(f"their rows have different shapes: {sorted(map(str, shapes))}")
        if len({data.batch_size for data in modules}) > 1:
            raise UnstackableError("their data modules set different batch sizes")

    def _initial(self) -> tuple[Module, Tensor, list[JobNumbers]]:
        """A module, the initial parameters of all jobs, shape `(parameters, jobs)`, and their numbers."""
        indexes: dict[tuple[str, int], int] = {}
        vectors, of_job, states = [], [], list[State]()
        self.modules, self.hparams = list[Module](), []
        shared: Module | None = None
        for config in self.configs:
            key = (repr(config.model), config.seed)
            if key not in indexes:
                indexes[key] = len(indexes)
                with nullcontext() if self.shipped else globals_restored():  # as if no other job had been built before
                    module = self._build(config)
                    if not self.shipped:
                        states.append(read(module))
                shared = shared or module
                _check_constants(shared, module)
                vectors.append(torch.cat([value.detach().flatten() for value in _trained(module).values()]))
                self.hparams.append(dict(module.hparams.items()))
                if self.short:
                    self.modules.append(module)
            of_job.append(indexes[key])
        assert shared is not None
        self.hparams_of = np.array(of_job)
        start = torch.stack(vectors, dim=1)[:, of_job].to(self.trainer.strategy.root_device)
        if len({state.structure() for state in states}) > 1:
            raise UnstackableError(f"the modules {type(shared).__name__} of these jobs differ in more than numbers")
        numbers = differing(states[0], [states[index] for index in of_job], start) if states else []
        return shared.to(self.trainer.strategy.root_device), start, numbers

    def _build(self, config: Config) -> Module:
        module = build_module(config)
        assert isinstance(module, Module)
        self.trainer.precision_plugin.convert_module(module)
        if len({value.dtype for value in _trained(module).values()}) > 1:
            raise UnstackableError(f"{type(module).__name__} has parameters of several types")
        return module


def _trained(module: Module) -> dict[str, Tensor]:
    return {name: value for name, value in module.named_parameters() if value.requires_grad}


def _build_data(config: Config) -> DataModule:
    data = build_data(config.data)
    assert isinstance(data, DataModule)
    return data


def _check_constants(shared: Module, module: Module) -> None:
    """Make sure that two modules keep the same in their checkpoints, but for what is trained."""
    if module is shared:
        return
    kept = [
        {name: value for name, value in each.state_dict(keep_vars=True).items() if not is_trained(value)}
        for each in (shared, module)
    ]
    if kept[0].keys() != kept[1].keys() or not all(is_equal(value, kept[0][name]) for name, value in kept[1].items()):
        raise UnstackableError(f"{type(module).__name__} has buffers, or a state, that differ from job to job")


def is_trained(value: Any) -> bool:
    """Whether an entry of a `state_dict` is a parameter that is trained."""
    return isinstance(value, nn.Parameter) and value.requires_grad


def is_equal(one: Any, other: Any) -> bool:
    """Whether two entries of a `state_dict` are the same."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return repr(one) == repr(other)


def _rows_digest(data: DataModule) -> str:
    digest = hashlib.sha256()
    for rows in (data.train, data.val):
        for part in (rows.x, rows.y):
            digest.update(f"{part.dtype} {tuple(part.shape)}".encode())
            digest.update(part.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
