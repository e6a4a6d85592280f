"""Predictions for new rows: by the folder of a run or a sweep, by an exported file, and by hand from the weights."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch

from holdfast.cli.main import main
from holdfast.predict.exported import export
from holdfast.predict.new_rows import NewRows
from holdfast.predict.predictor import load_predictor
from tests.conftest import command_line


def houses(rows: int, seed: int = 0, *, missing: bool = True) -> list[dict[str, str]]:
    """A table of numbers, texts, booleans and missing values."""
    draw = np.random.default_rng(seed)
    table = []
    for _ in range(rows):
        area, town, garden = draw.uniform(30, 200), draw.choice(["Rome", "Oslo", "Lima"]), draw.random() < 0.5
        price = 1000 * area + 20000 * (town == "Oslo") + 5000 * garden + draw.normal(0, 3000)
        empty = missing and draw.random() < 0.1
        table.append(
            {"area": "" if empty else f"{area:.3f}", "town": str(town), "garden": str(garden), "price": f"{price:.2f}"}
        )
    return table


def write(path: str, table: list[dict[str, str]], columns: list[str] | None = None) -> str:
    with Path(path).open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns or list(table[0]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(table)
    return path


def rows_of(printed: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(printed)))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run on houses."""
    monkeypatch.chdir(tmp_path)
    words = ["data=table", f"data.path={write('houses.csv', houses(120))}", "data.target=price", "epochs=5"]
    assert command_line(*words, "model=mlp", "hydra.run.dir=run")[0] == 0
    return "run"


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A sweep of classifiers."""
    monkeypatch.chdir(tmp_path)
    words = ["data=table", f"data.path={write('houses.csv', houses(120))}", "data.target=town", "epochs=5"]
    assert command_line("-m", *words, "lr=0.01,0.3", "report=false", "hydra.sweep.dir=sweep")[0] == 0
    return "sweep"


def by_hand(folder: str, table: list[dict[str, str]]) -> np.ndarray[Any, Any]:
    """The predictions of a network on houses, from its weights and the encoding in its checkpoint, without Holdfast."""
    checkpoint = torch.load(Path(folder, "best.ckpt"), weights_only=True)
    features = {each["name"]: each for each in checkpoint["hyper_parameters"]["table"]["features"]}
    numbers, indicators, levels = [], [], []
    for row in table:
        area, garden, town = features["area"], features["garden"], features["town"]
        value = float(row["area"]) if row["area"] else area["fill"]
        numbers.append(
            [(value - area["mean"]) / area["scale"], ((row["garden"] == "True") - garden["mean"]) / garden["scale"]]
        )
        indicators.append([float(row["area"] == "")])
        known = [float(row["town"] == level) for level in town["levels"]]
        levels.append([*known, float(not any(known))])
    x = torch.tensor(np.concatenate([numbers, indicators, levels], 1)).float()
    weights = torch.load(Path(folder, "model.pth"), weights_only=True)
    hidden = torch.tanh(x @ weights["0.weight"].T + weights["0.bias"])
    target = checkpoint["hyper_parameters"]["table"]["targets"][0]
    output = hidden @ weights["2.weight"].T + weights["2.bias"]
    return (output[:, 0].double() * target["scale"] + target["mean"]).numpy()


def test_a_run_predicts_what_its_weights_say(run: str) -> None:
    new = houses(30, seed=1)
    code, out, _ = told("predict", run, write("new.csv", new))
    assert code == 0
    predicted = np.array([float(row["prediction"]) for row in rows_of(out)])
    assert predicted == pytest.approx(by_hand(run, new), rel=1e-5)


def told(*words: str) -> tuple[int, str, str]:
    """The exit code of a command, what it prints, and what it says beside."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(words))
        except SystemExit as stop:
            code = int(str(stop.code or 0))
    return code, out.getvalue(), err.getvalue()


def test_exported_files_agree_with_the_folder(run: str) -> None:
    new = write("new.csv", houses(40, seed=2))
    _, out, _ = told("predict", run, new)
    expected = np.array([float(row["prediction"]) for row in rows_of(out)])
    assert told("export", run, "-o", "model.pt2")[0] == 0
    code, out, _ = told("predict", "model.pt2", new)
    assert code == 0
    assert [float(row["prediction"]) for row in rows_of(out)] == pytest.approx(expected, rel=1e-5)
    export(load_predictor(Path(run)), Path("model.onnx"))
    _, raw = next(iter(NewRows(new, load_predictor(Path(run)).encoding).pieces()))
    session = onnxruntime.InferenceSession("model.onnx")
    (predicted,) = session.run(None, {"rows": raw.float().numpy()})
    assert predicted[:, 0] == pytest.approx(expected, rel=1e-5)
    (entry,) = onnx.load("model.onnx").metadata_props
    assert [each["name"] for each in json.loads(entry.value)["features"]] == ["area", "town", "garden"]


def test_classes_have_probabilities(sweep: str) -> None:
    code, out, _ = told("predict", sweep, write("new.csv", houses(20, seed=3)))
    assert code == 0
    for row in rows_of(out):
        shares = {name: float(row[f"probability_{name}"]) for name in ("Lima", "Oslo", "Rome")}
        assert sum(shares.values()) == pytest.approx(1)
        assert row["prediction"] == max(shares, key=lambda name: shares[name])


def test_the_order_of_columns_changes_nothing_and_extra_ones_are_named(run: str) -> None:
    new = [{**row, "note": "x"} for row in houses(25, seed=4)]
    _, first, _ = told("predict", run, write("a.csv", new, ["area", "town", "garden"]))
    code, second, said = told("predict", run, write("b.csv", new, ["note", "garden", "area", "town"]))
    assert (code, second) == (0, first)
    assert said == "not used: note\n"


def test_unseen_texts_are_counted(run: str) -> None:
    new = houses(10, seed=5)
    new[3]["town"] = new[7]["town"] = "Bern"
    code, _, said = told("predict", run, write("new.csv", new))
    assert (code, said) == (0, "texts without an input of their own, taken as (other): town 2\n")


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_an_output_file_holds_what_would_be_printed(name: str, sweep: str) -> None:
    new = write("new.csv", houses(12, seed=6))
    _, printed, _ = told("predict", sweep, new)
    assert told("predict", sweep, new, "-o", name)[0] == 0
    if name.endswith(".csv"):
        assert Path(name).read_text() == printed
    else:
        table = pq.read_table(name).to_pydict()
        assert table["prediction"] == [row["prediction"] for row in rows_of(printed)]
        assert table["probability_Oslo"] == [float(row["probability_Oslo"]) for row in rows_of(printed)]


def test_metrics_on_new_rows_are_those_of_the_predictions(run: str) -> None:
    new = houses(50, seed=7)
    code, out, _ = told("test", run, write("new.csv", new))
    assert code == 0
    error = by_hand(run, new) - np.array([float(row["price"]) for row in new])
    measured = dict(part.rsplit(" ", 1) for part in out.strip().split(", "))
    assert float(measured["test/loss"]) == pytest.approx(float(np.mean(error**2)), rel=1e-4)
    assert float(measured["test/mae"]) == pytest.approx(float(np.abs(error).mean()), rel=1e-4)
    assert not Path(run, "test.json").exists()


def test_the_rows_of_the_table_itself_count_as_an_opening(sweep: str) -> None:
    before = json.loads(Path(sweep, "test.json").read_text())["count"]
    code, _, said = told("test", sweep, "houses.csv")
    assert (code, before) == (0, 1)
    assert said == "houses.csv is a file of the table itself: its test rows are opened now, 2x in all\n"
    assert json.loads(Path(sweep, "test.json").read_text())["count"] == 2


@pytest.mark.parametrize(
    ("words", "lesson"),
    [
        (["predict", "run", "nothing.csv"], "there is no such file"),
        (["predict", "nowhere", "houses.csv"], "is no finished run or sweep"),
        (["predict", "run", "short.csv"], "short.csv lacks 'area'"),
        (["predict", "run", "words.csv"], "words.csv, line 3: column 'area' holds 'big', which is not a number"),
        (["predict", "run", "houses.csv", "-o", "out.xlsx"], "has to end in .csv or .parquet"),
        (["test", "run", "bare.csv"], "bare.csv lacks the target 'price'"),
        (["export", "run", "-o", "model.zip"], "has to end in .pt2 or .onnx"),
    ],
)
def test_what_cannot_be_done_is_told(words: list[str], lesson: str, run: str) -> None:
    new = houses(4, seed=8, missing=False)
    write("short.csv", new, ["town", "garden"])
    write("bare.csv", new, ["area", "town", "garden"])
    new[1]["area"] = "big"
    write("words.csv", new)
    before = set(Path().iterdir())
    code, out, said = told(*words)
    assert (code, out) == (2, "")
    assert lesson in said
    assert said.count("\n") == 1
    assert set(Path().iterdir()) == before


def test_a_model_of_another_kind_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert command_line("epochs=1", "hydra.run.dir=line")[0] == 0
    code, said = command_line("predict", "line", "houses.csv")
    assert code == 2
    assert "that was trained on a table" in said
