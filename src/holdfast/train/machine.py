"""Whether this machine has what a configuration asks for; known only once torch is imported."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch.accelerators import XLAAccelerator
from lightning.pytorch.strategies import StrategyRegistry
from lightning_utilities.core.rank_zero import rank_zero_only

from holdfast.errors import ConfigError, DeviceError, Problem, in_a_line
from holdfast.schema import Config
from holdfast.train.isolation import load, switches_restored
from holdfast.validation import did_you_mean


def check(config: Config) -> None:
    """Look for the devices, and for the classes that `_target_` names.

    Raises:
        DeviceError: an accelerator, or a number of devices, that this machine lacks.
        ConfigError: a class that cannot be imported or does not take the arguments given.
    """
    _check_devices(config)
    strategies = ["auto", *StrategyRegistry.available_strategies()]
    if config.trainer.strategy not in strategies:
        lesson = f"no such strategy; {did_you_mean(config.trainer.strategy, strategies)}"
        raise ConfigError([Problem(f"trainer.strategy={config.trainer.strategy}", lesson)])
    problems = [problem for group, node in _targets(config) for problem in _check_target(group, node)]
    if problems:
        raise ConfigError(problems)


def is_leader() -> bool:
    """Whether this process is the one of its run that writes; there are several on several devices."""
    return getattr(rank_zero_only, "rank", 0) == 0


def devices() -> dict[str, int]:
    """How many devices of each accelerator this machine has."""
    return {
        "tpu": XLAAccelerator.auto_device_count() if XLAAccelerator.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
        "cuda": torch.cuda.device_count(),
        "cpu": os.cpu_count() or 1,
    }


def _check_devices(config: Config) -> None:
    found = devices()
    asked = config.accelerator
    kinds = {"auto": list(found), "gpu": ["mps", "cuda"]}.get(asked, [asked])
    kind = next((name for name in kinds if found[name]), None)
    if kind is None:
        have = ", ".join(name for name, number in found.items() if number)
        raise DeviceError([Problem(f"accelerator={asked}", f"this machine has none; it has {have}: use auto or cpu")])
    problem = Problem(f"devices={config.devices}", f"this machine has {found[kind]} of {kind}")
    if isinstance(config.devices, list):
        if kind == "cpu":
            raise DeviceError([Problem(problem.word, "processors are counted, not named: use devices=2")])
        if max(config.devices) >= found[kind]:
            raise DeviceError([problem])
    elif config.devices != "auto" and config.devices > found[kind]:
        raise DeviceError([problem])


def _targets(config: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in ("data", "model", "optimizer", "scheduler"):
        yield name, getattr(config, name)
    for name in ("callbacks", "logger"):
        for key, node in getattr(config, name).extras.items():
            yield f"{name}.{key}", node


def _check_target(group: str, node: dict[str, Any]) -> list[Problem]:
    """Import what a group's `_target_` names, and hold the group's keys against its arguments."""
    target = node["_target_"]
    if target is None:
        return []
    word = f"{group}._target_={target}"
    try:
        with switches_restored():
            found = load(target)
    except Exception as error:  # whatever the user's module raises while it is imported
        return [Problem(word, f"cannot be imported: {in_a_line(error)}")]
    given = {key: value for key, value in node.items() if not (key.startswith("_") and key.endswith("_"))}
    try:
        # parameters for an optimizer, the optimizer for a scheduler
        inspect.signature(found).bind(*[None] * (group in ("optimizer", "scheduler")), **given)
    except TypeError as error:
        return [Problem(word, f"does not take these keys: {error}")]
    except ValueError:  # a callable without a signature of its own
        return []
    return []
