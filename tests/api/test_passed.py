"""Classes, objects and rows that are passed to `holdfast.run` and `holdfast.sweep`."""

from __future__ import annotations

import gc
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import holdfast
from holdfast.api import passed
from holdfast.api.kept_objects import again, keep
from tests.conftest import bare_trainer, command_line, leaderboard_of
from tests.forked import python

QUICK = ("epochs=3", "report=false")

MINE = """
import lightning.pytorch as pl, torch
from torch.utils.data import DataLoader, TensorDataset

class Waves(pl.LightningDataModule):
    def __init__(self, rows: int, batch_size: int = 8):
        super().__init__()
        self.rows, self.batch_size = rows, batch_size

    def setup(self, stage):
        x = torch.linspace(-3, 3, 3 * self.rows).unsqueeze(1)
        self.train, self.val, self.test = (TensorDataset(x[i::3], torch.sin(x[i::3])) for i in range(3))

    def train_dataloader(self): return DataLoader(self.train, self.batch_size, shuffle=True)
    def val_dataloader(self): return DataLoader(self.val, self.rows)
    def test_dataloader(self): return DataLoader(self.test, self.rows)

class Sine(pl.LightningModule):
    def __init__(self, hidden: int, lr: float = 0.05, momentum: float = 0.5):
        super().__init__()
        self.save_hyperparameters()
        self.network = torch.nn.Sequential(torch.nn.Linear(1, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 1))

    def loss(self, batch): return torch.nn.functional.mse_loss(self.network(batch[0]), batch[1])
    def training_step(self, batch): return self.loss(batch)
    def validation_step(self, batch): self.log("val/loss", self.loss(batch))
    def test_step(self, batch): self.log("test/loss", self.loss(batch))
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.hparams.lr, momentum=self.hparams.momentum)
"""


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """A module of the user's with a LightningModule `Sine` and a LightningDataModule `Waves`."""
    name = f"passed_{abs(hash(request.node.nodeid))}"
    Path(f"{name}.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return __import__(name)


def test_a_class_is_trained_as_a_yaml_file_with_its_arguments_would_be(mine: Any) -> None:
    rates = "lr=0.01,0.03,0.1"
    sweep = holdfast.sweep(rates, "model.hidden=8", "data.rows=40", *QUICK, model=mine.Sine, data=mine.Waves)
    for group, text in {
        "data": f"_target_: {mine.__name__}.Waves\nrows: 40\nbatch_size: ${{batch_size}}\n",
        "model": f"_target_: {mine.__name__}.Sine\nhidden: 8\nlr: ${{lr}}\nmomentum: 0.5\n",
    }.items():
        Path("own", group).mkdir(parents=True)
        Path("own", group, "mine.yaml").write_text(text)
    words = ["-m", "--config-dir", "own", "model=mine", "data=mine", rates, "batch_size=8", *QUICK]
    code, said = command_line(*words, "hydra.sweep.dir=yaml")
    assert code == 0, said
    by_yaml = leaderboard_of(Path("yaml"))
    assert [(row["lr"], row["val/loss"]) for row in leaderboard_of(sweep.path)] == [
        (row["lr"], row["val/loss"]) for row in by_yaml
    ]
    assert sweep.winner.model().hparams["momentum"] == 0.5  # type: ignore[index]


def test_defaults_of_a_class_hold_unless_a_value_is_given(mine: Any) -> None:
    given: Any = {"model": mine.Sine, "data": mine.Waves}
    run = holdfast.run("model.hidden=4", "data.rows=20", *QUICK, **given)
    assert run.model().hparams["lr"] == 0.05  # type: ignore[index]
    assert run.result["iterations"] == 3 * 3  # 20 rows in batches of 8
    run = holdfast.run("model.hidden=4", "data.rows=20", "lr=0.2", "batch_size=20", *QUICK, **given)
    assert run.model().hparams["lr"] == 0.2  # type: ignore[index]
    assert run.result["iterations"] == 3
    Path("own/experiment").mkdir(parents=True)
    Path("own/experiment/fast.yaml").write_text("# @package _global_\nlr: 0.1\n")
    run = holdfast.run("experiment=fast", "model.hidden=4", "data.rows=20", *QUICK, config_dir="own", **given)
    assert run.model().hparams["lr"] == 0.1, "an experiment sets it"  # type: ignore[index]


def test_an_argument_whose_default_is_no_number_keeps_it() -> None:
    class Auto(pl.LightningModule):
        def __init__(self, lr: float | None = None, epochs: str = "many", hidden: tuple[int, ...] = (3,)) -> None:
            super().__init__()

    keys, defaults = passed._arguments(Auto)
    assert (keys, defaults) == ({"lr": None, "epochs": "many"}, {})


def test_an_object_may_change_after_the_call(mine: Any) -> None:
    data = mine.Waves(30, 10)
    run = holdfast.run("model.hidden=4", *QUICK, model=mine.Sine, data=data)
    first = run.result["best"]
    data.rows = 40
    again = holdfast.run("model.hidden=4", *QUICK, model=mine.Sine, data=data)
    assert again.result["best"] != first
    assert run.model().hparams["hidden"] == 4  # type: ignore[index]
    assert holdfast.run(f"resume={run.path}", model=mine.Sine, data=mine.Waves(30, 10)).result["best"] == first


def test_arguments_without_a_default_have_to_be_given_all_at_once(mine: Any) -> None:
    for train in (holdfast.run, holdfast.sweep):
        with pytest.raises(holdfast.ConfigError) as raised:
            train("lr=0.1", model=mine.Sine, data=mine.Waves)
        assert {problem.override for problem in raised.value.problems} == {"model.hidden", "data.rows"}
    assert not Path("outputs").exists()


def test_an_object_is_trained_as_its_class_and_is_left_as_it_was(mine: Any) -> None:
    data = mine.Waves(30, 10)
    by_object = holdfast.run("model.hidden=4", *QUICK, model=mine.Sine, data=data)
    by_class = holdfast.run("model.hidden=4", "data.rows=30", "batch_size=10", *QUICK, model=mine.Sine, data=mine.Waves)
    assert by_object.result["best"] == by_class.result["best"]
    assert not hasattr(data, "train")
    model = mine.Sine(4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run = holdfast.run(*QUICK, model=model, data=data)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not torch.equal(run.model().state_dict()["network.0.weight"], before["network.0.weight"])


def test_seeds_over_an_object_are_stacked_and_agree_with_jobs_alone(mine: Any) -> None:
    words = ("seed=range(4)", "model.hidden=4", *QUICK)
    given: Any = {"model": mine.Sine, "data": mine.Waves(30, 10)}
    stacked, alone = (holdfast.sweep(*words, f"sweep.stack={stack}", **given) for stack in ("auto", "never"))
    for one, other in zip(stacked.jobs, alone.jobs, strict=True):
        assert one["best"]["val/loss"] == pytest.approx(other["best"]["val/loss"], rel=1e-4)
    assert len({job["best"]["val/loss"] for job in stacked.jobs}) == 4


def test_what_was_passed_is_passed_again_to_load_and_to_resume(mine: Any) -> None:
    given: Any = {"model": mine.Sine, "data": mine.Waves(30, 10)}
    sweep = holdfast.sweep("lr=0.01,0.1", "model.hidden=4", *QUICK, **given)
    loaded: Any = holdfast.load(sweep.path, **given)
    assert torch.equal(loaded.model().network[0].weight, sweep.model().network[0].weight)  # type: ignore[index, union-attr, operator]
    with pytest.raises(holdfast.HoldfastError, match="was passed from Python: pass it again"):
        holdfast.load(sweep.path).model()
    resume = f"resume={sweep.path}"
    assert holdfast.sweep(resume, **given).selection == sweep.selection
    code, said = command_line("-m", resume)
    assert code == 2
    assert "was passed from Python: pass it again, as model= of the call" in " ".join(said.split())
    with pytest.raises(holdfast.ConfigError, match="was started with data=python"):
        holdfast.sweep(resume, model=mine.Sine, data=mine.Waves(31, 10))
    (line,) = [line for line in command_line("report", str(sweep.path))[1].splitlines() if "left out" in line]
    assert "was passed from Python" in line


def test_digests_are_those_of_content(mine: Any) -> None:
    imports = f"import {mine.__name__} as mine; from holdfast.api.kept_objects import keep"
    code = f"{imports}; print(keep(mine.Waves(30, 10)).digest)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == keep(mine.Waves(30, 10)).digest
    torch.manual_seed(0)
    first = mine.Sine(4)
    torch.manual_seed(0)
    second = mine.Sine(4)
    assert keep(first).digest == keep(second).digest
    with torch.no_grad():
        second.network[0].bias[0] += 1e-3
    assert keep(first).digest != keep(second).digest


def test_classes_of_a_script_are_trained_and_recorded_by_their_lines() -> None:
    Path("script.py").write_text(
        MINE + "\nimport holdfast, sys\nif __name__ == '__main__':\n"
        "    sweep = holdfast.sweep(*sys.argv[1:], 'model.hidden=4', 'data.rows=30', 'report=false', "
        "model=Sine, data=Waves)\n    print(sweep.winner.model().network[0].weight.shape)\n"
    )

    words = ("lr=0.01,0.1", "epochs=2", "hydra.sweep.dir=here")
    done = python("script.py", *words)
    assert "1 stack; 0 alone" in done.stdout, done.stderr
    assert "torch.Size([4, 1])" in done.stdout
    python("script.py", "resume=here", *words[:2], check=True)
    Path("script.py").write_text(
        Path("script.py").read_text().replace("momentum: float = 0.5", "momentum: float = 0.6")
    )
    done = python("script.py", "resume=here", *words[:2])
    assert "was started with model=python.__main__.Sine-" in done.stderr
    done = python("script.py", "lr=0.01,0.1", "epochs=2", "hydra/launcher=processes")
    assert "exists in this process alone" in done.stderr


def test_arrays_are_a_table_whose_line_is_that_of_least_squares() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(300, 4)) * [1, 100, 1, 1]
    x[:, 2] = 7  # a constant column is left out
    y = x @ [1.0, 0.02, 0.0, -3.0] + 5 + 0.1 * generator.normal(size=300)
    run = holdfast.run(
        "lr=0.3", "epochs=200", "batch_size=full", "data.fractions=[0.8,0.1,0.1]", "report=false", data=(x, y)
    )
    inputs = np.c_[x[:, [0, 1, 3]], np.ones(300)]
    expected = inputs @ np.linalg.lstsq(inputs, y, rcond=None)[0]
    for found in (run.predict(x), run.predict(x.tolist()), run.predict(torch.tensor(x))):
        assert np.abs(found - expected).max() < 0.1  # a tenth of the rows validates
    for few in (x[:, :2], x[:, [0, 1, 3]]):  # the second has as many columns as the model uses, but not their names
        with pytest.raises(holdfast.HoldfastError, match="lack 'x3'"):
            run.predict(few)
    (file,) = Path("outputs/rows").iterdir()
    assert f"data.path={file}" in run.result["overrides"]
    python("-m", "holdfast", *run.result["overrides"], check=True)  # the command line needs nothing passed
    assert holdfast.load(run.path).predict(x).shape == (300,)  # type: ignore[union-attr]


def test_a_dataframe_keeps_names_texts_and_missing_values() -> None:
    generator = np.random.default_rng(0)
    size = generator.normal(size=200)
    kind = generator.choice(["red", "green", "blue"], 200)
    frame = pd.DataFrame({"size": size, "kind": pd.Categorical(kind), "flag": size > 0.5})
    frame.loc[3, "size"] = np.nan
    label = pd.Series(np.where(kind == "red", "yes", "no"), name="answer")
    sweep = holdfast.sweep("lr=0.1,1", "epochs=60", "report=false", data=(frame, label))
    run = sweep.winner
    found = run.predict(frame)
    assert found.shape == (200, 2)
    np.testing.assert_allclose(found.sum(1), 1)
    assert (np.array(["no", "yes"])[found.argmax(1)] == label).mean() == 1
    np.testing.assert_array_equal(run.predict(frame[["flag", "kind", "size"]]), found)
    with pytest.raises(holdfast.HoldfastError, match="the rows lack 'kind'"):
        run.predict(frame[["size", "flag"]])
    with pytest.warns(UserWarning, match=r"taken as \(other\): kind 2"):
        run.predict(frame[:3].assign(kind=["red", "pink", "grey"]))
    board = sweep.leaderboard()
    assert isinstance(board, pd.DataFrame)
    assert list(board["rank"]) == [1, 2]


def test_several_targets_are_named() -> None:
    x = np.random.default_rng(0).normal(size=(100, 2))
    run = holdfast.run("epochs=2", "report=false", data=(x, np.c_[x.sum(1), x[:, 0] - x[:, 1]]))
    assert run.predict(x).shape == (100, 2)
    assert "data.target=[y0,y1]" in run.result["overrides"]


@pytest.mark.parametrize(
    ("given", "lesson"),
    [
        ({"model": 3}, "model=int cannot be trained: pass a LightningModule of lightning.pytorch, or its class"),
        ({"model": torch.nn.Linear}, "cannot be trained"),
        (
            {"data": "rows.csv"},
            r"pass a LightningDataModule of lightning.pytorch or its class, or rows as a pair \(X, y\)",
        ),
        ({"data": (np.zeros((4, 2)),)}, "has 1 parts"),
        ({"data": ()}, "has 0 parts"),
        ({"data": (np.zeros((4, 2)), np.zeros(3))}, "X has 4 rows and y has 3"),
        ({"data": (np.zeros((4, 2, 2)), np.zeros(4))}, "is no table"),
        ({"data": (pd.DataFrame({"y": [1.0]}), [1.0])}, "'y' that is named like the target"),
    ],
    ids=str,
)
def test_what_cannot_be_passed_is_a_lesson(given: Any, lesson: str) -> None:
    with pytest.raises(holdfast.HoldfastError, match=lesson):
        holdfast.run(**given)
    assert not Path("outputs").exists()


def test_classes_within_functions_and_groups_given_twice_are_refused(mine: Any) -> None:
    class Inner(pl.LightningModule):
        pass

    with pytest.raises(holdfast.HoldfastError, match="define it at the top of a module"):
        holdfast.run(model=Inner)
    with pytest.raises(holdfast.ConfigError, match="passed as an object too"):
        holdfast.run("model=mlp", model=mine.Sine)
    with pytest.raises(holdfast.ConfigError, match="passed as an object too"):
        holdfast.run("data=line", data=(np.zeros((4, 1)), np.zeros(4)))
    assert not Path("outputs").exists()
    with pytest.raises(holdfast.ConfigError, match="exists in this process alone"):
        holdfast.sweep("hydra/launcher=processes", model=mine.Sine(4), data=mine.Waves)
    with pytest.raises(holdfast.HoldfastError, match=r"has no forward\(x\), which predicts"):
        holdfast.run("model.hidden=2", "data.rows=20", *QUICK, model=mine.Sine, data=mine.Waves).predict([[1.0]])


def test_an_object_that_cannot_be_recorded_is_refused() -> None:
    class Streaming(pl.LightningDataModule):
        def __init__(self) -> None:
            super().__init__()
            self.rows = (row for row in range(3))

    with pytest.raises(holdfast.HoldfastError, match=r"cannot be recorded .*: pass the class Streaming instead"):
        holdfast.run(data=Streaming())


def test_a_loader_of_rows_in_a_closure_is_recorded_by_its_code() -> None:
    data = DataLoader(TensorDataset(torch.zeros(3, 1)))
    assert keep(data).digest == keep(DataLoader(TensorDataset(torch.zeros(3, 1)))).digest
    assert keep(data).digest != keep(DataLoader(TensorDataset(torch.ones(3, 1)))).digest


def test_one_run_of_an_object_outlives_another(mine: Any) -> None:
    given: Any = {"model": mine.Sine(4), "data": mine.Waves(30, 10)}
    run = holdfast.run(*QUICK, **given)
    before = run.model().state_dict()
    holdfast.run(*QUICK, **given)
    gc.collect()
    assert all(torch.equal(value, before[name]) for name, value in run.model().state_dict().items())


def test_defaults_arrive_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("defaults_model.py").write_text(
        "import holdfast.model\n"
        "class Odd(holdfast.model.Linear):\n"
        "    def __init__(self, a='1e-3', b='0x1', c='???', d='no', e={'_target_': 'a.B'}, f=None, g=[1, 'x']):\n"
        "        super().__init__(1, None, None)\n"
        "        self.given = (a, b, c, d, e, f, g)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    odd = __import__("defaults_model").Odd
    run: Any = holdfast.run(*QUICK, model=odd)
    assert run.model().given == odd().given


def test_different_defaults_of_one_key_have_to_be_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("settled.py").write_text(MINE.replace("lr: float = 0.05", "lr: float = 0.05, batch_size: int = 7"))
    monkeypatch.syspath_prepend(str(tmp_path))
    module = __import__("settled")
    words = ("model.hidden=2", "data.rows=20", *QUICK)
    with pytest.raises(holdfast.ConfigError, match="model has the default 7 and data 8: give batch_size=8"):
        holdfast.run(*words, model=module.Sine, data=module.Waves)
    assert holdfast.run(*words, "batch_size=5", model=module.Sine, data=module.Waves).result["iterations"] == 12


def test_texts_in_arrays_are_texts_when_they_are_predicted() -> None:
    kinds = np.array(["1", "x", "z", "x"] * 25, dtype=object)
    x = np.c_[kinds, np.linspace(-1, 1, 100).astype(object)]
    y = np.where(kinds == "x", 10.0, -10.0)
    run = holdfast.run("lr=0.3", "epochs=100", "report=false", data=(x, y))
    np.testing.assert_allclose(run.predict(x[:4]), y[:4], atol=0.5)
    np.testing.assert_allclose(run.predict(np.array([["1", 0.0]], dtype=object)), [-10.0], atol=0.5)


def test_what_is_masked_or_a_category_is_taken_for_that() -> None:
    values = np.ma.masked_array(np.linspace(-1, 1, 100), mask=np.arange(100) % 10 == 0, fill_value=1e6)
    x = np.ma.stack([values, np.ma.asarray(np.linspace(3, 5, 100))], axis=1)
    x.data[x.mask] = 1e6
    run = holdfast.run(*QUICK, data=(x, np.linspace(0, 1, 100)))
    assert np.isfinite(run.predict(np.array([[np.nan, 4.0]]))).all()
    table = pq.read_table(next(Path("outputs/rows").glob("*.parquet")))
    assert np.isnan(table["x0"].to_numpy()).sum() == 10
    frame = pd.DataFrame({"kind": pd.Categorical(np.arange(90) % 3), "size": np.linspace(0, 1, 90)})
    for kinds in (np.arange(90) % 3, (np.arange(90) % 3).astype(str)):
        frame = pd.DataFrame({"kind": pd.Categorical(kinds), "size": np.linspace(0, 1, 90)})
        with pytest.raises(holdfast.HoldfastError, match="would take them for numbers: put a letter before them"):
            holdfast.run(data=(frame, np.zeros(90)))


@pytest.mark.parametrize("name", ["it's", "a b", "é", "null", "true", "1", "a\\b", "[x]", "a,b", "x=y"])
def test_a_target_may_have_any_name(name: str) -> None:
    x = np.random.default_rng(0).normal(size=(60, 2))
    run = holdfast.run(*QUICK, data=(x, pd.Series(x.sum(1), name=name)))
    assert run.predict(x).shape == (60,)


@pytest.mark.parametrize(
    ("x", "y", "lesson"),
    [
        (pd.DataFrame(np.zeros((4, 2)), columns=["a", "a"]), [0.0] * 4, "two columns named 'a'"),
        (pd.DataFrame(np.zeros((4, 2)), columns=["1", 1]), [0.0] * 4, "two columns named '1'"),
        (np.zeros((4, 2), complex), [0.0] * 4, "column 'x0' cannot be one of a table"),
        (np.array([[1.0, "a"], ["b", 2.0]] * 2, dtype=object), [0.0] * 4, "column 'x0' cannot be one of a table"),
        ([[1.0], [2.0, 3.0]], [0.0, 1.0], "one array of numbers or texts"),
        (np.zeros((4, 2)), pd.Series([0.0] * 4, name="${lr}"), "no override can say"),
        (
            np.zeros((4, 2)),
            np.array([" a", "a", "b", "b"]),
            "column 'y' has different texts that a table takes for the",
        ),
        (np.zeros((3, 2)), np.array(["01", "1", "2"]), "takes for the same number"),
        (np.zeros(4, [("a", float), ("b", float)]), [0.0] * 4, "pandas.DataFrame(array)"),
    ],
    ids=str,
)
def test_rows_that_are_no_table_are_a_lesson(x: Any, y: Any, lesson: str) -> None:
    with pytest.raises(holdfast.HoldfastError, match=re.escape(lesson)):
        holdfast.run(data=(x, y))
    assert not Path("outputs").exists()


def test_columns_of_a_dataframe_go_by_their_names_whatever_these_are() -> None:
    x = np.random.default_rng(0).normal(size=(200, 2))
    frame = pd.DataFrame({"x1": x[:, 0], "x0": 10 * x[:, 1] + 3, "id": [f"n{row}" for row in range(200)]})
    run = holdfast.run("lr=0.1", "epochs=20", "batch_size=10", "report=false", data=(frame, 5 * x[:, 0] - x[:, 1]))
    np.testing.assert_allclose(run.predict(frame[["x0", "x1"]]), 5 * x[:, 0] - x[:, 1], atol=0.1)
    used = frame[["x1", "x0"]].to_numpy()  # in the order of the table: `id` is left out of it
    np.testing.assert_array_equal(run.predict(used), run.predict(frame))


def test_a_module_over_a_file_that_has_changed_does_not_predict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("over_file.py").write_text(
        "import holdfast.model, torch\n"
        "class Own(holdfast.model.Regression):\n"
        "    def __init__(self):\n"
        "        super().__init__(torch.nn.Linear(1, 1))\n"
        "    def forward(self, x):\n"
        "        return self.network(x)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("t.csv").write_text("a,y\n" + "".join(f"{row / 10},{row}\n" for row in range(100)))
    table = ("data=table", "data.path=t.csv", "data.target=y", "batch_size=full")
    run = holdfast.run(*table, "lr=0.3", "epochs=50", "report=false", model=__import__("over_file").Own)
    np.testing.assert_allclose(run.predict([[2.0], [3.0]]), [20, 30], atol=0.5)
    Path("other.csv").write_text(Path("t.csv").read_text().replace("a,y", "y,a"))
    os.utime("other.csv", (0, 0))
    Path("other.csv").replace("t.csv")
    with pytest.raises(holdfast.HoldfastError, match="was written, moved or copied after the run"):
        run.predict([[2.0]])


def test_rows_that_are_written_again_are_the_same(mine: Any) -> None:
    x = np.linspace(-1, 1, 60)[:, None]
    Path("pairs.py").write_text(
        "import holdfast.model, torch\n"
        "class Own(holdfast.model.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.network = torch.nn.Linear(1, 1)\n"
        "    def loss(self, batch):\n"
        "        return torch.nn.functional.mse_loss(self.network(batch[0]), batch[1])\n"
        "    def forward(self, x):\n"
        "        return self.network(x), x\n"
    )
    own = __import__("pairs").Own
    run = holdfast.run(*QUICK, data=(x, 3 * x), model=own)
    next(Path("outputs/rows").iterdir()).unlink()
    again = holdfast.run(*QUICK, data=(x, 3 * x), model=own)
    assert again.result["best"] == run.result["best"]
    with pytest.raises(holdfast.HoldfastError, match=r"forward gives a tuple.*use run.model"):
        run.predict(x)


def test_code_that_was_changed_after_the_call_does_not_predict(mine: Any) -> None:
    Path("edited.py").write_text(MINE + "    def forward(self, x): return self.network(x)\n")
    edited = __import__("edited")
    run = holdfast.run("model.hidden=4", "data.rows=30", *QUICK, model=edited.Sine, data=edited.Waves)
    before = run.predict([[1.0]])
    Path("edited.py").write_text(MINE + "    # the same\n    def forward(self, x): return self.network(x)\n")
    importlib.reload(edited)
    np.testing.assert_array_equal(run.predict([[1.0]]), before)  # of the class that was passed, with its comments
    Path("edited.py").write_text(MINE + "    def forward(self, x): return 100 * self.network(x)\n")
    importlib.reload(edited)
    with pytest.raises(holdfast.HoldfastError, match="the code of Sine, or code that it uses, was changed"):
        run.predict([[1.0]])


def test_an_object_whose_copy_would_be_another_is_refused(mine: Any) -> None:
    def frozen(module: Any) -> None:
        module.network[0].weight.register_hook(torch.zeros_like)

    def watched(module: Any) -> None:
        module.network[0].register_forward_hook(lambda layer, inputs, output: setattr(module, "seen", output))

    def bound(module: Any) -> None:
        module.activation = lambda x: module.scale * x

    def shared(module: Any) -> None:
        module.before = module.network[0].weight.data

    def array(module: Any) -> None:
        module.rows = np.zeros(16)
        module.batch = torch.from_numpy(module.rows)

    for change, lesson in (
        (shared, "shares memory with another value"),
        (array, "shares memory with another value"),
        (frozen, "has a hook on its gradient"),
        (watched, "is the object itself, or a part of it"),
        (bound, "is the object itself, or a part of it"),
    ):
        module = mine.Sine(4)
        module.scale = torch.nn.Parameter(torch.ones(1))
        keep(module)
        change(module)
        with pytest.raises(holdfast.HoldfastError, match=rf"{lesson}.*pass the class Sine instead"):
            keep(module)


def test_a_copy_has_the_attributes_of_parameters(mine: Any) -> None:
    module = mine.Sine(4)
    module.network[0].weight.factor = 0.01
    kept = keep(module)
    assert kept.value.network[0].weight.factor == 0.01
    assert again(kept.value.__class__.__name__, kept.digest).network[0].weight.factor == 0.01


def test_what_jobs_would_change_for_each_other_is_refused(mine: Any) -> None:
    seen: list[int] = []
    module = mine.Sine(4)
    module.note = lambda: seen.append(1)
    kept = keep(module)
    again("mine.Sine", kept.digest).note()
    with pytest.raises(holdfast.HoldfastError, match=r"changed by a job.*pass the class Sine instead"):
        again("mine.Sine", kept.digest)


def test_an_object_may_have_been_trained_by_a_trainer_of_its_owner(mine: Any) -> None:
    data, module = mine.Waves(30), mine.Sine(4)
    digests = keep(data).digest, keep(module).digest
    with torch.random.fork_rng():
        bare_trainer().fit(module, datamodule=data)
    assert keep(data).digest != digests[0], "setup has made rows"
    assert keep(module).digest != digests[1], "it was trained"
    run = holdfast.run(*QUICK, model=module, data=data)
    assert isinstance(holdfast.load(run.path, model=module, data=data), holdfast.Run)


def test_a_class_names_its_helpers_and_not_what_else_a_script_holds(tmp_path: Path) -> None:
    Path("helping.py").write_text("def scale(x):\n    return x * 1.0\n")
    Path("script.py").write_text(
        "import helping, holdfast, holdfast.model, sys\n"
        "log = open('log.txt', 'w')\n"
        "class Net(holdfast.model.Linear):\n"
        "    def __init__(self):\n"
        "        super().__init__(1, None, None)\n"
        "    def forward(self, x):\n"
        "        return helping.scale(super().forward(x)) if 'a' in {'a', 'b', 'c'} else x\n"
        "if __name__ == '__main__':\n"
        "    if len(sys.argv) == 1:\n"
        "        run = holdfast.run('epochs=1', 'hydra.run.dir=here', model=Net)\n"
        "    print('loaded', holdfast.load('here', model=Net).predict([[1.0]]).shape)\n"
    )

    def script(*words: str) -> str:
        done = python("script.py", *words)
        return done.stdout + done.stderr

    assert "loaded (1, 1)" in script()
    assert "loaded (1, 1)" in script("again")
    Path("helping.py").write_text("def scale(x):\n    return x * -7.0\n")
    assert "passed from Python with another content" in script("again")


def test_a_class_that_a_notebook_defines_anew_is_another_one(tmp_path: Path) -> None:
    import nbclient
    import nbformat

    net = "class Net(holdfast.model.Linear):\n    def __init__(self):\n        super().__init__(1, None, None)\n"
    cells = [
        "import holdfast, holdfast.model, torch\n" + net,
        "sweep = holdfast.sweep('lr=0.01,0.1', 'epochs=2', 'report=false', model=Net)\nx = [[1.0]]",
        "before = sweep.winner.predict(x)\n"
        + net
        + "    def forward(self, x):\n        return 1000 + super().forward(x)\n",
        "print('same', (sweep.winner.predict(x) == before).all(), Net().forward(torch.ones(1, 1)).item() > 900)",
        "for call in (lambda: holdfast.load(sweep.path, model=Net).model(),\n"
        "             lambda: holdfast.sweep(f'resume={sweep.path}', model=Net)):\n"
        "    try:\n        call()\n    except holdfast.HoldfastError as error:\n        print('refused', error)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
    printed = ["".join(o.get("text", "") for o in cell.outputs if o.get("name") == "stdout") for cell in notebook.cells]
    assert printed[3].strip() == "same True True"
    assert printed[4].count("refused") == 2
    assert "was started with model=python.__main__.Net-" in printed[4]


def test_a_module_of_ones_own_over_rows_predicts_in_their_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("over_rows.py").write_text(
        "import holdfast.model, torch\n"
        "class Own(holdfast.model.Regression):\n"
        "    def __init__(self, columns: int = 2):\n"
        "        super().__init__(torch.nn.Linear(columns, 1))\n"
        "    def forward(self, x):\n"
        "        return self.network(x)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    x = np.random.default_rng(0).normal(size=(200, 2)) * [100, 0.1] + 7
    y = 60_000 + x @ [3.0, 4000.0]
    run = holdfast.run("lr=0.1", "epochs=300", "report=false", model=__import__("over_rows").Own, data=(x, y))
    np.testing.assert_allclose(run.predict(x), y, rtol=1e-4)


def test_what_an_object_does_not_read_is_refused(mine: Any) -> None:
    given: Any = {"model": mine.Sine(4), "data": mine.Waves(30, 10)}
    with pytest.raises(holdfast.ConfigError) as raised:
        holdfast.sweep("lr=0.1,0.2", "batch_size=5", "model.hidden=4", "data.rows=7", **given)
    assert len(raised.value.problems) == 4
    assert "has no effect on the object that is passed as model: pass its class" in str(raised.value)
    assert holdfast.sweep("seed=0,1", "sweep.folds=2", *QUICK, **given).selection["refit"]


def test_rows_that_pandas_would_pair_otherwise_are_refused() -> None:
    frame = pd.DataFrame({"a": np.arange(60.0)})
    with pytest.raises(holdfast.HoldfastError, match="X and y have different indexes"):
        holdfast.run(data=(frame.sample(frac=1, random_state=0), frame["a"].rename("y")))


def test_a_class_that_was_edited_is_another_one(mine: Any) -> None:
    words = ("model.hidden=4", "data.rows=30", *QUICK)
    run = holdfast.run(*words, model=mine.Sine, data=mine.Waves)
    text = Path(f"{mine.__name__}.py").read_text()
    Path(f"{mine.__name__}.py").write_text(text.replace("torch.nn.Tanh()", "torch.nn.ReLU()"))
    code = (
        f"import holdfast, {mine.__name__} as mine\n"
        f"holdfast.load({str(run.path)!r}, model=mine.Sine, data=mine.Waves).model()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "passed from Python with another content" in done.stderr


def test_a_commented_copy_of_the_module_is_the_same_in_another_process(mine: Any) -> None:
    words = ("model.hidden=4", "data.rows=30", *QUICK)
    run = holdfast.run(*words, model=mine.Sine, data=mine.Waves)
    code = (
        f"import holdfast, {mine.__name__} as mine\n"
        f"print(holdfast.load({str(run.path)!r}, model=mine.Sine, data=mine.Waves).model().hparams['hidden'])"
    )
    file = Path(f"{mine.__name__}.py")
    file.write_text(file.read_text() + "\n# a comment changes nothing\n")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "4"
