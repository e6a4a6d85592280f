"""Jobs are compared on the same validation rows, whichever launcher runs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import command_line

MODULES = """
import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset, random_split
from holdfast.data import Line, Rows
from holdfast.model import Linear

class Noisy(Line):
    '''Label noise that depends on the order seed, as in projects with one seed for everything.'''
    def draw(self, split):
        rows = super().draw(split)
        generator = torch.Generator().manual_seed(self.order_seed)
        return Rows(rows.x, rows.y + torch.randn(rows.y.shape, generator=generator))

class Drawn(Line):
    '''Rows from torch's global generator.'''
    def draw(self, split):
        rows = super().draw(split)
        return Rows(rows.x, rows.y + torch.randn(rows.y.shape))

class Foreign(pl.LightningDataModule):
    '''Splits at random, by torch's global generator.'''
    def __init__(self, batch_size, order_seed=0, by_batch=False):
        super().__init__()
        self.batch_size, self.by_batch = batch_size, by_batch
    def setup(self, stage):
        x = torch.linspace(-1, 1, 100).unsqueeze(1)
        self.train, self.val = random_split(TensorDataset(x, 3 * x), [0.8, 0.2])
        if self.by_batch:
            self.val = [self.val[i] for i in range(self.batch_size)]
    def train_dataloader(self):
        return DataLoader(self.train, self.batch_size, shuffle=True)
    def val_dataloader(self):
        return DataLoader(self.val, self.batch_size)

class Fails(Line):
    def __init__(self, extra=0, **keys):
        super().__init__(**keys)
        if extra == 1:
            raise ValueError("an extra of 1 is not possible")

class FailsLater(Fails):
    def __init__(self, extra=0, **keys):
        Line.__init__(self, **keys)
        self.extra = extra
    def draw(self, split):
        if self.extra == 1:
            raise ValueError("an extra of 1 is not possible")
        return super().draw(split)
"""


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Sweep over a user's data module; returns the exit code, what was printed, and selection.json."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "users_rows.py").write_text(MODULES)
    (tmp_path / "conf" / "data").mkdir(parents=True)
    for name in ("Noisy", "Drawn", "Fails", "FailsLater"):
        extra = "extra: 0\n" if "Fails" in name else ""
        text = f"defaults: [clean_line]\n_target_: users_rows.{name}\n{extra}"
        (tmp_path / "conf" / "data" / f"{name.lower()}.yaml").write_text(text)
    keys = "batch_size: ${batch_size}\norder_seed: ${seed}\nby_batch: false\n"
    (tmp_path / "conf" / "data" / "foreign.yaml").write_text(f"_target_: users_rows.Foreign\n{keys}")

    def run(launcher: str, *overrides: str, into: str = "") -> tuple[int, str, dict[str, Any]]:
        folder = into or launcher
        common = ("epochs=2", "report=false", f"hydra/launcher={launcher}", f"hydra.sweep.dir={folder}")
        code, printed = command_line("-m", "--config-dir", "conf", *overrides, *common)
        return code, printed, json.loads((tmp_path / folder / "selection.json").read_text())

    return run


@pytest.mark.parametrize("launcher", ["stacked", "basic"])
def test_rows_that_depend_on_the_order_seed_are_different_data_sets(launcher: str, sweep: Callable[..., Any]) -> None:
    _, _, selection = sweep(launcher, "data=noisy", "seed=0,1", "batch_size=20", "sweep.repeats=[]")
    assert selection["winner"] is None
    assert len(selection["data_sets"]) == 2


@pytest.mark.parametrize("launcher", ["stacked", "basic"])
def test_settings_are_compared_where_their_repeats_are_on_the_same_data_sets(
    launcher: str, sweep: Callable[..., Any]
) -> None:
    _, _, selection = sweep(launcher, "data=noisy", "seed=0,1", "lr=0.01,0.02", "batch_size=20")
    assert selection["winner"] is not None
    assert selection["repeats"]["completed"] == 2
    assert len(selection["data"].split("+")) == 2


@pytest.mark.parametrize("launcher", ["stacked", "basic"])
def test_rows_of_a_global_generator_are_the_same_at_every_launch(launcher: str, sweep: Callable[..., Any]) -> None:
    _, _, once = sweep(launcher, "data=drawn", "lr=0.01,0.1", "batch_size=20")
    _, _, again = sweep("basic", "data=drawn", "lr=0.01,0.1", "batch_size=20", into="again")
    assert once["data"] == again["data"]
    assert once["value"] == pytest.approx(again["value"], rel=1e-5)
    assert once["test"] == pytest.approx(again["test"], rel=1e-5)


def test_a_random_split_gives_the_same_rows_to_every_seed(sweep: Callable[..., Any], tmp_path: Path) -> None:
    """Unseeded, `random_split` would depend on the seed of the weights, and jobs would have different rows."""

    def losses(folder: str) -> set[float]:
        results = [json.loads((tmp_path / folder / str(number) / "result.json").read_text()) for number in range(3)]
        return {result["best"]["val/loss"] for result in results}

    sweep("basic", "data=foreign", "seed=0,1,2", "batch_size=20", "lr=1e-30")
    assert len(losses("basic")) == 3, "different weights"
    sweep("basic", "data=foreign", "seed=0,1,2", "model.weight=0", "model.bias=0", "lr=1e-30", into="same")
    assert len(losses("same")) == 1, "equal weights and equal rows"


def test_rows_that_depend_on_the_batch_size_are_different_data_sets(sweep: Callable[..., Any]) -> None:
    _, _, alike = sweep("basic", "data=foreign", "batch_size=10,20")
    assert alike["winner"] is not None
    _, _, apart = sweep("basic", "data=foreign", "batch_size=10,20", "data.by_batch=true", into="apart")
    assert apart["winner"] is None
    assert len(apart["data_sets"]) == 2


@pytest.mark.parametrize("data", ["fails", "failslater"])
@pytest.mark.parametrize("launcher", ["stacked", "basic"])
def test_a_data_module_that_raises_fails_only_its_job(
    data: str, launcher: str, sweep: Callable[..., Any], tmp_path: Path
) -> None:
    code, printed, selection = sweep(launcher, f"data={data}", "data.extra=0,1", "lr=0.01,0.1", "batch_size=20")
    assert code == 1
    assert "Traceback" not in printed
    for number, overrides in ((2, "data.extra=1 lr=0.01"), (3, "data.extra=1 lr=0.1")):
        assert f"job {number} ({overrides}): failed: ValueError" in printed
        result = json.loads((tmp_path / launcher / str(number) / "result.json").read_text())
        assert result["status"] == "failed"
        assert result["error"].startswith("ValueError: an extra of 1 is not possible (")
    assert selection["winner"] == 1, "the others are compared as if it had not been there"
