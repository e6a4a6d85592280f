"""Builds Lightning's objects from a configuration: module, data module and Trainer."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.utilities.model_helpers import is_overridden

from holdfast.config.fold import FOLD, fold_of, without_fold
from holdfast.config.keys import key_of
from holdfast.config.options import OPTIONS, TABLE
from holdfast.config.schema import Config
from holdfast.config.trainer_arguments import TrainerArguments
from holdfast.data import DataModule
from holdfast.data.folded_loaders import set_fold
from holdfast.data.seeding import derive, reseed, seeded
from holdfast.errors import HoldfastError
from holdfast.model import Module
from holdfast.runtime import processes
from holdfast.runtime.isolation import isolated
from holdfast.runtime.targets import import_target, instantiate, takes, trainer_objects
from holdfast.single.init_weights import initialize

TRAINER_ARGUMENTS: dict[str, Any] = {
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}
"""Arguments of every Trainer."""

ROWS_SEED = derive(0, "rows")
"""Seed of the global generators while a data module is built and makes its rows."""

HOLDFAST_KEYS = frozenset({"full_train_loss"})
"""Keys of the trainer group that are not arguments of Lightning's Trainer."""

_DEFAULTS = {field.name: field.default for field in dataclasses.fields(TrainerArguments)}


def build(config: Config, *, initial: bool = True) -> tuple[pl.LightningModule, pl.LightningDataModule]:
    """Build the module and the data module of a configuration; arguments as for `build_module`."""
    return build_module(config, initial=initial), build_data(config.data)


def build_module(config: Config, *, initial: bool = True) -> pl.LightningModule:
    """Build the module of a configuration.

    Args:
        config: configuration of the run.
        initial: whether its initial weights are needed: a function of `config.seed`, or those of `init_weights`.
    """
    reseed(derive(config.seed, "weights"))
    module: pl.LightningModule = _of_table(config) if is_table(config) else instantiate(config.model)
    if isinstance(module, Module):
        scheduler = partial(instantiate, config.scheduler) if config.scheduler["_target_"] else None
        module.optimize_with(partial(instantiate, config.optimizer), scheduler, config.metric)
    if initial and config.init_weights is not None:
        initialize(module, config.init_weights, strict=config.init_weights_strict)
    return module


def is_table(config: Config) -> bool:
    """Whether a model that ships with Holdfast is trained on a table."""
    return config.data["_target_"] == TABLE and config.model["_target_"] in OPTIONS


def _of_table(config: Config) -> pl.LightningModule:
    """The model of a table: its inputs and outputs follow from the table's columns."""
    from holdfast.caching.sources import source_of
    from holdfast.tables.models import model_of  # only where a table is trained

    settings = {key: value for key, value in config.model.items() if key not in ("_target_", "features")}
    kind = config.model["_target_"].rpartition(".")[2].lower()
    return model_of(source_of(config.data).encoding.as_plain(), {"kind": kind, **settings})


def without_effect(config: Config, origin: Mapping[str, Any] | None, overrides: Sequence[str]) -> dict[str, str]:
    """A line, by key, for what was typed and nothing reads: the optimizer of a module that makes its own, or `lr`.

    Args:
        config: configuration of the run.
        origin: the same as it is written in YAML, before interpolations are resolved; None if it is not known.
        overrides: those of the command line.
    """
    try:
        with isolated():  # an import may change global settings, which other jobs must not see
            cls = import_target(config.model["_target_"])
    except Exception:  # the run itself will report it
        return {}
    is_class = isinstance(cls, type)  # of a function is not known what it returns
    brings_optimizer = is_class and getattr(cls, "configure_optimizers", None) is not Module.configure_optimizers
    unused = ("optimizer", "scheduler") if brings_optimizer else ()
    read = repr({group: value for group, value in (origin or {}).items() if group not in unused})
    lines = {}
    for item in overrides:
        key = key_of(item)
        if key.partition(".")[0] in unused:
            lines[key] = f"{item}: no effect, since {cls.__name__} makes its own optimizer in configure_optimizers"
        elif key in ("lr", "batch_size") and origin is not None and not re.search(rf"\$\{{[^}}]*\b{key}\b", read):
            lines[key] = f"{item}: no effect, since nothing refers to it, as {key}: ${{{key}}} in a file would"
    return lines


def build_data(group: Mapping[str, Any]) -> pl.LightningDataModule:
    """Build the data module of a data group, with the generators seeded as in `seed_rows`."""
    # a table divides its rows itself, and an argument of the user's own is his
    is_its_own = group["_target_"] == TABLE or (FOLD in group and takes(group, FOLD))
    fold = None if is_its_own else fold_of(group)
    with seeded(ROWS_SEED):
        data: pl.LightningDataModule = instantiate(group if is_its_own else without_fold(group))
    if fold is not None:
        set_fold(data, fold)
    return data


def check_testable(module: pl.LightningModule, data: pl.LightningDataModule) -> None:
    """Check that a module can be tested on test rows of the data.

    Raises:
        HoldfastError: it has no test step, or there are no test rows.
    """
    for name, part in (("test_step", module), ("test_dataloader", data)):
        if not is_overridden(name, part):
            raise HoldfastError(f"test=true needs a {name}, which {type(part).__name__} does not have")


def set_up(data: pl.LightningDataModule) -> None:
    """Let a data module make its training and validation rows, as a Trainer does."""
    with seeded(ROWS_SEED):
        data.prepare_data()
        data.setup("fit")


def seed_rows() -> None:
    """Seed the global generators right before a Trainer lets a data module make its rows.

    Rows are a function of the keys of the data group alone, so that jobs are compared on the same rows: a data module
    that draws from a global generator, as `random_split` does, gives the same rows to every job and at every launch.
    """
    reseed(ROWS_SEED)


def build_trainer(
    config: Config, data: pl.LightningDataModule, plugins: Sequence[Any] = (), **arguments: Any
) -> pl.Trainer:
    """Build the Trainer of a configuration.

    Args:
        config: configuration of the run.
        data: its data module.
        plugins: Lightning plugins, besides the one that defines the processes of the run.
        arguments: further arguments of Lightning's Trainer, such as callbacks and loggers.
    """
    # a process that was not started together with others by another program must not look for them
    environment = [] if processes.current().name else [LightningEnvironment()]
    given = {
        key: value
        for key, value in vars(config.trainer).items()
        if key not in HOLDFAST_KEYS and value != _DEFAULTS.get(key, _DEFAULTS)
    }
    given |= {key: _instantiated(value) for key, value in trainer_objects(config).items()}
    more = given.pop("plugins", [])
    trainer = pl.Trainer(
        accelerator=config.accelerator,
        devices=config.devices,
        precision=config.precision,
        max_epochs=config.epochs,
        plugins=[*environment, *plugins, *(more if isinstance(more, list) else [more])],
        # Holdfast's data modules divide the rows themselves
        **{"use_distributed_sampler": not isinstance(data, DataModule), **TRAINER_ARGUMENTS, **given},
        **arguments,
    )
    if processes.is_started_by_holdfast():
        # in its handlers Lightning lets the processes of a run communicate, whatever each is about to do
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    return trainer


def _instantiated(value: Any) -> Any:
    """An argument of the Trainer that is an object, or a list of objects."""
    return list(map(instantiate, value)) if isinstance(value, list) else instantiate(value)
