"""Folders that version 0.1.0 wrote, before `model.pth` held the bare network, are read and resumed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from holdfast.model import Linear
from tests.conftest import ROOT, Ran, command_line

EARLIER = ROOT / "tests" / "earlier"


@pytest.fixture(autouse=True)
def _copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("run", "sweep"):
        shutil.copytree(EARLIER / name, tmp_path / name)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("resume=run", "run is finished (completed); nothing was done."),
        ("-m resume=sweep", "this sweep is finished; nothing was done"),
        ("report run", "figures/fit.png"),
        ("report sweep", "sweep/report.html"),
    ],
)
def test_they_are_finished_and_reported(words: str, shown: str) -> None:
    code, said = command_line(*words.split())
    assert code == 0, said
    assert shown in said
    assert "left out" not in said


@pytest.mark.parametrize("number", [0, 1])
def test_an_unfinished_job_of_theirs_is_trained_again_to_the_same_weights(number: int) -> None:
    job = Path("sweep", str(number))
    before = torch.load(job / "model.pth", weights_only=True)
    shutil.rmtree(job)
    Path("sweep/selection.json").unlink()
    # the same weights in other bytes count as others, for which the test rows are opened once more
    code, said = command_line("-m", "resume=sweep", "test_again=true")
    assert code == 0, said
    after = torch.load(job / "model.pth", weights_only=True)
    assert [value.tolist() for value in after.values()] == [value.tolist() for value in before.values()]


@pytest.mark.parametrize("file", ["run/model.pth", "run/best.ckpt"])
def test_their_weights_begin_a_run(file: str, holdfast: Callable[..., Ran]) -> None:
    ran = holdfast(f"init_weights={file}", "lr=1e-12", "epochs=1")
    weights, theirs = (torch.load(path, weights_only=True) for path in (ran.folder.weights, "run/model.pth"))
    assert weights["linear.weight"].item() == pytest.approx(theirs["network.weight"].item(), abs=1e-6)


def test_their_checkpoint_loads() -> None:
    model = Linear.load_from_checkpoint("run/best.ckpt", weights_only=True)
    assert model.network.weight.item() == torch.load("run/model.pth", weights_only=True)["network.weight"].item()
