"""Sweeps over what a table is predicted from, and tables that change while a run or a sweep is interrupted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from holdfast.cli.main import CONF
from holdfast.compose.recompose import compose
from holdfast.errors import CheckpointError
from holdfast.store.folders import RunFolder
from tests.conftest import command_line
from tests.single.test_restore import trained

WORDS = ["data=table", "data.path=t.csv", "data.target=y", "epochs=3", "report=false"]


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table whose second column says nothing."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    rows = [f"{x},{draw.normal()},{3 * x + 0.1 * draw.normal()}" for x in draw.normal(size=150)]
    Path("t.csv").write_text("\n".join(["x,noise,y", *rows]))
    return Path("t.csv")


def test_jobs_that_predict_from_other_columns_are_compared(table: Path) -> None:
    code, said = command_line(
        "-m", *WORDS, "data.columns=[x],[noise]", "data.standardise=true,false", "hydra.sweep.dir=s"
    )
    assert code == 0, said
    selection = json.loads(Path("s/selection.json").read_text())
    assert selection["winner"] in (0, 1)
    assert "of 4 completed jobs" in selection["why"]


def test_jobs_with_other_targets_or_files_are_not_compared(table: Path) -> None:
    Path("u.csv").write_text(table.read_text())
    words = [word for word in WORDS if not word.startswith(("data.path", "data.target"))]
    code, said = command_line("-m", *words, "data.path=t.csv,u.csv", "data.target=y,noise", "hydra.sweep.dir=s")
    assert code == 0, said
    selection = json.loads(Path("s/selection.json").read_text())
    assert selection["winner"] is None
    # the two files hold the same rows
    assert [len(each["overrides"]) > 0 for each in selection["data_sets"]] == [True, True]


def test_a_sweep_of_a_table_that_has_changed_is_not_resumed(table: Path) -> None:
    assert command_line("-m", *WORDS, "lr=0.1,0.2", "hydra.sweep.dir=s")[0] == 0
    Path("s/selection.json").unlink()
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], "9,9,9", *lines[2:]]))
    code, said = command_line("-m", "resume=s")
    assert code == 2
    assert "the validation rows of job 0 differ from the recorded ones" in said


def test_a_run_of_a_table_that_has_changed_is_not_resumed(table: Path, tmp_path: Path) -> None:
    config, folder = compose([*WORDS, "batch_size=20"], CONF), RunFolder(tmp_path / "r")
    folder.path.mkdir()
    with pytest.raises(KeyboardInterrupt):
        trained(config, folder, stop=11)  # in the third of three epochs
    table.write_text(table.read_text() + "\n1,1,3\n")
    with pytest.raises(CheckpointError, match="the files of the table have changed since this run was begun"):
        trained(config, folder)


def test_without_the_library_that_reads_tables_one_line_says_what_to_install(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, said = command_line(*WORDS, "data.seed=1")
    assert (code, said) == (2, "data=table needs pyarrow, the extra table of holdfast: pip install pyarrow\n")
    assert list(Path().iterdir()) == [table]
