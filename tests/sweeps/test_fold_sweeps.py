"""Sweeps with folds: each job as if alone, settings by their means, and the winner trained once more on all rows."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import KFold, cross_val_score

from holdfast.store.folders import SweepFolder
from tests.conftest import command_line
from tests.stacked.test_loop import assert_alike

MINE = """
import lightning.pytorch as pl, torch
from torch.utils.data import (
    BatchSampler, DataLoader, IterableDataset, RandomSampler, Subset, TensorDataset, WeightedRandomSampler, random_split
)
from holdfast.data import Line

class Rows(pl.LightningDataModule):
    def __init__(self, batch_size=8, kind="plain"):
        super().__init__()
        self.batch_size, self.kind = batch_size, kind

    def setup(self, stage):
        x = torch.linspace(-1, 1, 83).unsqueeze(1)
        self.parts = random_split(TensorDataset(x, 3 * x + torch.randn(83, 1)), [50, 13, 20])
        if self.kind == "augmented":
            self.parts[0] = Augmented(self.parts[0])
        if self.kind == "transformed":
            self.parts[0].dataset, self.parts[1].dataset = Transformed(x, 3 * x), Transformed(x, 3 * x)
            self.parts[0].dataset.transform = "crop"

    def train_dataloader(self):
        if self.kind == "sampler":
            return DataLoader(self.parts[0], 8, sampler=WeightedRandomSampler([1.0] * 50, 50))
        if self.kind == "batches":
            return DataLoader(self.parts[0], batch_sampler=BatchSampler(RandomSampler(self.parts[0]), 8, False))
        if self.kind == "drawn":
            return DataLoader(Subset(self.parts[0], torch.randperm(50)[:40].tolist()), 8, shuffle=True)
        return DataLoader(self.parts[0], self.batch_size, shuffle=True)

    def val_dataloader(self):
        if self.kind == "stream":
            class Stream(IterableDataset):
                def __iter__(self):
                    return iter([(torch.zeros(1), torch.zeros(1))])
            return DataLoader(Stream())
        loader = DataLoader(self.parts[1], self.batch_size)
        return [loader, loader] if self.kind == "two" else loader

    def test_dataloader(self):
        return DataLoader(self.parts[2], self.batch_size)

class Augmented(torch.utils.data.Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        x, y = self.rows[index]
        return x, y + 100

class Transformed(TensorDataset):
    transform = None

class Own(Rows):
    def __init__(self, batch_size=8, kind="plain", fold="none"):
        super().__init__(batch_size, kind)
        self.fold_of_mine = fold

class Loads(Line):
    def val_dataloader(self):
        return super().val_dataloader()

class Scaled(Line):
    def draw(self, split):
        rows = super().draw(split)
        return type(rows)(2 * rows.x, 10 * rows.y)

class SetsUp(Line):
    def setup(self, stage):
        super().setup(stage)

class Net(pl.LightningModule):
    def __init__(self, lr=0.01):
        super().__init__()
        self.layer, self.lr = torch.nn.Linear(1, 1), lr

    def step(self, batch, name):
        loss = (self.layer(batch[0]) - batch[1]).square().mean()
        self.log(name, loss)
        return loss

    def training_step(self, batch, index):
        return self.step(batch, "train/loss")

    def validation_step(self, batch, index):
        self.step(batch, "val/loss")

    def test_step(self, batch, index):
        self.step(batch, "test/loss")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr)

class PlateauNet(Net):
    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val/loss"}}
"""
OF_USERS = ("--config-dir", "my_conf", "model=net", "data=rows", "batch_size=8")


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("fold_rows.py").write_text(MINE)
    for name, text in {
        "data/rows": "_target_: fold_rows.Rows\nbatch_size: ${batch_size}\nkind: plain\n",
        "data/own": "_target_: fold_rows.Own\nfold: 3\n",
        "data/own_without": "_target_: fold_rows.Own\n",
        "data/loads": "defaults: [line]\n_target_: fold_rows.Loads\n",
        "data/scaled": "defaults: [line]\n_target_: fold_rows.Scaled\n",
        "model/plateau": "_target_: fold_rows.PlateauNet\nlr: ${lr}\n",
        "data/sets_up": "defaults: [line]\n_target_: fold_rows.SetsUp\n",
        "model/net": "_target_: fold_rows.Net\nlr: ${lr}\n",
    }.items():
        file = Path("my_conf", f"{name}.yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def sweep(*words: str, name: str = "sweep") -> tuple[SweepFolder, dict[str, Any], str]:
    code, said = command_line("-m", *words, "report=false", f"hydra.sweep.dir={name}")
    assert code == 0, said
    folder = SweepFolder(Path(name))
    return folder, json.loads(folder.selection.read_text()), said


@pytest.mark.parametrize("words", [("precision=64-true",), ("experiment=diabetes", "precision=64-true"), OF_USERS])
def test_a_job_of_a_fold_is_what_its_overrides_make_alone(words: tuple[str, ...]) -> None:
    folder, _, said = sweep(*words, "lr=0.01,0.1", "epochs=3", "sweep.folds=3")
    assert "plan: 6 jobs: 1 stack; 0 alone" in said
    flags = words[:2] if words[0].startswith("--") else ()
    for number, entry in enumerate(json.loads(folder.sweep.read_text())["jobs"]):
        assert entry["overrides"][-1] == f"data.fold={number % 3}/3"
        code, told = command_line(*flags, *entry["overrides"], f"hydra.run.dir=alone{number}")
        assert code == 0, told
        mine = torch.load(folder.job(number).weights, weights_only=True)
        alone = torch.load(Path(f"alone{number}", "model.pth"), weights_only=True)
        tolerance = (1e-9, 1e-12) if words is not OF_USERS else (1e-4, 1e-6)
        assert_alike(mine, alone, *tolerance)
        result = json.loads((Path(f"alone{number}") / "result.json").read_text())
        found = folder.job(number).read()
        assert found is not None
        assert found.best is not None
        assert result["best"]["val/loss"] == pytest.approx(found.best["val/loss"], rel=1e-4)


def of_epochs(folder: SweepFolder, settings: int, folds: int) -> np.ndarray[Any, Any]:
    """The mean over the folds of each settings at every epoch, shape `(settings, epochs)`."""
    curves = [result.by_epoch for _, result in sorted(folder.read_results().items())]
    return np.array(curves, dtype=float).reshape(settings, folds, -1).mean(1)


@pytest.mark.parametrize("launcher", ["stacked", "basic"])
def test_settings_are_compared_at_one_epoch_for_all_folds(launcher: str) -> None:
    # on rows with outliers a large rate is lucky in one epoch of each fold, and in another one each
    words = ("lr=0.01,0.1", "epochs=3", "sweep.folds=4", f"hydra/launcher={launcher}")
    folder, selection, _ = sweep(*words)
    means = of_epochs(folder, 2, 4)
    assert selection["winner"] == 4 * int(means.min(1).argmin())
    assert selection["value"] == pytest.approx(means.min(), rel=1e-9)
    refit = folder.refit().read()
    assert refit is not None
    assert refit.best is not None
    assert refit.epochs == int(means[means.min(1).argmin()].argmin()) + 1
    assert refit.best["epoch"] == refit.epochs - 1
    of_each = [result.best["val/loss"] for _, result in sorted(folder.read_results().items()) if result.best]
    assert np.reshape(of_each, (2, 4)).mean(1).min() < selection["value"]


def test_rows_that_are_drawn_anew_for_each_loader_are_drawn_once() -> None:
    from holdfast.single.build import build_data, set_up

    group = {"_target_": "fold_rows.Rows", "kind": "drawn", "batch_size": 8}
    validated = list[float]()
    for number in range(3):
        data = build_data({**group, "fold": f"{number}/3"})
        set_up(data)
        train, val = (
            [float(row[0]) for row in loader.dataset] for loader in (data.train_dataloader(), data.val_dataloader())
        )
        assert not set(train) & set(val)
        assert len(train) + len(val) == 40 + 13
        validated += val
    assert len(validated) == len(set(validated)) == 53 // 3 * 3


def test_a_subclass_with_rows_of_its_own_is_validated_on_those() -> None:
    from holdfast.cli.main import CONF
    from holdfast.compose.recompose import compose
    from holdfast.data import DataModule
    from holdfast.single.build import build_data, set_up

    group = {**compose(["data=line", "data.outliers=null"], CONF).data, "_target_": "fold_rows.Scaled", "fold": "0/2"}
    data = build_data(group)
    set_up(data)
    assert isinstance(data, DataModule)
    assert float(data.val[:][0].abs().max()) > 4
    slope = np.polyfit(data.val[:][0][:, 0], data.val[:][1][:, 0], 1)[0]
    assert slope == pytest.approx(-15.0, abs=0.5)


def test_an_argument_fold_of_a_class_of_the_users_is_left_to_it() -> None:
    from holdfast.single.build import build_data

    for value in ("0/5", "all/5", "third"):
        assert build_data({"_target_": "fold_rows.Own", "fold": value}).fold_of_mine == value
    assert build_data({"_target_": "fold_rows.Rows", "fold": None}).kind == "plain"


@pytest.mark.parametrize("words", [("model=plateau",), ("model=net", "trainer.max_steps=6")])
def test_a_winner_is_trained_once_more_with_a_plateau_and_with_a_limit(words: tuple[str, ...]) -> None:
    common = ("--config-dir", "my_conf", "data=rows", "batch_size=8", "lr=0.01,0.1", "epochs=4", "sweep.folds=3")
    folder, selection, _ = sweep(*common, *words)
    assert selection["refit"]
    assert selection["test_opened"] == 1
    refit = folder.refit().read()
    assert refit is not None
    assert refit.best is not None
    assert refit.best["epoch"] == refit.epochs - 1


def test_a_refit_that_was_removed_is_trained_again() -> None:
    folder, _, _ = sweep("lr=0.01,0.1", "epochs=2", "sweep.folds=3")
    before = (folder.path / "model.pth").read_bytes()
    (folder.refit().path / "model.pth").unlink()
    code, said = command_line("-m", "resume=sweep")
    assert code == 0, said
    assert "trained once more" in said
    assert (folder.refit().path / "model.pth").read_bytes() == before


def test_settings_are_ranked_by_the_mean_over_folds_and_the_winner_is_trained_on_all_rows() -> None:
    folder, selection, said = sweep("data=linear", "data.rows=100", "batch_size=full", "lr=0.01,0.3", "sweep.folds=4")
    means = of_epochs(folder, 2, 4)
    assert selection["winner"] == 4 == int(means.min(1).argmin()) * 4
    assert selection["value"] == selection["repeats"]["mean"] == pytest.approx(means.min())
    curves = [result.by_epoch for number, result in sorted(folder.read_results().items()) if number >= 4]
    spread = np.array(curves, dtype=float)[:, means[1].argmin()].std(ddof=1) / 2
    assert selection["repeats"] == {
        "mean": pytest.approx(means.min()),
        "standard_error": pytest.approx(spread),
        "completed": 4,
    }
    assert (selection["refit"], selection["test_opened"], "over 4 folds" in selection["why"]) == (True, 1, True)
    for name in ("best.ckpt", "model.pth"):
        assert (folder.refit().path / name).read_bytes() == (folder.path / name).read_bytes()
    # gradient descent on training and validation rows, until the best epoch of all folds, without a line of ours
    refit = folder.refit().read()
    assert refit is not None
    assert refit.epochs == means[1].argmin() + 1
    from holdfast.data.synthetic import linear

    parts = [linear("train", rows=100), linear("val", rows=100)]
    x, y = (torch.cat([getattr(part, name) for part in parts]).double().numpy() for name in ("x", "y"))
    initial = torch.load(folder.job(4).path / "last.ckpt", weights_only=True)  # for its shapes
    assert len(initial["state_dict"]) == 2
    command_line("data=linear", "data.rows=100", "epochs=1", "lr=1e-30", "batch_size=full", "hydra.run.dir=start")
    start = torch.load("start/model.pth", weights_only=True)
    weight, bias = start["linear.weight"].double().numpy()[0], float(start["linear.bias"])
    for _ in range(refit.epochs):
        error = x @ weight + bias - y[:, 0]
        weight, bias = weight - 0.3 * 2 * (error @ x) / len(x), bias - 0.3 * 2 * error.mean()
    exported = torch.load(folder.path / "model.pth", weights_only=True)
    np.testing.assert_allclose(exported["linear.weight"].numpy()[0], weight, rtol=1e-4, atol=1e-6)
    assert float(exported["linear.bias"]) == pytest.approx(bias, abs=1e-5)
    # the command that is printed trains the same model
    command = next(line for line in said.splitlines() if line.startswith("alone:")).split("train.py ")[1]
    assert command_line(*command.split(), "hydra.run.dir=again")[0] == 0
    again = torch.load("again/model.pth", weights_only=True)
    assert all(torch.equal(again[name], exported[name]) for name in exported)


def test_a_schedule_keeps_its_length_where_the_winner_is_trained_once_more() -> None:
    words = ("optimizer=adam", "scheduler=cosine", "lr=0.5,0.9", "epochs=12", "batch_size=20", "sweep.folds=3")
    folder, selection, _ = sweep(*words)
    refit = folder.refit().read()
    assert refit is not None
    assert refit.epochs < 12
    assert "scheduler.T_max=12" in selection["refit_overrides"]


def test_the_mean_over_folds_is_near_that_of_scikit_learn() -> None:
    words = ("experiment=diabetes", "lr=0.1", "epochs=200", "batch_size=full", "sweep.folds=5")
    _, selection, _ = sweep(*words)
    x, y = load_diabetes(return_X_y=True, scaled=False)
    scores = -cross_val_score(
        LinearRegression(), x, y, cv=KFold(5, shuffle=True, random_state=0), scoring="neg_mean_squared_error"
    )
    # other folds of four fifths of the rows: the means agree within their standard errors
    error = math.hypot(selection["repeats"]["standard_error"], scores.std(ddof=1) / 5**0.5)
    assert abs(selection["value"] - scores.mean()) < 2 * error


def test_a_fold_that_fails_leaves_its_settings_without_a_mean() -> None:
    words = ("lr=0.01,1e9", "epochs=3", "sweep.folds=3", "callbacks.divergence.threshold=1e3")
    _, selection, _ = sweep(*words)
    assert selection["winner"] == 0
    assert "best mean val/loss of 1 settings" in selection["why"]


def test_folds_and_seeds_are_repeats_together() -> None:
    folder, selection, _ = sweep("lr=0.01,0.1", "seed=0,1", "epochs=2", "sweep.folds=3")
    assert len(json.loads(folder.sweep.read_text())["jobs"]) == 12
    assert selection["repeats"]["completed"] == 6
    assert "over 6 repeats" in selection["why"]


def test_a_search_has_folds_too() -> None:
    folder, selection, _ = sweep("lr=loginterval(1e-3,1e-1)", "sweep.trials=4", "epochs=2", "sweep.folds=3")
    jobs = [entry["overrides"] for entry in json.loads(folder.sweep.read_text())["jobs"]]
    assert [job[-1] for job in jobs] == [f"data.fold={number}/3" for number in range(3)] * 4
    assert len({job[0] for job in jobs}) == 4
    code, said = command_line("-m", "resume=sweep", "sweep.trials=6", "test_again=true")
    assert code == 0, said
    assert json.loads(folder.sweep.read_text())["rounds"] == [12, 6]
    assert json.loads(folder.selection.read_text())["test_opened"] >= selection["test_opened"]


@pytest.mark.parametrize(
    ("words", "lesson"),
    [
        (("sweep.folds=1",), "must be a whole number from 2 on"),
        (("sweep.folds=0",), "must be a whole number from 2 on"),
        (("sweep.folds=many",), "must be a whole number from 2 on"),
        (("sweep.folds=2,3",), "says which jobs there are: give it one value"),
        (("sweep.folds=121",), "121 folds need as many rows, and there are 120"),
        (("sweep.folds=3", "data.fold=0/3"), "is given by sweep.folds=3: leave one of both out"),
        (("data.fold=3/3",), "must be 0/3 to 2/3, or all/3"),
        (("data.fold=first",), "must be such as 0/5"),
        (("--config-dir", "my_conf", "model=net", "data=own", "sweep.folds=3"), "is a key of your own: sweep it"),
        (("--config-dir", "my_conf", "data=sets_up", "sweep.folds=3"), "SetsUp has a setup of its own"),
        (("--config-dir", "my_conf", "data=loads", "sweep.folds=3"), "Loads has a val_dataloader of its own"),
        (("--config-dir", "my_conf", "model=net", "data=own_without", "sweep.folds=3"), "is an argument of your own"),
        ((*OF_USERS, "data.kind=batches", "sweep.folds=3"), "makes its batches itself (batch_sampler)"),
        ((*OF_USERS, "data.kind=augmented", "sweep.folds=3"), "differ in their class: Augmented for training"),
        ((*OF_USERS, "data.kind=transformed", "sweep.folds=3"), "differ in their transform: 'crop' for training"),
        ((*OF_USERS, "data.fold=7/5"), "must be 0/5 to 4/5, or all/5"),
        ((*OF_USERS, "data.fold=0/0"), "must be such as 0/5"),
        (("data.fold=0/3,1/3",), "is one fold: leave -m out"),
        (("data.fold=all/3", "lr=0.1,0.2"), "is one fold: leave -m out"),
        (
            ("experiment=diabetes", "sweep.repeats=[seed,data.seed]", "data.seed=0,1"),
            "test rows of one seed would be validated on under another",
        ),
        ((*OF_USERS, "data.kind=two", "sweep.folds=3"), "Rows.val_dataloader returns several loaders"),
        ((*OF_USERS, "data.kind=stream", "sweep.folds=3"), "Rows.val_dataloader reads a stream"),
        ((*OF_USERS, "data.kind=sampler", "sweep.folds=3"), "Rows.train_dataloader has a sampler of its own"),
        ((*OF_USERS, "sweep.folds=64"), "64 folds need as many rows, and there are 63"),
    ],
)
def test_bad_folds_are_refused(words: tuple[str, ...], lesson: str) -> None:
    code, said = command_line("-m", *words)
    assert code == 2, said
    assert lesson in said
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    ("words", "lesson"),
    [
        ("data.split=part", "data.split names the validation rows"),
        ("data.val_path=table.csv", "data.val_path names the validation rows"),
        ("data.buffer_rows=20 sweep.folds=4", "folds are divided in memory"),
        ("data.group=g sweep.folds=11", "11 folds need as many groups, and there are"),
        ("data.time=when sweep.folds=40", "give fewer folds"),
    ],
)
def test_tables_that_cannot_be_divided_are_refused(words: str, lesson: str) -> None:
    lines = [f"{n % 7},{n},{('train', 'val', 'test')[n % 3]},{n % 10},{n // 3}" for n in range(60)]
    Path("table.csv").write_text("\n".join(["x,y,part,g,when", *lines]))
    common = ["data=table", "data.path=table.csv", "data.target=y", *words.split()]
    code, said = command_line("-m", *common, *([] if "folds" in words else ["sweep.folds=3"]))
    assert code != 0
    assert lesson in said
    assert not Path("outputs/sweeps").exists()


@pytest.mark.parametrize("by", ["group=g", "time=when"])
def test_tables_are_divided_by_group_and_by_time(by: str) -> None:
    lines = [f"{n % 7},{n % 7 + n % 5},{n % 10},{n}" for n in range(200)]
    Path("table.csv").write_text("\n".join(["x,y,g,when", *lines]))
    words = [
        "data=table",
        "data.path=table.csv",
        "data.target=y",
        "data.task=regression",
        f"data.{by}",
        "lr=0.01,0.1",
        "epochs=2",
    ]
    _, selection, said = sweep(*words, "sweep.folds=3")
    assert selection["refit"]
    assert "3 folds of the" in said
    assert "could not be trained together" not in said
    assert "stacks of 2; 0 alone" in said or "1 stack; 0 alone" in said or "2 stacks" in said


def test_a_single_run_is_told_that_folds_are_of_sweeps() -> None:
    code, said = command_line("sweep.folds=3")
    assert (code, "add -m, or train on one fold, such as data.fold=0/3" in said) == (2, True)
