"""Checks that this computer has the devices, the strategy and the classes that a configuration asks for."""

from __future__ import annotations

import os
from itertools import chain
from typing import Literal, NamedTuple

import torch
from lightning.pytorch.accelerators import XLAAccelerator
from lightning.pytorch.strategies import StrategyRegistry

from holdfast.config import rules
from holdfast.config.keys import did_you_mean
from holdfast.config.schema import Config
from holdfast.errors import ConfigError, DeviceError, Problem
from holdfast.runtime import processes
from holdfast.runtime.targets import Target, check_target, targets_of


class Needs(NamedTuple):
    """The part of a configuration that `check_needs` reads; a sweep checks jobs with equal needs once.

    Attributes:
        accelerator: as configured.
        devices: a number of devices, their indices, or `auto`.
        num_nodes: number of computers.
        strategy: name of Lightning's strategy for several devices.
        targets: every `_target_`, with the keys it is given.
    """

    accelerator: str
    devices: int | tuple[int, ...] | Literal["auto"]
    num_nodes: int
    strategy: str
    targets: tuple[Target, ...]

    @classmethod
    def of(cls, config: Config) -> Needs:
        """The needs of a configuration."""
        devices = tuple(config.devices) if isinstance(config.devices, list) else config.devices
        trainer = config.trainer
        strategy = trainer.strategy if isinstance(trainer.strategy, str) else "auto"
        return cls(config.accelerator, devices, trainer.num_nodes, strategy, tuple(targets_of(config)))


def check(config: Config) -> None:
    """Check the needs of a configuration; raises as `check_needs`."""
    check_needs(Needs.of(config))


def check_needs(needs: Needs) -> None:
    """Check devices, strategy, and every class that a `_target_` names.

    Raises:
        DeviceError: this computer lacks the accelerator, or the number of devices, and nothing else is wrong.
        ConfigError: a strategy does not exist; a class cannot be imported, or does not take its keys.
    """
    devices = _check_devices(needs)
    others = [*_check_strategy(needs.strategy), *chain.from_iterable(map(check_target, needs.targets))]
    if others:
        raise ConfigError([*devices, *others])
    if devices:
        raise DeviceError(devices)


def device_counts() -> dict[str, int]:
    """The number of devices that this computer has of each accelerator."""
    return {
        "tpu": XLAAccelerator.auto_device_count() if XLAAccelerator.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
        "cuda": torch.cuda.device_count(),
        "cpu": os.cpu_count() or 1,
    }


def process_count(config: Config) -> int:
    """The number of processes that train a run on this computer: one a device."""
    if config.devices == "auto":  # Lightning takes all GPUs, but one processor; it forks for TPUs itself
        counts = device_counts()
        return max(1, counts["cuda"]) if _accelerator(config.accelerator, counts) == "cuda" else 1
    return len(config.devices) if isinstance(config.devices, list) else config.devices


def _accelerator(configured: str, counts: dict[str, int]) -> str | None:
    """The accelerator that Lightning takes, of which there are some; None if there is none."""
    candidates = {"auto": list(counts), "gpu": ["mps", "cuda"]}.get(configured, [configured])
    return next((name for name in candidates if counts[name]), None)


def _check_devices(needs: Needs) -> list[Problem]:
    counts = device_counts()
    accelerator = _accelerator(needs.accelerator, counts)
    if accelerator is None:
        available = ", ".join(name for name, count in counts.items() if count)
        lesson = f"this machine has none; it has {available}: use auto or cpu"
        return [Problem(f"accelerator={needs.accelerator}", lesson)]
    if needs.num_nodes > 1 and not processes.current().name:
        lesson = (
            "start a process for each device of each machine, with srun or torchrun; devices is those of one machine"
        )
        return [Problem(f"trainer.num_nodes={needs.num_nodes}", lesson)]
    return [] if needs.devices == "auto" else _check_device_numbers(needs.devices, accelerator, counts[accelerator])


def _check_device_numbers(devices: int | tuple[int, ...], accelerator: str, count: int) -> list[Problem]:
    """Check a number of devices, or their indices, against the `count` that there are."""
    given = f"devices={devices if isinstance(devices, int) else list(devices)}"
    if not isinstance(devices, int) and accelerator == "cpu":
        return [Problem(given, "processors are counted, not named: use devices=2")]
    highest = devices if isinstance(devices, int) else max(devices) + 1
    return [Problem(given, f"this machine has {count} of {accelerator}")] if highest > count else []


def _check_strategy(strategy: str) -> list[Problem]:
    strategies = ["auto", *(name for name in StrategyRegistry.available_strategies() if not rules.strategy(name))]
    if strategy in strategies:
        return []
    return [Problem(f"trainer.strategy={strategy}", f"no such strategy; {did_you_mean(strategy, strategies)}")]
