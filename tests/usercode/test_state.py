"""The state of a module: every kind of change is detected, and none where nothing changed."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from holdfast.arithmetic.job_values import differing_values, replaced
from holdfast.model import Regression
from holdfast.usercode.state import read

DICE = random.Random(1)
SETTINGS = {"scale": [1.0, 2.0]}


@dataclasses.dataclass(slots=True)
class Slotted:
    value: float


class Labels(set[int]):
    scale = 1.0


class Child(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = 2.0


class Module(Regression):
    """Stores a number in many different ways."""

    in_the_class = 1.0

    def __init__(self, value: float = 0.0) -> None:
        super().__init__(nn.Linear(1, 1))
        self.save_hyperparameters()
        self.number, self.listed, self.nested = value, [1.0, value], {"a": {"b": value}}
        self.tensor, self.array = torch.zeros(2), np.zeros(2)
        self.child, self.slotted = Child(), Slotted(value)
        self.register_buffer("buffer", torch.zeros(2))
        self.generator, self.dice, self.roll = torch.Generator(), random.Random(0), np.random.default_rng(0)
        self.count, self.seen, self.labels, self.strings = itertools.count(), {1}, Labels(), {"a": "b"}
        cell = [value]
        self.closure = lambda: cell[0]
        self.cell = cell
        self.partial = functools.partial(max, value)

    def loss(self, batch: Any) -> torch.Tensor:
        scale = SETTINGS["scale"][0] * DICE.random()
        return super().loss(batch) * scale


CHANGES: dict[str, Callable[[Module], Any]] = {
    "a number": lambda module: setattr(module, "number", 1.0),
    "an entry of a list": lambda module: module.listed.__setitem__(0, 3.0),
    "a longer list": lambda module: module.listed.append(3.0),
    "a nested entry": lambda module: module.nested["a"].__setitem__("b", 3.0),
    "a tensor": lambda module: module.tensor.add_(1),
    "an array": lambda module: module.array.__setitem__(0, 1),
    "a child": lambda module: setattr(module.child, "scale", 3.0),
    "a slot": lambda module: setattr(module.slotted, "value", 3.0),
    "a buffer": lambda module: module.buffer.add_(1),
    "torch's generator": lambda module: torch.rand(1, generator=module.generator),
    "Python's generator": lambda module: module.dice.random(),
    "numpy's generator": lambda module: module.roll.random(),
    "a count": lambda module: next(module.count),
    "a set": lambda module: module.seen.add(2),
    "an attribute of a set": lambda module: setattr(module.labels, "scale", 2.0),
    "a string": lambda module: module.strings.__setitem__("a", "c"),
    "a variable of a closure": lambda module: module.cell.__setitem__(0, 3.0),
    "a hyperparameter": lambda module: module.hparams.__setitem__("value", 3.0),
    "a new attribute": lambda module: setattr(module, "new", 1),
    "a deleted attribute": lambda module: delattr(module, "number"),
    "the mode": lambda module: module.eval(),
    "the class": lambda module: setattr(Module, "in_the_class", Module.in_the_class + 1),
    "a global": lambda module: SETTINGS["scale"].__setitem__(1, SETTINGS["scale"][1] + 1),
    "a global generator": lambda module: DICE.random(),
    "a frozen parameter": lambda module: module.network.weight.requires_grad_(False),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_detected(name: str) -> None:
    module = Module()
    before = read(module)
    assert before.changed(read(module)) is None
    CHANGES[name](module)
    assert before.changed(read(module)) is not None


def test_changed_parameters_are_no_change_of_state() -> None:
    module = Module()
    before = read(module)
    with torch.no_grad():
        module.network.weight.add_(1)
    assert before.changed(read(module)) is None


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({"number": 5.0}, True),
        ({"number": 5}, True),
        ({"tensor": torch.ones(2)}, True),
        ({"number": True}, False),
        ({"number": "5"}, False),
        ({"number": None}, False),
        ({"tensor": torch.ones(3)}, False),
        ({"tensor": torch.ones(2, dtype=torch.int64)}, False),
        ({"listed": [1.0, 2.0, 3.0]}, False),
        ({"slotted": Slotted(7.0)}, False),
        ({"partial": functools.partial(max, 7.0)}, False),
        ({"dice": random.Random(9)}, False),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else str(value),
)
def test_modules_have_the_same_structure_if_they_differ_only_in_numbers(other: dict[str, Any], same: bool) -> None:
    one, two = Module(), Module()
    for name, value in other.items():
        setattr(two, name, value)
    assert (read(one).structure() == read(two).structure()) is same


def test_numbers_of_the_jobs_replace_those_of_the_shared_module_for_a_while() -> None:
    modules = [Plain(1.0, 3), Plain(2.0, 3), Plain(2.5, 3)]
    states = [read(module) for module in modules]
    numbers = differing_values(states[0], states, torch.zeros(1))
    assert {number.key for number in numbers} == {"value"}, "both the attribute and the hyperparameter"
    for number in numbers:
        assert number.values.tolist() == [1.0, 2.0, 2.5]
        assert number.of_jobs(np.array([[2, 0]])).tolist() == [[2.5, 1.0]]
    with replaced(numbers, [torch.tensor(7.0)] * len(numbers)):
        assert (float(modules[0].value), float(modules[0].hparams.value), modules[0].other) == (7.0, 7.0, 3)
    assert (modules[0].value, modules[0].hparams.value) == (1.0, 1.0)


class Plain(Regression):
    def __init__(self, value: float, other: int) -> None:
        super().__init__(nn.Linear(1, 1))
        self.save_hyperparameters()
        self.value, self.other = value, other
