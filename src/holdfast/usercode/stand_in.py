"""What the code of a LightningModule finds in a stack in the place of its Trainer."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NoReturn

import lightning.pytorch as pl

from holdfast.usercode.watch import UnstackableError

CLOCK = frozenset({"current_epoch", "global_step"})
"""What code may read that changes while a stack trains: where it is read, a trace holds for one value only."""


class StandInTrainer:
    """Knows the epoch, and what `self.log` needs; whatever else is read, or set, is refused and recorded.

    Args:
        max_epochs: epochs of the training.

    Attributes:
        results: what `self.log` writes to.
        known: what may be read, by name.
        reads: what of `known` was read.
        refused: what was read or set besides.
    """

    def __init__(self, max_epochs: int) -> None:
        known = {"current_epoch": 0, "global_step": 0, "max_epochs": max_epochs, "sanity_checking": False}
        results, reads, refused = None, set[str](), list[str]()
        # what Lightning reads in `LightningModule.log`
        connector = SimpleNamespace(should_reset_tensors=lambda fx: False, _current_fx=None)
        self.__dict__.update(
            known=known,
            results=results,
            reads=reads,
            refused=refused,
            training=False,
            barebones=False,
            strategy=_Refusing(refused, "strategy", reduce=None),
            logger=_Refusing(refused, "logger"),
            _logger_connector=connector,
            _accelerator_connector=SimpleNamespace(is_distributed=False),
        )

    @property
    def _results(self) -> Any:
        return self.__dict__["results"]

    def __getattr__(self, name: str) -> Any:
        if name in self.known:
            self.reads.add(name)
            return self.known[name]
        return _refuse(self.refused, name)

    def __setattr__(self, name: str, value: Any) -> None:
        _refuse(self.refused, name)

    def update(self, **attributes: Any) -> None:
        """Set attributes, which only Holdfast may do."""
        self.__dict__.update(attributes)

    def attach(self, module: pl.LightningModule) -> None:
        """Take the place of the Trainer of a module, and of the LightningModules inside it."""
        for each in module.modules():
            if isinstance(each, pl.LightningModule):
                each._trainer = self  # type: ignore[assignment]

    def check(self) -> None:
        """Check that nothing was refused, since the user's code may have caught the error.

        Raises:
            UnstackableError: something was.
        """
        if self.refused:
            _refuse([], self.refused[0])


class _Refusing:
    """An object of the Trainer's of which nothing may be read but a few attributes."""

    def __init__(self, refused: list[str], name: str, **known: Any) -> None:
        self.__dict__.update(known, _refused=refused, _name=name)

    def __getattr__(self, name: str) -> NoReturn:
        _refuse(self._refused, f"{self._name}.{name}")

    def __setattr__(self, name: str, value: Any) -> None:
        _refuse(self._refused, f"{self._name}.{name}")


def _refuse(refused: list[str], name: str) -> NoReturn:
    refused.append(name)
    raise UnstackableError(f"it reads the Trainer (trainer.{name})")


class BatchIndex(int):
    """A `batch_idx` that records whether it was read."""

    was_read = False


def _recording(name: str) -> Callable[..., Any]:
    plain = getattr(int, name)

    def method(self: BatchIndex, *args: Any) -> Any:
        self.was_read = True
        return plain(self, *args)

    return method


for _name in dir(int):
    if (
        _name.startswith("__")
        and callable(getattr(int, _name))
        and _name
        not in (
            *(
                "__new__",
                "__init__",
                "__class__",
                "__getattribute__",
                "__setattr__",
                "__delattr__",
                "__init_subclass__",
            ),
            *("__subclasshook__", "__dir__", "__doc__", "__sizeof__", "__reduce__", "__reduce_ex__", "__getnewargs__"),
        )
    ):
        setattr(BatchIndex, _name, _recording(_name))
