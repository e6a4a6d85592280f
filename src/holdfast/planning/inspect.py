"""What the modules, and the data modules, of a stack have in common; a refused one is trained alone."""

from __future__ import annotations

from collections.abc import Hashable

import lightning.pytorch as pl
from torch import Tensor

from holdfast.arithmetic.mapped_optimizer import check_optimizer
from holdfast.config.schema import Config
from holdfast.data import BufferedRows, DataModule, Rows
from holdfast.model import Module
from holdfast.planning.allowed import LOADER_METHODS, STEP_METHODS, check_base, check_class, check_hooks, check_rules
from holdfast.runtime.targets import import_target
from holdfast.single.build import build_data, build_module, build_trainer, set_up
from holdfast.stacked.module_inputs import JobRows
from holdfast.stacked.module_jobs import ModuleJob
from holdfast.usercode.state import State, read
from holdfast.usercode.watch import NoTrainer, UnstackableError, readable


class ByLoss:
    """Looks at jobs whose modules are defined by their loss, over a data module of Holdfast."""

    def alike(self, config: Config) -> None:
        """Check what all jobs of a structure have in common, before they are built one by one."""
        check_rules(config)
        if isinstance(target := import_target(config.model["_target_"]), type):
            check_base(target, Module)

    def module(self, config: Config) -> Hashable:
        """Everything of a module but the values of numbers."""
        module = build_module(config)
        check_class(module, Module)
        _check_module(module)
        return _structure(read(module))

    def data(self, config: Config) -> Hashable:
        """The batch size, and types and shapes of the rows, since batches come from one tensor."""
        return _of_rows(config)


class BySteps:
    """Looks at jobs of any LightningModule, over any LightningDataModule; one Trainer serves all of them."""

    def __init__(self) -> None:
        self._trainer: pl.Trainer | None = None

    def alike(self, config: Config) -> None:
        """Check what all jobs of a structure have in common, before they are built one by one."""
        if config.precision not in ("32-true", "64-true"):
            raise UnstackableError(f"precision={config.precision} computes parts of a step in another type")

    def module(self, config: Config) -> Hashable:
        """Everything of a module but the values of numbers and of buffers."""
        module = build_module(config)
        check_class(module, pl.LightningModule, STEP_METHODS)
        _check_module(module)
        if self._trainer is None:
            data = build_data(config.data)
            self._trainer = build_trainer(config, data, logger=False, enable_checkpointing=False)
        if self._trainer.world_size > 1:
            raise UnstackableError(f"devices={config.devices} trains it on several devices")
        job = ModuleJob(config, self._trainer, iterations=1, module=module)
        _check_module(job.module)  # as its `setup` has left it
        check_optimizer(job.optimizer)
        return _structure(read(job.module, buffers=False)), type(job.optimizer)

    def data(self, config: Config) -> Hashable:
        """The batches of its loaders."""
        check_class(build_data(config.data), pl.LightningDataModule, LOADER_METHODS)
        return repr(JobRows(config, None).form())


def _check_module(module: pl.LightningModule) -> None:
    if not module.automatic_optimization:
        raise UnstackableError(f"{type(module).__name__} sets automatic_optimization to False")
    check_hooks(module)


def _structure(state: State) -> str:
    for path, kind in state.hidden.items():
        raise UnstackableError(f"{readable(path)} is a {kind}, whose state cannot be read")
    return state.structure()


def _of_rows(config: Config) -> Hashable:
    data = build_data(config.data)
    check_class(data, DataModule)
    assert isinstance(data, DataModule)
    name = type(data).__name__
    data.trainer = trainer = NoTrainer()  # type: ignore[assignment]
    try:
        set_up(data)
    finally:
        if trainer.reads:
            raise UnstackableError(f"{name} reads the Trainer (trainer.{trainer.reads[0]})")
    for key in ("train", "val", "batch_size", "order_seed", "shuffle"):
        if key not in vars(data):
            raise UnstackableError(f"{name}.{key} is not an attribute of the object, but computed each time it is read")
    for rows in (data.train, data.val):
        parts = (rows.x, rows.y) if isinstance(rows, Rows) else ()
        if type(rows) not in (Rows, BufferedRows) or any(type(part) is not Tensor for part in parts):
            raise UnstackableError(f"{name} has rows of a subclass, which a Trainer reads one batch at a time")
    # the jobs of a stack share the buffer into which rows are read from disk
    on_disk = [rows.key for rows in (data.train, data.val) if isinstance(rows, BufferedRows)]
    shared = (data.shuffle, *on_disk) if on_disk else ()
    return data.batch_size, data.train.shapes, data.val.shapes, *shared
