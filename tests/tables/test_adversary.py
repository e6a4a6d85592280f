"""Tables and new rows that once gave a wrong number without a word."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from holdfast.cli.main import CONF
from holdfast.compose.recompose import compose
from holdfast.predict import predictor
from holdfast.sweeps.row_digests import data_digests
from holdfast.tables import source
from tests.conftest import command_line

RUN = ["data=table", "data.path=t.csv", "data.target=y", "epochs=2", "report=false"]


def write(name: str, lines: list[str]) -> str:
    Path(name).write_text("\n".join(lines) + "\n")
    return name


def lines(
    rows: int = 90, seed: int = 0, *, scale: float = 1.0, first: float = 100.0, spread: float = 10.0
) -> list[str]:
    """A number, a boolean, and their target."""
    draw = np.random.default_rng(seed)
    table = ["a,b,y"]
    for _ in range(rows):
        a, b = draw.normal(first, spread), draw.random() < 0.5
        table.append(f"{a:.2f},{b},{scale * (3 * a + b + draw.normal()):.3f}")
    return table


def classes(names: list[str], rows: int = 90) -> list[str]:
    return ["a,y", *(f"{row % 7 + 0.5},{names[row % len(names)]}" for row in range(rows))]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def trained(table: list[str], *words: str) -> str:
    write("t.csv", table)
    code, said = command_line(*RUN, "hydra.run.dir=run", *words)
    assert code == 0, said
    return said


@pytest.mark.parametrize(
    ("rows", "lesson"),
    [
        (["a,b", '"1,234",true'], "its comma may divide thousands"),
        (["a;b", "1.5;true", "2,5;true"], "'2,5', which is not a number"),
        (["a,b", "true,true"], "'true', which is not a number"),
        (["a,b", "1,5"], "column 'b' holds 5, which is not true or false"),
        (["a,b", "1e60,true"], "line 2: the prediction is not finite"),
    ],
)
def test_new_rows_that_may_mean_something_else_are_refused(rows: list[str], lesson: str) -> None:
    trained(lines())
    code, said = command_line("predict", "run", write("new.csv", rows))
    assert code == 2
    assert lesson in said


def test_a_date_is_no_number() -> None:
    trained(lines())
    pq.write_table(pa.table({"a": [datetime.date(2026, 1, 1)], "b": [True]}), "new.parquet")
    code, said = command_line("predict", "run", "new.parquet")
    assert code == 2
    assert "column 'a' holds values of type date32[day], which are not a number" in said


@pytest.mark.parametrize("row", ["1.234;5,5", "1,234;5.5"])
def test_thousands_beside_another_decimal_sign_are_refused(row: str) -> None:
    columns = ["a;c;y", *(f"{row};{number % 9 + 1}" for number in range(90))]
    write("t.csv", columns)
    code, said = command_line(*RUN)
    assert code == 2
    assert "it may divide thousands" in said
    trained(["a,c,y", *(f"{number % 7}.5,{number % 5}.5,{number}.5" for number in range(90))])
    code, said = command_line("predict", "run", write("new.csv", ["a;c", row]))
    assert code == 2
    assert "it may divide thousands" in said


def test_a_point_is_no_decimal_sign_where_the_comma_is_named() -> None:
    columns = ["a;y", *(f"{number % 7}.234;{number},5" for number in range(90))]
    write("t.csv", columns)
    code, said = command_line(*RUN, "data.decimal=','")
    assert code == 2
    assert "'0.234', whose decimal sign is not ','" in said


def test_a_named_decimal_comma_holds_for_new_rows_too() -> None:
    trained(["a,y", *(f'"{number % 7},234","{number},5"' for number in range(90))], "data.decimal=','")
    assert command_line("predict", "run", write("new.csv", ["a,y", '"1,234",1']))[0] == 0
    code, said = command_line("predict", "run", write("new.csv", ["a,y", "1.234,1"]))
    assert code == 2
    assert "it may divide thousands" in said


def test_signed_decimal_commas_are_numbers() -> None:
    assert "text" not in trained(["a;y", *(f"{number % 7 - 3:+d},5;{number},5" for number in range(90))])


def test_a_column_that_needs_double_precision_is_not_exported() -> None:
    trained(lines(first=1.7e9, spread=50))
    code, said = command_line("export", "run", "-o", "model.pt2")
    assert code == 2
    assert "column 'a' holds numbers around 1.7e+09" in said
    assert not list(Path().glob("model*"))


def test_a_class_in_other_letters_is_another_class() -> None:
    trained(classes(["us", "de"]))
    code, said = command_line("test", "run", write("new.csv", ["a,y", "1,US"]))
    assert code == 2
    assert "y is 'US', which is none of the classes" in said


def test_classes_that_are_numbers_keep_their_names() -> None:
    trained(classes(["0.1", "0.20", "-0"]), "data.task=classification")
    assert predictor.load_predictor(Path("run")).encoding.classes == ("0", "0.1", "0.2")
    assert command_line("test", "run", write("new.csv", ["a,y", "1,.10", "2,0.2", "3,0.0"]))[0] == 0


def test_classes_beyond_double_precision_are_refused() -> None:
    write("t.csv", classes(["9007199254740992", "9007199254740993", "5"]))
    code, said = command_line(*RUN, "data.task=classification")
    assert code == 2
    assert "neighbours are the same number" in said


@pytest.mark.parametrize("model", ["linear", "mlp"])
def test_a_target_of_large_numbers_has_not_diverged(model: str) -> None:
    write("t.csv", lines(scale=1e8))
    code, said = command_line("-m", *RUN, "lr=0.1,0.2", f"model={model}", "hydra.sweep.dir=s")
    assert (code, "diverged" in said) == (0, False)
    assert json.loads(Path("s/selection.json").read_text())["winner"] is not None
    trained(lines(scale=1e8), f"model={model}")
    assert json.loads(Path("run/result.json").read_text())["status"] == "completed"


def test_files_that_change_places_are_other_data() -> None:
    for name in "tvw":
        write(f"{name}.csv", lines(seed=ord(name)))
    groups = [
        compose([*RUN, f"data.val_path={val}.csv", f"data.test_path={test}.csv"], CONF).data
        for val, test in ("vw", "wv", "vw")
    ]
    first, second, third = data_digests(groups)
    assert first == third != second


def test_a_job_is_not_exported_with_the_encoding_of_another_table() -> None:
    write("t.csv", lines())
    assert command_line("-m", *RUN, "lr=0.1,0.2", "sweep.keep=1", "hydra.sweep.dir=s")[0] == 0
    (job,) = (number for number in "01" if not Path("s", number, "best.ckpt").exists())
    write("t.csv", lines(first=1000.0))
    code, said = command_line("export-job", "s", job)
    assert code == 2
    assert f"the table of job {job} has changed" in said
    write("t.csv", lines())
    assert command_line("export-job", "s", job)[0] == 0
    files = torch.load(f"s/{job}/best.ckpt", weights_only=True)["hyper_parameters"]["table"]["files"]
    assert files == list(predictor.load_predictor(Path("s")).encoding.files)


def test_jobs_on_a_table_that_changes_meanwhile_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    write("t.csv", lines())
    original, calls = source.TableSource.rows_of, list[Any]()

    def edits(self: source.TableSource, *given: Any) -> Any:
        calls.append(given)
        rows = original(self, *given)
        write("t.csv", lines(seed=1, rows=91))
        return rows

    monkeypatch.setattr(source.TableSource, "rows_of", edits)
    code, said = command_line("-m", *RUN, "lr=0.1,0.2", "hydra/launcher=basic", "hydra.sweep.dir=s")
    assert calls
    assert code == 2
    assert "the table of job 0 has changed since the sweep was begun" in said
    assert not Path("s/selection.json").exists()
