"""Digests of content: different for what computes something else, equal for what was made alike, in any process."""

from __future__ import annotations

import copy
import importlib
import re
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import linregress
from sklearn.tree import DecisionTreeRegressor
from sklearn.utils import Bunch

from holdfast.usercode.content_digest import content_digest
from tests.forked import python


class Array(np.ndarray):
    """An array with an attribute."""

    scale: float


def array_of(scale: float) -> Array:
    array = np.zeros(2).view(Array)
    array.scale = scale
    return array


class Weight:
    """An object that can be a key."""

    def __init__(self, value: float) -> None:
        self.value = value


def test_digests_tell_apart_what_computes_something_else() -> None:
    weight = torch.ones(2)
    pairs: list[tuple[Any, Any]] = [
        (lambda x: torch.relu(x) + 1, lambda x: torch.tanh(x) + 1),
        (lambda x: x.sum(), lambda x: x.mean()),
        (lambda x, *, p=1: x * p, lambda x, *, p=2: x * p),
        (lambda x: [each.sum() for each in x], lambda x: [each.mean() for each in x]),
        (torch.nn.Linear(1, 1).requires_grad_(False), torch.nn.Linear(1, 1)),
        (torch.nn.Parameter(weight), weight),
        (torch.ones(2, 3), torch.ones(3, 2).T),
        ([weight, weight], [weight, weight.clone()]),
        (np.zeros(2, np.float32), np.zeros(1, np.float64)),
        ({"a": 1}, {"a": True}),
        (pd.DataFrame({"a": [1.0, 2.0]}), pd.DataFrame({"a": [1.0, 3.0]})),
        (pd.Series(["a", "b"]), pd.Series(["a", "c"])),
        (np.ma.masked_array([1.0, 2.0], [True, False]), np.ma.masked_array([1.0, 2.0], [False, True])),
        ([torch.tensor(0.12345)] * 100_001, [torch.tensor(0.12346)] * 100_001),
        (re.compile("a" * 300 + "b"), re.compile("a" * 300 + "c")),
        (DecisionTreeRegressor().fit([[0.0], [1.0]], [0, 1]), DecisionTreeRegressor().fit([[0.0], [1.0]], [0, 2])),
        (defaultdict(int), defaultdict(float)),
        (lambda a, b: a - b, lambda b, a: a - b),
        (lambda *x: x, lambda x: x),
        ({Weight(1.0)}, {Weight(2.0)}),
        ({Weight(1.0): 1}, {Weight(2.0): 1}),
        (np.array([lambda x: x + 1]), np.array([lambda x: x + 2])),
        (array_of(1.0), array_of(2.0)),
        (Bunch(k=1), Bunch(k=2)),
        (linregress([0.0, 1.0, 2.0], [0.0, 1.0, 2.5]), linregress([0.0, 1.0, 2.0], [0.0, 1.0, 2.6])),
        (property(None, None, lambda self: 1), property(None, None, lambda self: 2)),
    ]
    for one, other in pairs:
        assert content_digest(one) == content_digest(one)
        assert content_digest(one) != content_digest(other)


def test_modules_with_hooks_have_one_digest_each_time_they_are_built() -> None:
    def scaled(factor: int, layer: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return factor * output

    def built(norm: Callable[[torch.nn.Module], torch.nn.Module], *factors: int) -> str:
        torch.manual_seed(0)
        layer = norm(torch.nn.Linear(2, 2))
        for factor in factors:
            layer.register_forward_hook(partial(scaled, factor))
        return content_digest(layer)

    for norm in (torch.nn.utils.parametrizations.weight_norm, torch.nn.Sequential):
        assert built(norm, 2, 3) == built(norm, 2, 3)
        assert built(norm, 2, 3) != built(norm, 3, 2)
        assert built(norm) != built(norm, 3)


SCRIPT = """
import torch
from enum import Enum
from random import random
from numpy.random import default_rng, normal
from holdfast.usercode.content_digest import content_digest

class Stage(Enum):
    TRAIN = 1
    VAL = 2

network = {first}
TYPES = {{torch.float16, torch.float32, Stage.TRAIN, Stage.VAL, torch.tanh, torch.relu, 'a', 'b'}}
LOSSES = {{torch.nn.functional.mse_loss: 1.0, print: 2, Stage.TRAIN: 3}}

class Mine:
    def step(self, other):
        '{doc}'
        from used_inside import sub
        return other.network, TYPES, LOSSES, random(), default_rng, normal, sub.f(1)

random(), normal()
print(content_digest(Mine))
"""


def test_a_script_counts_by_what_a_class_names_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "used_inside").mkdir()
    (tmp_path / "used_inside/__init__.py").touch()
    (tmp_path / "used_inside/sub.py").write_text("def f(x): return x\n")

    def printed(first: int, doc: str = "One.") -> str:
        (tmp_path / "script.py").write_text(SCRIPT.format(first=first, doc=doc))
        done = python("script.py", cwd=tmp_path)
        assert len(done.stdout) == 65, done.stderr
        return done.stdout

    before = printed(1)
    assert printed(1) == before
    assert printed(2, "Another.") == before, "`network` is an attribute there"
    (tmp_path / "used_inside/sub.py").write_text("def f(x): return 7 * x\n")
    assert printed(1) != before


def test_copies_have_the_same_digest() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3, 4], "c": [5.0, 6.0], "d": ["x", "y"]})
    frame["e"] = frame["a"] * 2
    for value in (frame, torch.nn.Linear(2, 2), {Weight(1.0): {2}}):
        assert content_digest(copy.deepcopy(value)) == content_digest(value)


LIBRARY = {
    "{p}_pkg/__init__.py": "",
    "{p}_pkg/sub.py": "from . import deeper\ndef f(x): return deeper.f(x)\n",
    "{p}_pkg/deeper.py": "def f(x): return 1 * x\n",
    "{p}_space/inner/part.py": "from ..other import f\n",
    "{p}_space/other.py": "def f(x): return 1 * x\n",
    "{p}_helper.py": "from {p}_deep import f as g\nclass Base:\n    pass\ndef f(x): return 1 * g(x)\n",
    "{p}_deep.py": "def f(x): return 1 * x\n",
}


class Use(NamedTuple):
    """How a class uses the library: what it imports, its base, what its method does, and the file that is edited."""

    imports: str
    base: str
    method: str
    edited: str


USES = {
    "a module in a package, by its full name": Use(
        "import {p}_pkg.sub", "", "return {p}_pkg.sub.f(x)", "{p}_pkg/deeper.py"
    ),
    "a module that a module imports": Use("import {p}_helper", "", "return {p}_helper.f(x)", "{p}_deep.py"),
    "the file of a base": Use("import {p}_helper", "{p}_helper.Base", "return {p}_helper.f(x)", "{p}_helper.py"),
    "after another function of the file": Use(
        "import {p}_helper\nfrom {p}_helper import f", "", "return f({p}_helper.g(x))", "{p}_deep.py"
    ),
    "imported inside": Use("", "", "import {p}_deep; return {p}_deep.f(x)", "{p}_deep.py"),
    "imported inside, from folders without __init__.py": Use(
        "", "", "from {p}_space.inner.part import f; return f(x)", "{p}_space/other.py"
    ),
}


@pytest.mark.parametrize("use", USES)
def test_files_that_a_class_uses_count_but_for_their_comments(
    use: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = f"used_{list(USES).index(use)}"
    imports, base, method, edited = (text.replace("{p}", prefix) for text in USES[use])
    source = f"{imports}\nclass Mine({base}):\n    def step(self, x):\n        {method}\n"
    for name, text in {**LIBRARY, "{p}_mine.py": source}.items():
        file = tmp_path / name.replace("{p}", prefix)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace("{p}", prefix))
    monkeypatch.syspath_prepend(str(tmp_path))
    mine = importlib.import_module(f"{prefix}_mine").Mine
    before = content_digest(mine)
    assert mine().step(2.0) == 2.0
    assert content_digest(mine) == before, "what it imports is imported by now"
    file = tmp_path / edited
    file.write_text(f'"""A docstring."""\n# a comment\n{file.read_text()}')
    assert content_digest(mine) == before
    file.write_text(file.read_text().replace("1 * ", "2 * "))
    assert content_digest(mine) != before
