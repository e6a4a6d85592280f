"""What the jobs of a stack bring along: rows and their order, initial parameters, learning rates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from holdfast.data import DataModule, Rows
from holdfast.model import Module
from holdfast.options import source
from holdfast.schema import Config
from holdfast.train.assemble import assemble, build_module, make
from holdfast.train.schedule import rates
from holdfast.train.stackable import UnstackableError


class Members:
    """The jobs of a stack, before they are trained.

    Args:
        configs: of jobs that `sweep.plan` has put together.

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
        hparams: the hyperparameters of every different module; `hparams_of` says which are a job's.
    """

    def __init__(self, configs: Sequence[Config]) -> None:
        self.configs, self.first = configs, configs[0]
        self.train: list[Rows] = []
        self.val: list[Rows] = []
        self.data = self._read()
        self.trainer = assemble(self.first, self.data, logger=False, enable_checkpointing=False)
        self.rates, self.schedules = rates(configs)
        self.module, self.start = self._initial()

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
        sources: dict[str, int] = {}
        streams: dict[tuple[int, int, bool], int] = {}
        stream_of, source_of = [], []
        for config in self.configs:
            key = repr(config.data)
            if key not in modules:
                modules[key] = make(config.data)
            data, origin = modules[key], source(config.data)
            if origin not in sources:
                sources[origin] = len(sources)
                data.setup("fit")
                self.train.append(data.train)
                self.val.append(data.val)
            stream = (sources[origin], data.order_seed, data.shuffle)
            stream_of.append(streams.setdefault(stream, len(streams)))
            source_of.append(sources[origin])
        self.streams = list(streams)
        self.stream_of, self.source_of = np.array(stream_of), np.array(source_of)
        for rows in (self.train, self.val):
            shapes = {(part.x.shape, part.y.shape) for part in rows}
            if len(shapes) > 1:
                raise UnstackableError(f"their rows have different shapes: {sorted(map(str, shapes))}")
        return modules[repr(self.first.data)]

    def _initial(self) -> tuple[Module, Tensor]:
        """A module, and the initial parameters of all jobs, shape `(parameters, jobs)`."""
        places: dict[tuple[str, int], int] = {}
        vectors, of_job, kept = [], [], None
        self.hparams = []
        for config in self.configs:
            key = (repr(config.model), config.seed)
            if key not in places:
                places[key] = len(places)
                module = build_module(config)
                assert isinstance(module, Module)
                self.trainer.precision_plugin.convert_module(module)
                parts = [value.detach().flatten() for value in module.parameters() if value.requires_grad]
                vectors.append(torch.cat(parts))
                constants = {
                    **dict(module.named_buffers()),
                    **{name: value for name, value in module.named_parameters() if not value.requires_grad},
                }
                kept = kept or (module, constants)
                if any(not torch.equal(value, kept[1][name]) for name, value in constants.items()):
                    raise UnstackableError(f"{type(module).__name__} has buffers that differ from job to job")
                self.hparams.append(dict(module.hparams.items()))
            of_job.append(places[key])
        assert kept is not None
        self.hparams_of = np.array(of_job)
        device = self.trainer.strategy.root_device
        return kept[0].to(device), torch.stack(vectors, dim=1)[:, of_job].to(device)
