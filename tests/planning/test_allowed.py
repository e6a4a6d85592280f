"""Code that a stack would not call, or not see, however it is written."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Protocol, runtime_checkable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (as everyone imports it)
import torchmetrics
from torch import Tensor

from holdfast.planning.plan import plan
from holdfast.planning.share import share
from holdfast.single.trainer import train_one
from holdfast.store.folders import RunFolder
from tests.planning.test_width import jobs_of
from tests.stacked.test_loop import assert_folders_alike, specs, stacked
from tests.zoo.modules import Regressor

LATE = 3
"""An epoch that no trial reaches."""


def clip_late(self: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
    with torch.no_grad():
        for value in self.parameters() if self.current_epoch >= LATE else ():
            value.clamp_(-0.05, 0.05)


@runtime_checkable
class Clips(Protocol):
    """A protocol, of which every LightningModule is said to be a subclass."""

    on_train_batch_end = clip_late


class ByProtocol(Clips, Regressor):
    """A hook from a protocol."""

    def __init__(self, lr: float = 0.01) -> None:
        Regressor.__init__(self, lr)


class Steps(type):
    """Makes classes that say of every module that it derives from them."""

    def __subclasscheck__(cls, other: type) -> bool:
        return hasattr(other, "training_step")


class HasStep(metaclass=Steps):
    """Such a class."""

    on_train_batch_end = clip_late


class ByHook(HasStep, Regressor):
    """A hook from such a class."""

    def __init__(self, lr: float = 0.01) -> None:
        Regressor.__init__(self, lr)


class Options(Regressor):
    """Numbers as attributes of a dictionary that is empty."""

    def __init__(self, lr: float = 0.01, l2: float = 0.0) -> None:
        super().__init__(lr)
        self.options: Any = OrderedDict()
        self.options.l2 = l2

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        loss = F.mse_loss(self(x), y)
        if self.current_epoch >= LATE:
            loss = loss + self.options.l2 * self.net[0].weight.square().sum()
        self.log("train/loss", loss)
        return loss


class Keys(Options):
    """Numbers as keys of a dictionary, of values that are empty."""

    def __init__(self, lr: float = 0.01, power: float = 1.0) -> None:
        super().__init__(lr)
        self.tables: Any = {power: OrderedDict()}

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        loss = F.mse_loss(self(x), y)
        for power in self.tables if self.current_epoch >= LATE else ():
            loss = loss * power
        self.log("train/loss", loss)
        return loss


class Error(torchmetrics.Metric):
    """Looks at the mode of its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, value: Tensor) -> None:
        self.total += value

    def compute(self) -> Tensor:
        return self.total * (2 if self.training else 1)


class Measured(Regressor):
    """Logs a metric as an object."""

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__(lr)
        self.error = Error()

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        loss = F.mse_loss(self(x), y)
        self.error.update(loss)
        self.log("val/loss", loss)
        self.log("val/error", self.error)


class Marks(Regressor):
    """An empty dictionary that a step makes."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        loss = F.mse_loss(self(x), y) * (3 if hasattr(self, "seen") else 1)
        self.seen = OrderedDict[str, int]()
        self.log("train/loss", loss)
        return loss


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ByProtocol", "ByProtocol.on_train_batch_end needs a Trainer"),
        ("ByHook", "ByHook.on_train_batch_end needs a Trainer"),
        ("Marks", "changes what it is called on (seen)"),
    ],
)
def test_refused(name: str, reason: str) -> None:
    (part,) = share(jobs_of(f"{__name__}.{name}", 2))
    assert reason in str(part.reason)


@pytest.mark.parametrize(
    ("name", "arguments"), [("Options", {"l2": [0.0, 0.1]}), ("Keys", {"power": [1.0, 2.0]}), ("Measured", {})]
)
def test_every_number_is_that_of_a_trainer(name: str, arguments: dict[str, Any], tmp_path: Any) -> None:
    configs = jobs_of(f"{__name__}.{name}", 4, "epochs=5", "precision=64-true", **arguments)
    made = plan(configs, share)
    assert made.stacks
    for stack in made.stacks:
        jobs = specs([configs[number] for number in stack])
        _, sweep = stacked(jobs, tmp_path / f"stack{stack[0]}", by_steps=stack[0] in made.by_steps)
        for job in jobs:
            (alone := tmp_path / f"alone{stack[job.number]}").mkdir()
            train_one(job, RunFolder(alone))
            assert_folders_alike(sweep.job(job.number).path, alone, rtol=1e-9, atol=1e-12)
