"""Keys without effect, held against what one sees by eye; properties over many tables."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.store.result import Result
from holdfast.sweeps.effects import identical, without_effect
from holdfast.sweeps.ended import Job
from tests.conftest import command_line


def job(number: int, words: str, value: float, status: Any = "completed") -> Job:
    best = {"epoch": 0, "val/loss": value}
    overrides = words.split()
    return Job(number, overrides, "rows", Result(status, overrides, "h", "val/loss", best=best, last=best, epochs=1))


def test_a_key_has_no_effect_if_jobs_that_differ_in_it_alone_are_identical() -> None:
    jobs = [
        job(0, "lr=0.1 optimizer=sgd", 1.0),
        job(1, "lr=0.1 optimizer=adam", 1.0),
        job(2, "lr=0.2 optimizer=sgd", 2.0),
        job(3, "lr=0.2 optimizer=adam", 2.0),
    ]
    assert without_effect(jobs) == ["optimizer"]
    assert identical(jobs) == [[0, 1], [2, 3]]


def test_one_difference_is_an_effect() -> None:
    jobs = [job(0, "a=1 b=1", 1.0), job(1, "a=2 b=1", 1.0), job(2, "a=1 b=2", 3.0), job(3, "a=2 b=2", 3.5)]
    assert without_effect(jobs) == []
    assert identical(jobs) == [[0, 1]]


def test_jobs_that_diverged_tell_nothing() -> None:
    assert without_effect([job(0, "lr=10", 1.0, "diverged"), job(1, "lr=20", 1.0, "diverged")]) == []


@given(st.lists(st.integers(1, 3), min_size=3, max_size=3), st.sets(st.integers(0, 2)))
def test_in_a_grid_the_keys_that_the_outcome_does_not_read_are_found(sizes: list[int], reads: set[int]) -> None:
    grid = list(itertools.product(*map(range, sizes)))
    jobs = [
        job(number, " ".join(f"k{key}={value}" for key, value in enumerate(values)), hash_of(values, reads))
        for number, values in enumerate(grid)
    ]
    swept = {key for key, size in enumerate(sizes) if size > 1}
    assert set(without_effect(jobs)) == {f"k{key}" for key in swept - reads}


def hash_of(values: tuple[int, ...], reads: set[int]) -> float:
    return float(sum(values[key] * 10**key for key in reads))


MODULE = '''
import lightning.pytorch as pl
import torch
from holdfast.model import Linear

class Brings(Linear):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)

class Forgets(pl.LightningModule):
    """Its YAML file does not pass the learning rate on."""
    def __init__(self, lr=0.01):
        super().__init__()
        self.lr, self.network = lr, torch.nn.Linear(1, 1)
    def training_step(self, batch):
        return torch.nn.functional.mse_loss(self.network(batch[0]), batch[1])
    def validation_step(self, batch):
        self.log("val/loss", torch.nn.functional.mse_loss(self.network(batch[0]), batch[1]))
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr)
'''


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Sweep over one of these modules; returns the exit code and what was printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(option: str, *words: str) -> tuple[int, str]:
        (tmp_path / "users_effects.py").write_text(MODULE)
        (tmp_path / "conf" / "model").mkdir(parents=True)
        (tmp_path / "conf" / "model" / "mine.yaml").write_text(option)
        common = ("model=mine", "epochs=1", "batch_size=20", "hydra.sweep.dir=swept")
        return command_line("-m", "--config-dir", "conf", *common, *words)

    return run


def test_a_sweep_says_so(sweep: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    code, said = sweep("defaults: [linear]\n_target_: users_effects.Brings\n", "optimizer=sgd,adam", "seed=0,1")
    assert code == 0
    assert "no effect: optimizer: jobs that differ only there are identical, such as jobs 0, 2" in said
    assert "the same as that of optimizer=adam" in said
    selection = json.loads((tmp_path / "swept" / "selection.json").read_text())
    assert selection["without_effect"] == ["optimizer"]
    assert selection["identical"] == [[0, 2], [1, 3]]
    assert "optimizer had no effect" in (tmp_path / "swept" / "report.html").read_text()


def test_a_learning_rate_that_is_not_passed_on_has_no_effect(sweep: Callable[..., tuple[int, str]]) -> None:
    _, said = sweep("_target_: users_effects.Forgets\n", "lr=0.01,0.1", "report=false")
    assert "no effect: lr: jobs that differ only there are identical, such as jobs 0, 1" in said


def test_where_every_key_has_an_effect_nothing_is_said(holdfast: Callable[..., Any], tmp_path: Path) -> None:
    code, said = command_line("-m", "lr=0.01,0.1", "epochs=1", "report=false", "hydra.sweep.dir=swept")
    assert code == 0
    assert "no effect" not in said
