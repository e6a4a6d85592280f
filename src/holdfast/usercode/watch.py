"""What a loss must not do in a stack: read the Trainer, draw random numbers, keep state."""

from __future__ import annotations

import os
import random
from typing import Any, NoReturn

import numpy as np
import torch

from holdfast.model import Module
from holdfast.usercode.state import read


class UnstackableError(Exception):
    """Jobs cannot be trained as one program; the message is the reason, as the user reads it."""


class NoTrainer:
    """Stands in for the Trainer of a module in a stack, which has none, and notes what is read of it."""

    def __init__(self) -> None:
        self.reads: list[str] = []

    def __getattr__(self, name: str) -> NoReturn:
        self.reads.append(name)
        raise UnstackableError(f"a stack has no Trainer that could tell its {name}")


class Watch:
    """Notices what the loss of a stack's module does beside computing a loss.

    Args:
        module: the one that all jobs share. Its Trainer is replaced by a `NoTrainer`.
    """

    def __init__(self, module: Module) -> None:
        self._module, self._name = module, type(module).__name__
        self._trainer = NoTrainer()
        module.trainer = self._trainer  # type: ignore[assignment]
        self._state, self._outside = read(module), _outside()

    def check(self) -> None:
        """Look at what has happened so far.

        Raises:
            UnstackableError: the loss read the Trainer, drew random numbers, or changed what it was called on. The
                Trainer comes first, since code may catch the error that reading it raises.
        """
        if self._trainer.reads:
            names = ", ".join(f"trainer.{name}" for name in dict.fromkeys(self._trainer.reads))
            raise UnstackableError(f"{self._name}.loss reads the Trainer ({names})")
        generators, environment = _outside()
        if self._outside[0] != generators:
            raise UnstackableError(f"{self._name}.loss draws random numbers")
        if self._outside[1] != environment:
            raise UnstackableError(f"{self._name}.loss changes the environment")
        if (path := self._state.changed(read(self._module))) is not None:
            raise UnstackableError(f"{self._name}.loss changes what it is called on ({readable(path)})")


def _outside() -> tuple[Any, dict[str, str]]:
    """The states of the global generators, in a form that can be compared, and the environment."""
    kind, keys, *rest = np.random.get_state()
    arrays = (kind, np.asarray(keys).tobytes(), *rest)
    return (random.getstate(), arrays, torch.get_rng_state().numpy().tobytes()), dict(os.environ)


def readable(path: str) -> str:
    """A path as one would write it in Python: `network.training` for `_modules['network'].training`."""
    return path.replace("_modules.['", "").replace("']", "").replace("['", "")
