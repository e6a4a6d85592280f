"""Several devices: the same weights and metrics as of one process with batches as large as all of theirs together.

By default a sample; HOLDFAST_FAULTS=all, as in CI, tries every launcher and every number of rows in real processes.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.data import Rows
from holdfast.data.order import EVALUATION_ROWS, evaluation_loader, share_of
from holdfast.store.folders import RunFolder, SweepFolder
from tests.conftest import ROOT
from tests.faults.group import start
from tests.full import ALL, IN_FULL

EXACT = ["accelerator=cpu", "precision=64-true", "report=false"]
LINEAR = [*EXACT, "data=linear", "data.rows=70", "data.features=3", "epochs=2"]
VARIABLES = ("SLURM_PROCID", "RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE", "JSM_NAMESPACE_RANK")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a module and a data module of its own; its processes believe that there are four cores."""
    shutil.copy(Path(__file__).with_name("users_parts.py"), tmp_path / "users_parts.py")
    (tmp_path / "sitecustomize.py").write_text("import os\nos.cpu_count = lambda: 4\n")
    files = {
        "model/forgetful.yaml": "_target_: users_parts.Forgetful",
        "model/counting.yaml": "_target_: users_parts.Counting\nfeatures: 1",
        "data/numbers.yaml": "_target_: users_parts.Numbers\nrows: 7\nshuffle: false",
    }
    for name, text in files.items():
        (tmp_path / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "conf" / name).write_text(f"{text}\n")
    return tmp_path


def trained(*words: str, cwd: Path, code: int = 0) -> str:
    """Run a command line to its end; returns what it said."""
    process = start(*words, cwd=cwd, PYTHONPATH=str(cwd))
    assert process.wait(timeout=180) == code, (cwd / "out").read_text() + (cwd / "err").read_text()
    return (cwd / "out").read_text()


def last(folder: Path) -> dict[str, Any]:
    result = RunFolder(folder).read()
    assert result is not None
    assert result.status == "completed"
    assert result.last is not None
    return {**result.last, **(result.test or {})}


def files(folder: Path) -> set[str]:
    """The files of a run; what in their names differs from run to run is left out."""
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {re.sub(r"tfevents\.\d+\..*", "tfevents", path) for path in paths}


def same_runs(one: Path, other: Path) -> None:
    assert last(one) == pytest.approx(last(other), rel=1e-9)
    weights, others = (torch.load(folder / "model.pth", weights_only=True) for folder in (one, other))
    assert weights.keys() == others.keys()
    for name in weights:
        assert torch.allclose(weights[name], others[name], rtol=1e-9, atol=0), name
    assert files(one) == files(other)


@pytest.mark.parametrize("rows", [2, 3, 7, 8193, 3 * EVALUATION_ROWS + 1])
@pytest.mark.parametrize("world_size", [2, 3])
def test_every_row_is_in_one_share_and_all_shares_have_as_many_batches(rows: int, world_size: int) -> None:
    if rows < world_size:
        return
    shares = [share_of(rows, rank, world_size) for rank in range(world_size)]
    numbers = torch.arange(rows).unsqueeze(1)
    batches = [[x for x, _ in evaluation_loader(Rows(numbers, numbers), share)] for share in shares]
    assert torch.equal(torch.cat([torch.cat(each) for each in batches]), numbers)
    assert len({len(each) for each in batches}) == 1
    assert all(0 < len(batch) <= EVALUATION_ROWS for each in batches for batch in each)


@IN_FULL
def test_two_processes_are_one_with_batches_twice_as_large(tmp_path: Path) -> None:
    for devices, batch_size in ((2, 4), (1, 8)):
        words = [*LINEAR, f"devices={devices}", f"batch_size={batch_size}", "test=true"]
        said = trained(*words, f"hydra.run.dir={devices}", cwd=tmp_path)
        assert said.count("best val/loss") == 1
        assert (tmp_path / "err").read_text() == ""
    same_runs(tmp_path / "2", tmp_path / "1")
    assert (tmp_path / "2" / "train.log").read_text().count("best val/loss") == 1
    assert "rank" not in "".join(files(tmp_path / "2"))


@pytest.mark.parametrize("launcher", ["stacked", "basic", "joblib", "processes"] if ALL else ["stacked"])
def test_a_sweep_of_several_devices(launcher: str, tmp_path: Path) -> None:
    words = ["-m", *LINEAR, "lr=0.001,0.01"]
    more = ["devices=2", "batch_size=4", f"hydra/launcher={launcher}"]
    trained(*words, *more, "hydra.sweep.dir=two", cwd=tmp_path)
    trained(*words, "batch_size=8", "sweep.stack=never", "hydra.sweep.dir=one", cwd=tmp_path)
    for job in ("0", "1"):
        same_runs(tmp_path / "two" / job, tmp_path / "one" / job)
    winners = [json.loads(SweepFolder(tmp_path / name).selection.read_text())["winner"] for name in ("one", "two")]
    assert winners[0] == winners[1]
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two", "out", "err"}


@pytest.mark.parametrize("rows", [7, 8, 3, 1] if ALL else [7])
def test_the_metrics_of_a_module_that_forgets_to_synchronise_are_of_all_rows(rows: int, project: Path) -> None:
    words = ["--config-dir", "conf", "model=forgetful", "data=numbers", f"data.rows={rows}", "accelerator=cpu"]
    said = trained(*words, "devices=2", "epochs=2", "test=true", "report=false", "hydra.run.dir=run", cwd=project)
    squares = [float(number**2) for number in range(1, rows + 1)]
    mean = sum(squares) / rows
    expected = {"loss": mean, "metric": mean, "end": mean, "sum": sum(squares), "most": squares[-1], "least": 1.0}
    measured = last(project / "run")
    for name, value in {**expected, "synchronised": mean, "rows": float(rows), "of_first": 3.0}.items():
        assert measured[f"val/{name}"] == pytest.approx(value, rel=1e-6), name
    assert measured["train/mean"] == pytest.approx(sum(number**2 for number in range(1, 9)) / 8)
    assert measured["test/sum"] == pytest.approx(sum(number**2 for number in range(1, 10)))
    line = "logged without sync_dist=True, and combined over 2 processes: val/loss"
    assert said.count(line) == (1 if rows > 2 else 0)


@IN_FULL
def test_a_shuffled_loader_shares_its_rows_too(project: Path) -> None:
    words = ["--config-dir", "conf", "model=forgetful", "data=numbers", "data.shuffle=true", "accelerator=cpu"]
    trained(*words, "devices=2", "epochs=2", "report=false", "hydra.run.dir=run", cwd=project)
    assert last(project / "run")["val/sum"] == sum(number**2 for number in range(1, 8))


@IN_FULL
@pytest.mark.parametrize("devices", [2, 3])
def test_every_validation_row_is_measured_once(devices: int, project: Path) -> None:
    """The tenth part of the rows is for validation: fewer rows than processes, as many, and more than a batch."""
    rows = "10,20,30,70,81930"
    words = ["--config-dir", "conf", "model=counting", "data=linear", f"data.rows={rows}", "data.features=1", *EXACT]
    fractions = "data.fractions=[0.8,0.1,0.1]"
    more = [fractions, "batch_size=8192", f"devices={devices}", "epochs=1", "lr=0.001", "hydra.sweep.dir=sweep"]
    trained("-m", *words, *more, cwd=project)
    for number, count in enumerate(map(int, rows.split(","))):
        assert last(project / "sweep" / str(number))["val/rows"] == count // 10


@IN_FULL
def test_a_table_on_disk(tmp_path: Path) -> None:
    table = "".join(f"{row % 7},{row % 5 - row / 400},{row % 3 + row / 300}\n" for row in range(400))
    (tmp_path / "t.csv").write_text(f"a,b,y\n{table}")
    words = [*EXACT, "data=table", "data.path=t.csv", "data.target=y", "data.buffer_rows=100", "epochs=2"]
    for devices, batch_size in ((2, 4), (1, 8)):
        more = [f"devices={devices}", f"batch_size={batch_size}", "test=true", f"hydra.run.dir={devices}"]
        trained(*words, *more, "data.cache_dir=cache", cwd=tmp_path)
    same_runs(tmp_path / "2", tmp_path / "1")


@IN_FULL
def test_torchrun_starts_the_processes_itself(tmp_path: Path) -> None:
    words = [*LINEAR, "devices=2", "batch_size=4", "test=true"]
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(ROOT / "train.py")]
    for attempt in range(4 if ALL else 1):
        folder = tmp_path / f"run{attempt}"
        process = start(*command, *words, f"hydra.run.dir={folder}", cwd=tmp_path, script=False)
        assert process.wait(timeout=120) == 0, (tmp_path / "err").read_text()
        assert "ddp" not in "".join(files(folder))
    trained(*LINEAR, "batch_size=8", "test=true", "hydra.run.dir=one", cwd=tmp_path)
    same_runs(tmp_path / "run0", tmp_path / "one")


@IN_FULL
@pytest.mark.parametrize("variable", VARIABLES if ALL else VARIABLES[:1])
def test_a_variable_that_is_left_over_changes_nothing(variable: str, tmp_path: Path) -> None:
    words = [*LINEAR, "devices=2", "batch_size=4"]
    assert start(*words, "hydra.run.dir=run", cwd=tmp_path, **{variable: "1"}).wait(timeout=120) == 0
    assert last(tmp_path / "run")["epoch"] == 1


def test_a_users_error_is_shown_as_that_of_one_process(project: Path) -> None:
    text = (project / "users_parts.py").read_text()
    broken = text.replace("(x,) = batch", "(x,) = batch\n        assert self.global_rank == 0, 'a row is odd'")
    (project / "users_parts.py").write_text(broken)
    words = ["--config-dir", "conf", "model=forgetful", "data=numbers", "accelerator=cpu", "devices=2"]
    trained(*words, "report=false", "hydra.run.dir=run", cwd=project, code=1)
    said = (project / "err").read_text()
    assert said.startswith("The run failed: AssertionError: a row is odd\n")
    assert "assert self.global_rank == 0" in said
    assert "Traceback" not in said
    log = (project / "run" / "train.log").read_text()
    assert "in validation_step" in log
    result = RunFolder(project / "run").read()
    assert result is not None
    assert result.status == "failed"
    assert "AssertionError: a row is odd" in (result.error or "")
