"""What a stack of ordinary LightningModules is trained from: the jobs, their tensors, and the rows of their loaders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from holdfast.arithmetic.job_values import JobValues, differing_values
from holdfast.arithmetic.steps import ModuleSteps, loss_alone
from holdfast.config.schema import Config
from holdfast.data.seeding import seeded
from holdfast.model import Module
from holdfast.single.build import ROWS_SEED, build_data, build_trainer, set_up
from holdfast.single.train_metrics import has_loss
from holdfast.stacked.loaders import LoadedRows
from holdfast.stacked.module_jobs import ModuleJob
from holdfast.usercode.stand_in import StandInTrainer
from holdfast.usercode.state import read
from holdfast.usercode.variables import globals_restored
from holdfast.usercode.watch import UnstackableError


class JobRows:
    """The loaders of one data module.

    Attributes:
        train: the rows of its training loader.
        val: those of its validation loaders.
    """

    def __init__(self, config: Config, trainer: pl.Trainer | None) -> None:
        self.data = build_data(config.data)
        self.stand_in = StandInTrainer(config.epochs)
        self.stand_in.known.update(world_size=1, num_nodes=1, global_rank=0, local_rank=0)
        self.data.trainer = self.stand_in  # type: ignore[assignment]
        set_up(self.data)
        self.trainer = trainer or build_trainer(config, self.data, logger=False, enable_checkpointing=False)

        def convert(batch: Any) -> Any:
            return self.trainer.strategy.batch_to_device(self.trainer.precision_plugin.convert_input(batch))

        with seeded(ROWS_SEED):
            self.train = LoadedRows(self.data.train_dataloader(), convert)
            loaders = self.data.val_dataloader() if is_overridden("val_dataloader", self.data) else []
            loaders = loaders if isinstance(loaders, (list, tuple)) else [loaders]
            self.val = [LoadedRows(loader, convert) for loader in loaders]
        self.stand_in.check()

    def form(self) -> Any:
        """What the data modules of a stack have in common."""
        return [
            (rows.spec, rows.batch_sizes, [(leaf.dtype, leaf.shape) for leaf in rows.leaves])
            for rows in (self.train, *self.val)
        ]


class ModuleInputs:
    """The jobs of a stack, before they are trained.

    Args:
        configs: the configuration of each job.
        limits: batches of an epoch that are trained on, and validated on, for a trial; None for all.

    Raises:
        UnstackableError: the jobs cannot be trained together.

    Attributes:
        configs: as given.
        jobs: the jobs.
        rows_of: the loaders of each job.
        trainer: a Trainer that knows the device and the precision.
        module, stand_in, steps: the module that stands for all jobs, what it has for a Trainer, and its steps.
        names: of the parameters in the vector of a job, by group of the optimizer.
        group_sizes: numbers in each group.
        parameters: shape `(jobs, parameters)`.
        constants: the other parameters, each of shape `(jobs, ...)`.
        buffers, states: buffers, and states of metrics, likewise.
        job_values: the values, beside these, in which the jobs differ.
        iterations: of an epoch.
        val_loaders: number of validation loaders.
        log_every: iterations between two at which loggers are given what was logged.
        has_loss: whether the module has a method `loss(batch)`, which is measured on all training rows.
    """

    def __init__(self, configs: Sequence[Config], limits: tuple[int | None, int | None] = (None, None)) -> None:
        with globals_restored() as restore:  # globals that building one job changes must not reach the next
            self._build_all(configs, limits, restore)

    def _build_all(
        self, configs: Sequence[Config], limits: tuple[int | None, int | None], restore: Callable[[], object]
    ) -> None:
        self._restore = restore
        self.configs, self.limits = configs, limits
        by_source: dict[str, JobRows] = {}
        for config in configs:
            key = repr(config.data)
            if key not in by_source:
                trainer = next(iter(by_source.values())).trainer if by_source else None
                by_source[key] = JobRows(config, trainer)
                restore()
        self.sources = list(by_source.values())
        if any(rows.form() != self.sources[0].form() for rows in self.sources):
            raise UnstackableError("the rows of the jobs differ in number, shape or type")
        self.rows_of = [by_source[repr(config.data)] for config in configs]
        self.trainer = self.sources[0].trainer
        self._loader_states: dict[tuple[int, str, int], list[Tensor]] = {}
        self._leaves: dict[tuple[str, int], list[Tensor]] = {}
        self.log_every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        self.iterations = min(len(self.rows_of[0].train.batch_sizes), limits[0] or 1 << 62)
        self.batch_size = self.rows_of[0].train.batch_sizes[0]
        self.jobs = [self._build(config) for config in configs]
        template = self._build(configs[0])
        self.module, self.stand_in = template.module, template.stand_in
        self.has_loss = isinstance(self.module, Module) or has_loss(self.module)
        self.val_loaders = len(self.rows_of[0].val) if is_overridden("validation_step", self.module) else 0
        self._read_states(template)
        self.names = self._trained_names()
        flat = [name for names in self.names for name in names]
        shapes = dict(self.module.named_parameters())
        self.group_sizes = [sum(shapes[name].numel() for name in names) for names in self.names]
        if not flat or len({shapes[name].dtype for name in flat}) > 1:
            raise UnstackableError("its trained parameters are none, or of several types")
        named = [dict(job.module.named_parameters()) for job in self.jobs]
        self.parameters = torch.stack([torch.cat([each[name].detach().flatten() for name in flat]) for each in named])
        self.constants = {
            name: torch.stack([each[name].detach() for each in named]) for name in shapes if name not in flat
        }
        self.steps = ModuleSteps(self.module, self.stand_in, flat)
        self.steps.job_values = self.job_values
        self.buffers = {
            name: torch.stack([dict(job.module.named_buffers())[name] for job in self.jobs])
            for name, _ in self.module.named_buffers()
        }
        of_jobs = [job.states() for job in self.jobs]
        self.states = {
            key: torch.stack([each[key] for each in of_jobs]).to(self.parameters.device) for key in of_jobs[0]
        }

    @property
    def val_batches(self) -> int:
        """Validation batches of an epoch."""
        return sum(len(rows.batch_sizes[: self.limits[1]]) for rows in self.rows_of[0].val[: self.val_loaders])

    def _build(self, config: Config) -> ModuleJob:
        job = ModuleJob(config, self.trainer, self.iterations)
        self._restore()
        return job

    def _read_states(self, template: ModuleJob) -> None:
        """Compare the modules of the jobs."""
        states = [read(job.module, buffers=False) for job in self.jobs]
        for path, kind in states[0].hidden.items():
            raise UnstackableError(f"{path} is a {kind}, whose state cannot be read")
        shared = read(template.module, buffers=False)
        if not all(state.is_like(shared) for state in states):
            name = type(template.module).__name__
            raise UnstackableError(f"the modules {name} of these jobs differ in more than numbers")
        like = next(template.module.parameters())
        self.job_values: list[JobValues] = differing_values(shared, states, like)

    def _trained_names(self) -> list[list[str]]:
        """The parameters that have a gradient, by group of the optimizer."""
        probe = self._build(self.configs[0])
        rows, module = self.rows_of[0].train, probe.module
        batch = rows.batch([leaf[: self.batch_size].clone() for leaf in rows.leaves])
        trained = {name: value for name, value in module.named_parameters() if value.requires_grad}
        with torch.random.fork_rng(devices=[]), self.trainer.precision_plugin.forward_context():
            loss = loss_alone(module, probe.stand_in, batch)
        gradients = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
        used = {
            id(value): name for (name, value), each in zip(trained.items(), gradients, strict=True) if each is not None
        }
        groups = [[id(value) for value in group["params"]] for group in probe.optimizer.param_groups]
        in_module = {id(value) for value in module.parameters()}
        if any(each not in in_module for group in groups for each in group):
            raise UnstackableError("its optimizer has parameters that are not the module's")
        return [[used[each] for each in group if each in used] for group in groups]

    def rows(self, number: int, split: str, loader: int) -> tuple[LoadedRows, list[Tensor], int]:
        """The rows of a loader of a job, the states of the loader's own generators for it, and where its rows begin."""
        source = self.rows_of[number]
        rows = source.train if split == "train" else source.val[loader]
        key = (number, split, loader)
        if key not in self._loader_states:
            self._loader_states[key] = [state.clone() for state in rows.states]
        return rows, self._loader_states[key], rows.count * self.sources.index(source)

    def loader_states(self) -> list[list[Any]]:
        """The states of the loaders' own generators, in plain containers."""
        return [[int(number), *key, states] for (number, *key), states in self._loader_states.items()]

    def set_loader_states(self, plain: Sequence[Sequence[Any]]) -> None:
        """Go on with the states that `loader_states` returned."""
        self._loader_states = {(number, split, loader): states for number, split, loader, states in plain}

    def first_rows(self, split: str, loader: int) -> LoadedRows:
        """The rows of a loader of the first job: all know how a batch is made of its leaves."""
        return self.rows_of[0].train if split == "train" else self.rows_of[0].val[loader]

    def leaves(self, split: str, loader: int) -> list[Tensor]:
        """The rows of all data modules in one, by leaf of a batch."""
        if (split, loader) not in self._leaves:
            of_sources = [each.train if split == "train" else each.val[loader] for each in self.sources]
            parts = zip(*(each.leaves for each in of_sources), strict=True)
            self._leaves[split, loader] = [torch.cat(some) if len(some) > 1 else some[0] for some in parts]
        return self._leaves[split, loader]

    @contextmanager
    def draws_undone(self, jobs: Sequence[ModuleJob]) -> Iterator[None]:
        """Restore the generators of jobs, and those of their loaders, at the end."""
        loaders = {key: [state.clone() for state in states] for key, states in self._loader_states.items()}
        generators = [job.generator.get_state() for job in jobs]
        try:
            yield
        finally:
            self._loader_states = loaders
            for job, state in zip(jobs, generators, strict=True):
                job.generator.set_state(state)
