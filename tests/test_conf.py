"""Everything under conf/ composes and runs, by the command that its first line gives."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.main import CONF
from holdfast.store.folders import SweepFolder
from tests.record.test_events import read

FILES = sorted(path for path in CONF.rglob("*.yaml") if "hydra" not in path.relative_to(CONF).parts)


def command(path: Path) -> list[str]:
    """The words of the command that opens a file."""
    lines = path.read_text().splitlines()
    line = lines[1] if lines[0].startswith("# @package") else lines[0]
    assert line.startswith("# python train.py "), f"{path} does not open with the command that runs it"
    return shlex.split(line.removeprefix("# python train.py "))


def test_the_list_is_not_empty() -> None:
    assert len(FILES) >= 20


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(CONF).as_posix())
def test_the_command_that_opens_a_file_runs_it(path: Path, holdfast: Callable[..., Any]) -> None:
    words = command(path)
    if "data.path=houses.csv" in words:
        rows = [f"{area},{rooms},{1000 * area + 50 * rooms}" for area in range(40, 80) for rooms in (2, 3)]
        Path("houses.csv").write_text("\n".join(["area,rooms,price", *rows]))
    if path.parent != CONF and path.stem != "default":
        assert any(word == f"{path.parent.name}={path.stem}" for word in words)
    ran = holdfast(*words)
    assert ran.code == 0, ran.err
    if "-m" in words:
        (sweep,) = Path("outputs/sweeps").iterdir()
        assert json.loads(SweepFolder(sweep).selection.read_text())["winner"] is not None
    else:
        assert ran.result.status == "completed"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(CONF).as_posix())
def test_every_file_says_what_it_does(path: Path) -> None:
    comments = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert len(comments) >= 3


MODELS = [["model=linear"], ["model=mlp"], ["model=mlp", "model.activation=relu", "model.hidden=[4,4]"]]
OPTIMIZERS = [["optimizer=sgd", "optimizer.momentum=0.5"], ["optimizer=adam"], ["optimizer=rmsprop"]]
SCHEDULERS = ["none", "step", "exponential", "cosine"]


@pytest.mark.parametrize("model", MODELS, ids=" ".join)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=" ".join)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_model_learns_with_every_optimizer_and_scheduler(
    model: list[str], optimizer: list[str], scheduler: str, holdfast: Callable[..., Any]
) -> None:
    data = ["data=linear", "data.rows=200", "data.features=2", "batch_size=20", "lr=0.02", "epochs=4"]
    ran = holdfast(*data, *model, *optimizer, f"scheduler={scheduler}")
    assert ran.result.status == "completed"
    curves = read(ran.folder.path)
    training = [event.value for event in curves.Scalars("train/loss")]
    validation = [event.value for event in curves.Scalars("val/loss")]
    assert len(training) == len(validation) == 4
    assert training[-1] < training[0]
    assert ran.result.best["epoch"] == validation.index(min(validation))
