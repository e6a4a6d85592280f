"""Builds Lightning's objects from a configuration: module, data module and Trainer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from holdfast.config.schema import Config
from holdfast.data import DataModule
from holdfast.data.seeding import derive, reseed, seeded
from holdfast.model import Module
from holdfast.runtime import processes
from holdfast.runtime.targets import instantiate

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


def build(config: Config) -> tuple[pl.LightningModule, pl.LightningDataModule]:
    """Build the module and the data module of a configuration."""
    return build_module(config), build_data(config.data)


def build_module(config: Config) -> pl.LightningModule:
    """Build the module of a configuration; its initial weights are a function of `config.seed`."""
    reseed(derive(config.seed, "weights"))
    module: pl.LightningModule = instantiate(config.model)
    if isinstance(module, Module):
        scheduler = partial(instantiate, config.scheduler) if config.scheduler["_target_"] else None
        module.optimize_with(partial(instantiate, config.optimizer), scheduler, config.metric)
    return module


def build_data(group: Mapping[str, Any]) -> pl.LightningDataModule:
    """Build the data module of a data group, with the generators seeded as in `seed_rows`."""
    with seeded(ROWS_SEED):
        data: pl.LightningDataModule = instantiate(group)
    return data


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
    # a process that was not started together with others must not look for them
    environment = [] if processes.current().name else [LightningEnvironment()]
    keys = dataclasses.asdict(config.trainer).items()
    return pl.Trainer(
        accelerator=config.accelerator,
        devices=config.devices,
        precision=config.precision,
        max_epochs=config.epochs,
        use_distributed_sampler=not isinstance(data, DataModule),  # Holdfast's divides the rows itself
        plugins=[*environment, *plugins],
        **{key: value for key, value in keys if key not in HOLDFAST_KEYS},
        **TRAINER_ARGUMENTS,
        **arguments,
    )
