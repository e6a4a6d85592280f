"""A project in the shape of lightning-hydra-template runs unchanged, and every command of docs/coming-from.md works."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.conftest import ROOT, Ran, command_line
from tests.forked import python

pytestmark = pytest.mark.filterwarnings("default")  # Lightning's, as the user would see them

PAGE = (ROOT / "docs" / "coming-from.md").read_text()
COMMANDS = re.findall(r"`(python train\.py[^`]*)`", PAGE)
SEVERAL_DEVICES = [command for command in COMMANDS if "devices=" in command]


def test_every_row_has_something_here() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert len(rows) >= 50
    assert len(COMMANDS) >= 45
    assert len(COMMANDS) == len(set(COMMANDS))
    assert all(row.count(" | ") == 1 for row in rows)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in SEVERAL_DEVICES])
def test_a_command_of_the_page(command: str, holdfast: Callable[..., Ran], tmp_path: Path) -> None:
    words = shlex.split(command)[2:]
    if "NAME" in command or "OTHER" in command:
        (tmp_path / "outputs" / "runs").mkdir(parents=True)
        path = holdfast("epochs=1").folder.path.rename(tmp_path / "outputs/runs" / re.findall("NAME|OTHER", command)[0])
        assert (path / "best.ckpt").exists()
    code, said = command_line(*words)
    assert code == 0, said
    assert "no effect" not in said


EFFECTS: dict[str, Callable[[str, Path], bool]] = {
    "epochs=20": lambda _, run: result_of(run)["epochs"] == 20,
    "precision=bf16-mixed": lambda _, run: hydra_file(run)["precision"] == "bf16-mixed",
    "trainer.gradient_clip_val=0.5": lambda _, run: hydra_file(run)["trainer"]["gradient_clip_val"] == 0.5,
    "trainer.val_check_interval=0.25": lambda _, run: hydra_file(run)["trainer"]["val_check_interval"] == 0.25,
    "trainer.fast_dev_run=true": lambda _, run: result_of(run)["iterations"] == 1,
    "epochs=3 trainer.limit_train_batches=0.5 trainer.limit_val_batches=1": (
        lambda _, run: (result_of(run)["epochs"], result_of(run)["iterations"]) == (3, 3 * 30)
    ),
    "epochs=20 trainer.overfit_batches=3": lambda _, run: result_of(run)["iterations"] == 20 * 3,
    "epochs=1 trainer.profiler=simple": lambda said, _: "Profiler Report" in said,
    "logger=csv": lambda _, run: len((next(run.rglob("metrics.csv"))).read_text().splitlines()) > 10,
    "logger=none": lambda _, run: not list(run.rglob("events.out.tfevents.*")),
    "metric=val/r2 mode=max": lambda said, _: "best val/r2" in said,
    "trainer.enable_model_summary=true": lambda said, _: "Trainable params" in said,
    "test=true": lambda _, run: result_of(run)["test_opened"] == 1,
    "seed=12345": lambda _, run: hydra_file(run)["seed"] == 12345,
    "vars.data_dir=/data": lambda _, run: hydra_file(run)["vars"] == {"data_dir": "/data"},
    "optimizer=adam lr=0.01": lambda _, run: hydra_file(run)["optimizer"]["_target_"] == "torch.optim.Adam",
    "scheduler=cosine": lambda _, run: hydra_file(run)["scheduler"]["_target_"].endswith("CosineAnnealingLR"),
    "--cfg job": lambda said, run: "batch_size: 1" in said and not run.exists(),
}
"""What a command does, beyond ending with exit code 0: a check of what it says and of the folder of its run."""


def result_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text())


def hydra_file(run: Path) -> dict[str, Any]:
    return yaml.safe_load((run / ".hydra" / "config.yaml").read_text())


@pytest.mark.parametrize("words", EFFECTS)
def test_a_command_of_the_page_does_what_it_says(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert f"python train.py {words}" in COMMANDS
    monkeypatch.chdir(tmp_path)
    _, said = command_line(*shlex.split(words), *([] if "--cfg" in words else ["hydra.run.dir=run"]))
    assert EFFECTS[words](said + caplog.text, tmp_path / "run"), said


@pytest.mark.parametrize("command", SEVERAL_DEVICES)
def test_a_command_for_several_devices(command: str, tmp_path: Path) -> None:
    words = [*shlex.split(command)[2:], "epochs=1", "hydra.run.dir=run"]
    ran = python(ROOT / "train.py", *words, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "completed"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project, entered, and its modules forgotten afterwards."""
    shutil.copytree(ROOT / "tests" / "template_project", tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.syspath_prepend(str(tmp_path / "project"))
    for name in [name for name in sys.modules if name.partition(".")[0] == "src"]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path / "project"


def accuracy(run: Path) -> float:
    """The accuracy of the best weights on the validation rows, computed by hand."""
    rows = torch.load("data/blobs.pt")
    order = torch.randperm(200, generator=torch.Generator().manual_seed(42))[120:160]
    state: dict[str, Any] = torch.load(run / "best.ckpt", weights_only=True)["state_dict"]
    prefix = "net.model."
    layers = torch.nn.Sequential(
        torch.nn.Linear(4, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Linear(16, 3)
    ).eval()
    layers.load_state_dict({name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)})
    return float((layers(rows["x"][order]).argmax(1) == rows["y"][order]).float().mean())


@pytest.mark.parametrize("more", [[], ["trainer.val_check_interval=0.5"], ["trainer.min_epochs=2"]])
def test_a_project_in_the_templates_shape_runs_unchanged(more: list[str], project: Path) -> None:
    words = ["--config-dir", "conf", "experiment=blobs", "test=true", "hydra.run.dir=run", *more]
    code, said = command_line(*words)
    assert code == 0, said
    result = json.loads((project / "run" / "result.json").read_text())
    assert result["best"]["val/acc"] == pytest.approx(accuracy(project / "run"))
    assert result["best"]["val/acc"] > 0.5
    assert set(result["test"]) == {"test/loss", "test/acc"}


def test_a_path_of_the_project_is_set_on_the_command_line(project: Path) -> None:
    code, said = command_line("--config-dir", "conf", "experiment=blobs", "vars.data_dir=elsewhere", "epochs=1")
    assert code == 0, said
    assert (project / "elsewhere" / "blobs.pt").exists()
    assert not (project / "data").exists()


def test_a_sweep_over_the_project_finds_its_winner(project: Path) -> None:
    words = ["--config-dir", "conf", "experiment=blobs", "lr=0.0001,0.01", "model.net.hidden_size=8,16"]
    code, said = command_line("-m", *words, "hydra.sweep.dir=sweep")
    assert code == 0, said
    accuracies = [
        json.loads(path.read_text())["best"]["val/acc"] for path in sorted(project.glob("sweep/*/result.json"))
    ]
    selection = json.loads((project / "sweep" / "selection.json").read_text())
    assert len(accuracies) == 4
    assert selection["value"] == max(accuracies)
