"""From a configuration to Lightning's objects: module, data module, Trainer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import lightning.pytorch as pl
from hydra.utils import instantiate
from lightning.pytorch.profilers import Profiler

from holdfast.config.schema import Config
from holdfast.data import DataModule
from holdfast.data.seeding import derive, reseed, seeded
from holdfast.model import Module
from holdfast.single.devices import environment
from holdfast.single.isolation import load

BARE: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
"""What no Trainer here needs."""

ROWS = derive(0, "rows")
"""Seed of the global generators while a data module is built and makes its rows."""

OURS = frozenset({"full_train_loss"})
"""Keys of the trainer group that Lightning's Trainer does not know."""


def build(config: Config) -> tuple[pl.LightningModule, pl.LightningDataModule]:
    """The module, its weights drawn from the seed, and the data module of a configuration."""
    return build_module(config), build_data(config.data)


def build_module(config: Config) -> pl.LightningModule:
    """The module of a configuration, its weights drawn from the seed."""
    reseed(derive(config.seed, "weights"))
    module: pl.LightningModule = make(config.model)
    if isinstance(module, Module):
        scheduler = partial(make, config.scheduler) if config.scheduler["_target_"] else None
        module.optimize_with(partial(make, config.optimizer), scheduler, config.metric)
    return module


def build_data(group: Mapping[str, Any]) -> pl.LightningDataModule:
    """The data module of a configuration; see `seed_rows`."""
    with seeded(ROWS):
        data: pl.LightningDataModule = make(group)
    return data


def set_up(data: pl.LightningDataModule) -> None:
    """Let a data module make its training and validation rows, as a Trainer would."""
    with seeded(ROWS):
        data.prepare_data()
        data.setup("fit")


def seed_rows() -> None:
    """Seed the generators right before a Trainer lets a data module make its rows.

    Rows are a function of the keys of the data group alone, so that jobs are compared on the same rows: a data module
    that draws from a global generator, as `random_split` does, gives the same rows to every job and at every launch.
    """
    reseed(ROWS)


def make(group: Mapping[str, Any], *args: Any) -> Any:
    """What a group's `_target_` names, with the group's keys as its arguments."""
    cls = load(group["_target_"])
    keys = {key: value for key, value in group.items() if key != "_target_"}
    if any(key.startswith("_") for key in keys) or any(map(_has_target, keys.values())):
        return instantiate(group, *args, _convert_="all")
    return cls(*args, **keys)  # Hydra takes 8 ms to look for what may be nested; here nothing is


def _has_target(value: Any) -> bool:
    """Whether something in a value is to be made by Hydra."""
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(_has_target, value.values()))
    return isinstance(value, list) and any(map(_has_target, value))


def assemble(config: Config, data: pl.LightningDataModule, plugins: Sequence[Any] = (), **attached: Any) -> pl.Trainer:
    """The Trainer of a configuration.

    Args:
        config: what is trained.
        data: the rows it is trained on.
        plugins: of Lightning's, besides the one that says which processes take part.
        attached: callbacks, loggers and the folder, by Lightning's names.
    """
    return pl.Trainer(
        accelerator=config.accelerator,
        devices=config.devices,
        precision=config.precision,
        max_epochs=config.epochs,
        use_distributed_sampler=not isinstance(data, DataModule),  # ours shares the rows out itself
        profiler=_NoProfiler(),
        plugins=[*environment(), *plugins],
        **{key: value for key, value in dataclasses.asdict(config.trainer).items() if key not in OURS},
        **BARE,
        **attached,
    )


def extras(group: Mapping[str, Any]) -> list[Any]:
    """The callbacks or loggers of the user's own."""
    return [make(entry) for entry in group.values()]


class _NoProfiler(Profiler):
    """Lightning's own idle profiler makes a context manager anew at each of some twenty hooks an iteration."""

    _IDLE: AbstractContextManager[None] = nullcontext()

    def profile(self, action_name: str) -> Any:
        return self._IDLE

    def start(self, action_name: str) -> None:
        pass

    def stop(self, action_name: str) -> None:
        pass

    def summary(self) -> str:
        return ""
