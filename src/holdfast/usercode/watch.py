"""Detect what a loss must not do in a stack: read the Trainer, draw random numbers, or change state."""

from __future__ import annotations

import os
import pickle
import random
from typing import Any, NoReturn

import lightning.pytorch as pl
import numpy as np
import torch

from holdfast.usercode.state import read


class UnstackableError(Exception):
    """Jobs cannot be trained as one program; the message is the reason that the user sees."""


class NoTrainer:
    """Replaces the Trainer of a module in a stack, where there is none, and records which attributes are read.

    Attributes:
        reads: the names of these attributes.
    """

    def __init__(self) -> None:
        self.reads: list[str] = []

    def __getattr__(self, name: str) -> NoReturn:
        self.reads.append(name)
        raise UnstackableError(f"a stack has no Trainer, and so no trainer.{name}")


class Watch:
    """Detects what a loss does besides computing a loss.

    Args:
        module: the module that all jobs of a stack share. Its Trainer is replaced by a `NoTrainer`.
        stand_in: what was put in the place of its Trainer already.
    """

    def __init__(self, module: pl.LightningModule, stand_in: Any = None) -> None:
        self._module, self._name = module, type(module).__name__
        self._code = f"{self._name}.loss" if stand_in is None else f"a step of {self._name}"
        self._trainer = NoTrainer()
        if stand_in is None:
            module.trainer = self._trainer  # type: ignore[assignment]
        self._state, self._generators, self._environment = read(module), _global_generators(), dict(os.environ)

    def check(self) -> None:
        """Compare the present state with the state at the start.

        Raises:
            UnstackableError: the loss read the Trainer, drew random numbers, or changed the module or the environment.
                The Trainer is checked first, since the user's code may catch the error that reading it raises.
        """
        if self._trainer.reads:
            names = ", ".join(f"trainer.{name}" for name in dict.fromkeys(self._trainer.reads))
            raise UnstackableError(f"{self._code} reads the Trainer ({names})")
        if self._generators != _global_generators():
            raise UnstackableError(f"{self._code} draws random numbers")
        if self._environment != os.environ:
            raise UnstackableError(f"{self._code} changes the environment")
        if (path := self._state.changed(read(self._module))) is not None:
            raise UnstackableError(f"{self._code} changes what it is called on ({readable(path)})")


def _global_generators() -> bytes:
    """The states of the global generators of Python, NumPy and torch."""
    return pickle.dumps((random.getstate(), np.random.get_state(), torch.get_rng_state().numpy()))


def readable(path: str) -> str:
    """A path as it would be written in Python.

    >>> readable("_modules.['network'].training")
    'network.training'
    """
    return path.replace("_modules.['", "").replace("']", "").replace("['", "")
