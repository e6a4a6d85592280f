"""Global state that a job changes is restored before the next job."""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import _global_optimizer_pre_hooks, register_optimizer_step_pre_hook

from holdfast.runtime.isolation import isolated
from holdfast.runtime.targets import import_target
from holdfast.store.folders import SweepFolder
from holdfast.usercode.variables import globals_restored
from tests.conftest import command_line

CHANGES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "default dtype": (lambda: torch.set_default_dtype(torch.float64), torch.get_default_dtype),
    "default device": (lambda: torch.set_default_device("meta"), lambda: torch.zeros(1).device),
    "matmul precision": (lambda: torch.set_float32_matmul_precision("medium"), torch.get_float32_matmul_precision),
    "precision of all": (
        lambda: setattr(torch.backends, "fp32_precision", "tf32"),
        lambda: torch.backends.cuda.matmul.fp32_precision,
    ),
    "threads": (lambda: torch.set_num_threads(torch.get_num_threads() + 1), torch.get_num_threads),
    "deterministic": (lambda: torch.use_deterministic_algorithms(True), torch.are_deterministic_algorithms_enabled),
    "deterministic, with a warning": (
        lambda: torch.use_deterministic_algorithms(True, warn_only=True),
        torch.is_deterministic_algorithms_warn_only_enabled,
    ),
    "gradients": (lambda: torch.set_grad_enabled(False), torch.is_grad_enabled),
    "anomalies": (lambda: torch.autograd.set_detect_anomaly(True), torch.is_anomaly_enabled),
    "cudnn": (lambda: setattr(torch.backends.cudnn, "benchmark", True), lambda: torch.backends.cudnn.benchmark),
    "print options": (lambda: torch.set_printoptions(precision=9), lambda: repr(torch.tensor(1 / 3))),
    "numpy's errors": (lambda: np.seterr(all="raise"), np.geterr),
    "numpy's print options": (lambda: np.set_printoptions(precision=2), lambda: repr(np.array(1 / 3))),
    "torch's generator": (lambda: torch.manual_seed(5), torch.initial_seed),
    "numpy's generator": (lambda: np.random.seed(5), lambda: np.random.get_state()[1][0]),
    "Python's generator": (lambda: random.seed(5), random.getstate),
    "warnings": (lambda: warnings.simplefilter("ignore"), lambda: list(warnings.filters)),
    "the environment": (lambda: os.environ.update(LEFT_BY_A_JOB="1"), lambda: dict(os.environ)),
    "the working folder": (lambda: os.chdir("/"), os.getcwd),
    "hooks of modules": (
        lambda: register_module_forward_hook(lambda *_: None),
        lambda: dict(torch.nn.modules.module._global_forward_hooks),
    ),
    "hooks of optimizers": (
        lambda: register_optimizer_step_pre_hook(lambda *_: None),
        lambda: dict(_global_optimizer_pre_hooks),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_global_state_that_a_job_changes_is_restored(name: str) -> None:
    change, read = CHANGES[name]
    before = read()
    with isolated():
        change()
        assert read() != before, "it has changed"
    assert read() == before


NEIGHBOUR = """
DEEP, SHIFT = {"a": {"b": [1]}}, 0
class Settings:
    rate = 1
"""
VARIABLES = """
import collections, functools, itertools, random, types
import numpy as np, torch
import users_neighbour
from users_neighbour import DEEP, Settings
COUNT, TABLE, SEEN, DICE = 0, {"a": 1}, [1], random.Random(3)
ARRAY, ROLL, NEXT, TENSOR = np.zeros(2), np.random.default_rng(3), itertools.count(), torch.zeros(2)
QUEUE, SPACE, NET = collections.deque([1]), types.SimpleNamespace(n=0), torch.nn.Linear(1, 1)
class Meta(type):
    made = 0
@functools.lru_cache
def drawn(n):
    return random.random()
def default(store={"n": 0}):
    store["n"] += 1
    return store["n"]
def make():
    n = 0
    def called():
        nonlocal n
        n += 1
        return n
    return called
CALLED = make()
class Thing(metaclass=Meta):
    made = 0
    def __init__(self):
        global COUNT, ADDED
        COUNT += 1
        ADDED = 1
        type(self).made += 1
        Meta.made += 1
        TABLE["b"] = 2
        SEEN.append(2)
        QUEUE.append(2)
        SPACE.n += 1
        NET.added = getattr(NET, "added", 0) + 1
        DEEP["a"]["b"].append(1)
        Settings.rate += 1
        users_neighbour.SHIFT += 1
        ARRAY[0] += 7
        TENSOR[0] += 7
        self.numbers = (
            COUNT, self.made, Meta.made, len(TABLE), len(SEEN), len(QUEUE), SPACE.n, NET.added, DICE.random(),
            ROLL.random(), next(NEXT), len(DEEP["a"]["b"]), Settings.rate, users_neighbour.SHIFT, ARRAY[0],
            TENSOR[0].item(), drawn(1), default(), CALLED(),
        )
"""


def test_variables_of_the_users_modules_are_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "users_neighbour.py").write_text(NEIGHBOUR)
    (tmp_path / "users_variables.py").write_text(VARIABLES)
    seen = []
    for number in range(3):
        with isolated():  # the first one imports the module
            random.seed(number)
            seen.append(import_target("users_variables.Thing")().numbers)
    expected = (1, 1, 1, 2, 2, 2, 1, 1, random.Random(3).random(), np.random.default_rng(3).random(), 0, 2, 2, 1, 7, 7)
    for number, numbers in enumerate(seen):
        assert numbers == (*expected, random.Random(number).random(), 1, 1)
    assert not hasattr(sys.modules["users_variables"], "ADDED")


def test_variables_are_restored_as_often_as_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "users_neighbour.py").write_text(NEIGHBOUR)
    (tmp_path / "users_again.py").write_text(VARIABLES)
    with isolated():
        thing = import_target("users_again.Thing")
    with globals_restored() as restore:
        seen = []
        for _ in range(3):
            seen.append([number for number in thing().numbers if isinstance(number, int)])
            restore()
    assert seen[0] == seen[1] == seen[2]


SWITCHING = """
import torch
from holdfast.model import Linear
torch.set_default_dtype(torch.float64)
class Double(Linear):
    pass
"""


@pytest.mark.parametrize("order", ["linear,double", "double,linear"])
def test_a_setting_changed_by_an_import_applies_to_jobs_that_import_the_module(
    order: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, `model=linear` would never have imported the module; `model=double` always does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"users_switch_{order.partition(',')[0]}"
    (tmp_path / f"{name}.py").write_text(SWITCHING)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "double.yaml").write_text(f"defaults: [linear]\n_target_: {name}.Double\n")
    overrides = f"model={order} epochs=1 batch_size=full report=false hydra/launcher=basic hydra.sweep.dir=swept"
    # the rows stay float32, which float64 weights do not take; trained alone, this job fails too
    _, printed = command_line("-m", "--config-dir", "conf", *overrides.split())
    folder = SweepFolder(tmp_path / "swept")
    ends = {model: folder.job(number).read().status for number, model in enumerate(order.split(","))}  # type: ignore[union-attr]
    assert ends == {"linear": "completed", "double": "failed"}, printed
    assert torch.get_default_dtype() == torch.float32


@pytest.fixture
def srun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where SLURM is installed."""
    program = tmp_path / "bin" / "srun"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")


@pytest.mark.usefixtures("srun")
@pytest.mark.parametrize("overrides", [[], ["-m", "lr=0.1,0.01"], ["-m", "lr=0.1,0.01", "hydra/launcher=basic"]])
def test_lightnings_notice_about_an_unused_srun_is_not_shown(
    overrides: list[str], holdfast: Callable[..., Any]
) -> None:
    ran = holdfast("epochs=1", "test=true" if not overrides else "report=false", "hydra.sweep.dir=sweep", *overrides)
    assert (ran.code, ran.err) == (0, "")
    assert "srun" not in ran.out


def test_other_warnings_of_the_same_kind_are_shown() -> None:
    with pytest.warns(PossibleUserWarning, match="is available"), isolated():
        warnings.warn("The `scontrol` command is available on your system", PossibleUserWarning, stacklevel=1)
