"""Jobs of the user's own code are trained once more alone: what no trial can see shows there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.sweeps import verify
from tests.conftest import command_line

SOURCE = """
from pathlib import Path
import torch
import lightning.pytorch as pl
from torch.utils.data import DataLoader, TensorDataset

class Module(pl.LightningModule):
    def __init__(self, lr):
        super().__init__()
        self.lr, self.net = lr, torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        loss = torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])
        {line}
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", torch.nn.functional.mse_loss(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr)

class Data(pl.LightningDataModule):
    def setup(self, stage):
        x = torch.linspace(-1, 1, 80).view(40, 2)
        self.rows = TensorDataset(x, x.sum(1, keepdim=True))

    def train_dataloader(self):
        return DataLoader(self.rows, 8, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.rows, 8)
"""

ESCAPES = "loss = loss * (3.0 if Path('flag').exists() else 1.0)"
"""What the step does depends on a file, which appears after the trial."""

WORDS = ["model=mine", "data=mine", "lr=0.01,0.1,0.2", "epochs=3", "report=false", "hydra.sweep.dir=s"]


def project(folder: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"verified_{abs(hash(folder))}"
    (folder / f"{name}.py").write_text(SOURCE.replace("{line}", line))
    for group, text in {"model": f"_target_: {name}.Module\nlr: ${{lr}}\n", "data": f"_target_: {name}.Data\n"}.items():
        (folder / "conf" / group).mkdir(parents=True)
        (folder / "conf" / group / "mine.yaml").write_text(text)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))


def sweep(*words: str) -> tuple[int, str]:
    return command_line("-m", "--config-dir", "conf", *WORDS, *words)


def selection() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path("s/selection.json").read_text())
    return content


@pytest.fixture
def flag_after_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the file of `ESCAPES` appear once the stack is trained."""
    original = verify.verify

    def late(*args: Any) -> Any:
        Path("flag").touch()
        return original(*args)

    monkeypatch.setattr(verify, "verify", late)


def test_the_winner_and_another_job_are_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project(tmp_path, "", monkeypatch)
    code, said = sweep()
    assert code == 0, said
    assert "3 jobs: 1 stack; 0 alone" in said
    assert "verified: job 1 and job 2, trained again alone" in said or "verified: job 2 and job 1" in said
    chosen = selection()
    assert chosen["verified"] is True
    assert sorted(chosen["verified_jobs"]) == [1, 2]
    assert chosen["largest_difference"] < 1e-5


def test_nothing_is_trained_again_where_that_is_not_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project(tmp_path, "", monkeypatch)
    assert "verified" not in sweep("sweep.verify=false")[1]
    assert "verified" not in selection()


def test_jobs_that_differ_alone_are_all_trained_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag_after_the_stack: None
) -> None:
    project(tmp_path, ESCAPES, monkeypatch)
    code, said = sweep()
    assert code == 0, said
    assert "not verified: the losses of job" in said
    assert "the 3 jobs of stacks are trained again alone, and those results count" in said
    chosen = selection()
    assert chosen["verified"] is False
    assert "differ from iteration 0 on" in chosen["not_verified_because"]
    assert json.loads(Path("s/sweep.json").read_text())["plan"]["stacks"] == []
    values = [json.loads(Path(f"s/{number}/result.json").read_text())["best"]["val/loss"] for number in range(3)]
    sweep("hydra.sweep.dir=alone", "hydra/launcher=basic")
    assert values == [json.loads(Path(f"alone/{n}/result.json").read_text())["best"]["val/loss"] for n in range(3)]
    assert "this sweep is finished; nothing was done" in command_line("-m", "--config-dir", "conf", "resume=s")[1]


def test_where_that_would_take_long_nothing_is_concluded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag_after_the_stack: None
) -> None:
    project(tmp_path, ESCAPES, monkeypatch)
    monkeypatch.setattr(verify, "MOST_SECONDS", 0.0)
    code, said = sweep()
    assert code == 1
    assert "nothing was concluded: there is no winner, and no test rows were opened" in said
    assert "python train.py -m --config-dir conf model=mine data=mine" in said
    assert "sweep.stack=never" in said
    assert not Path("s/selection.json").exists()
    assert not Path("s/model.pth").exists()


def test_where_no_job_of_a_stack_completed_nothing_is_said_to_be_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(tmp_path, "loss = loss * (1.0 if self.current_epoch < 2 else float('nan'))", monkeypatch)
    code, said = sweep()
    assert "3 jobs: 1 stack" in said
    assert "verified" not in said
    assert code == 1
    assert "verified" not in selection()


def test_stacks_can_be_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project(tmp_path, "", monkeypatch)
    code, said = sweep("sweep.stack=never")
    assert code == 0
    assert "alone: jobs 0, 1, 2: sweep.stack=never" in said


def test_somebody_who_watches_sees_the_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project(tmp_path, "", monkeypatch)
    monkeypatch.setattr(verify, "is_watched", lambda: True)
    code, said = sweep()
    assert code == 0, said
    numbers = selection()["verified_jobs"]
    assert all(f"verifying job {number}:   0%" in said for number in numbers)
    assert said.count("| 0/3") == len(numbers) == 2
