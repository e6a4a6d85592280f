"""Whether this machine has what a configuration asks for; known only once torch is imported."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from itertools import chain
from typing import Literal, NamedTuple

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.accelerators import XLAAccelerator
from lightning.pytorch.strategies import StrategyRegistry

from holdfast.config import rules
from holdfast.config.check import did_you_mean
from holdfast.config.schema import Config
from holdfast.errors import ConfigError, DeviceError, Problem, in_a_line
from holdfast.single import processes as ranks
from holdfast.single.isolation import load, switches_restored


class Needs(NamedTuple):
    """All that a configuration needs of a machine; jobs with equal needs are checked once.

    `check_needs` sees nothing else of a configuration, so that no check can depend on what two equal needs differ in.

    Attributes:
        accelerator: as configured.
        devices: a number, the numbers of the devices, or `auto`.
        num_nodes: machines.
        strategy: how several devices work together.
        targets: of every group and entry with a `_target_`: the group, the target, and the keys it is given.
    """

    accelerator: str
    devices: int | tuple[int, ...] | Literal["auto"]
    num_nodes: int
    strategy: str
    targets: tuple[tuple[str, str, tuple[str, ...]], ...]

    @classmethod
    def of(cls, config: Config) -> Needs:
        """The needs of a configuration."""
        devices = tuple(config.devices) if isinstance(config.devices, list) else config.devices
        return cls(
            config.accelerator, devices, config.trainer.num_nodes, config.trainer.strategy, tuple(_targets(config))
        )


def check(config: Config) -> None:
    """Hold the needs of a configuration against this machine.

    Raises:
        DeviceError: as `check_needs`.
        ConfigError: as `check_needs`.
    """
    check_needs(Needs.of(config))


def check_needs(needs: Needs) -> None:
    """Look for the devices, for the strategy, and for the classes that `_target_` names.

    Raises:
        DeviceError: an accelerator, or a number of devices, that this machine lacks; all else is there.
        ConfigError: a strategy that does not exist, or a class that cannot be imported or does not take the keys given.
    """
    devices = _check_devices(needs)
    others = [*_check_strategy(needs.strategy), *chain.from_iterable(_check_target(*entry) for entry in needs.targets)]
    if others:
        raise ConfigError([*devices, *others])
    if devices:
        raise DeviceError(devices)


def is_leader() -> bool:
    """Whether this process is the one of its run that writes; there are several on several devices."""
    return ranks.present().rank == 0


def environment() -> list[ClusterEnvironment]:
    """The plugin that keeps a Trainer from looking for other processes of its run; none where there are some."""
    return [] if ranks.present().name else [LightningEnvironment()]


def devices() -> dict[str, int]:
    """How many devices of each accelerator this machine has."""
    return {
        "tpu": XLAAccelerator.auto_device_count() if XLAAccelerator.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
        "cuda": torch.cuda.device_count(),
        "cpu": os.cpu_count() or 1,
    }


def _check_devices(needs: Needs) -> list[Problem]:
    available = devices()
    kinds = {"auto": list(available), "gpu": ["mps", "cuda"]}.get(needs.accelerator, [needs.accelerator])
    kind = next((name for name in kinds if available[name]), None)
    if kind is None:
        have = ", ".join(name for name, number in available.items() if number)
        lesson = f"this machine has none; it has {have}: use auto or cpu"
        return [Problem(f"accelerator={needs.accelerator}", lesson)]
    if needs.num_nodes > 1 and not ranks.present().name:
        lesson = (
            "start a process for each device of each machine, with srun or torchrun; devices is those of one machine"
        )
        return [Problem(f"trainer.num_nodes={needs.num_nodes}", lesson)]
    if needs.devices == "auto":
        return []
    if isinstance(needs.devices, int):
        lacking, word = needs.devices > available[kind], f"devices={needs.devices}"
    else:
        lacking, word = max(needs.devices) >= available[kind], f"devices={list(needs.devices)}"
        if kind == "cpu":
            return [Problem(word, "processors are counted, not named: use devices=2")]
    return [Problem(word, f"this machine has {available[kind]} of {kind}")] if lacking else []


def _check_strategy(strategy: str) -> list[Problem]:
    strategies = ["auto", *(name for name in StrategyRegistry.available_strategies() if not rules.strategy(name))]
    if strategy in strategies:
        return []
    return [Problem(f"trainer.strategy={strategy}", f"no such strategy; {did_you_mean(strategy, strategies)}")]


def _targets(config: Config) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    groups = {name: getattr(config, name) for name in ("data", "model", "optimizer", "scheduler")}
    for name in ("callbacks", "logger"):
        groups |= {f"{name}.{key}": node for key, node in getattr(config, name).extras.items()}
    for name, node in groups.items():
        if node["_target_"] is not None:
            keys = tuple(key for key in map(str, node) if not (key.startswith("_") and key.endswith("_")))
            yield name, str(node["_target_"]), keys


def _check_target(group: str, target: str, keys: tuple[str, ...]) -> list[Problem]:
    """Import what a group's `_target_` names, and hold the group's keys against its arguments."""
    word = f"{group}._target_={target}"
    try:
        with switches_restored():
            found = load(target)
    except Exception as error:  # whatever the user's module raises while it is imported
        return [Problem(word, f"cannot be imported: {in_a_line(error)}")]
    try:
        # parameters for an optimizer, the optimizer for a scheduler
        inspect.signature(found).bind(*[None] * (group in ("optimizer", "scheduler")), **dict.fromkeys(keys))
    except TypeError as error:
        return [Problem(word, f"does not take these keys: {error}")]
    except ValueError:  # a callable without a signature of its own
        return []
    return []
