"""The command line as a user meets it, mostly as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.cli.main import main
from tests.conftest import ROOT


def train(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "train.py"), *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def test_what_a_run_leaves_behind(tmp_path: Path) -> None:
    done = train("lr=0.01", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("best val/loss ")
    assert done.stdout.endswith("tensorboard --logdir outputs\n")
    (folder,) = (tmp_path / "outputs" / "runs").iterdir()
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("events.out.tfevents."))
    texts = ["result.json", "run.json", "train.log"]
    assert names == [".hydra", "best.ckpt", "descent.npy", "last.ckpt", "model.pth", *texts]
    assert len(list(folder.iterdir())) == 10
    assert sorted(path.name for path in (folder / ".hydra").iterdir()) == [
        "config.yaml",
        "hydra.yaml",
        "overrides.yaml",
    ]
    result = json.loads((folder / "result.json").read_text())
    assert list(result) == [
        "status", "overrides", "config_hash", "metric", "best", "last", "epochs", "iterations", "seconds", "error",
        "sha256", "test", "test_opened", "versions", "by_epoch",
    ]  # fmt: skip
    assert result["overrides"] == ["lr=0.01"]
    assert set(result["sha256"]) == {"best.ckpt", "last.ckpt", "model.pth", "descent.npy"}
    assert "best val/loss" in (folder / "train.log").read_text()


def test_starts_in_the_same_second_share_nothing(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: train("epochs=1", "batch_size=full", cwd=tmp_path), range(4)))
    assert [run.returncode for run in done] == [0] * 4
    folders = list((tmp_path / "outputs" / "runs").iterdir())
    assert len(folders) == 4
    assert all((folder / "result.json").exists() for folder in folders)


@pytest.mark.parametrize(
    "words",
    [
        ["lr=abc"],
        ["accelerator=cuda" if not torch.cuda.is_available() else "accelerator=tpu"],
        ["devices=4096"],
        ["accelerator=cpu", "devices=[0]"],
        ["+callbacks.mine={_target_:nowhere.Callback}"],
        ["+callbacks.mine={_target_:holdfast.model.Linear,colour:red}"],
        ["trainer.strategy=foo"],
        ["hydra.run.dir="],
        ["--experimental-rerun", "config.pickle"],
        ["--cfg", "job", "--info", "all"],
        ["--config-dir", "nowhere"],
    ],
    ids=" ".join,
)
def test_a_refused_command_exits_2_with_one_message_and_leaves_nothing(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        main(words)
    out, err = capsys.readouterr()
    assert error.value.code == 2
    assert out == ""
    assert "problem in the configuration; nothing was run." in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    done = train("hydra.run.dir=mine", cwd=tmp_path)
    assert done.returncode == 2
    assert "already holds files" in done.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_without_a_result(number: int, code: int, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "train.py"), "epochs=1000000", "hydra.run.dir=run"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("run/last.ckpt")):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert err.endswith("nothing was concluded; to resume: python train.py resume=run\n")
    assert "Traceback" not in err
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_folder_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    (tmp_path / "outputs").symlink_to("/nowhere/at/all")
    done = train(cwd=tmp_path)
    assert done.returncode == 2
    assert "cannot be made" in done.stderr


def test_hydras_own_help_and_completion_still_work(tmp_path: Path) -> None:
    assert "hydra/sweeper: basic, holdfast" in train("--hydra-help", cwd=tmp_path).stdout
    command = [sys.executable, str(ROOT / "train.py"), "-sc", "query=bash"]
    environment = {**os.environ, "COMP_LINE": "python train.py lr=abc optimizer=", "COMP_POINT": "33"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert {"optimizer=adam", "optimizer=sgd"} <= set(done.stdout.split())


def test_flags_may_stand_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = []
    for words in (["lr=0.5", "--cfg", "job", "epochs=3"], ["--cfg", "job", "lr=0.5", "epochs=3"]):
        with pytest.raises(SystemExit):
            main(words)
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert "lr: 0.5" in shown[0]


def test_a_sweep_trains_every_job(tmp_path: Path) -> None:
    done = train("epochs=1", "-m", "lr=0.01,0.1", "batch_size=5,full", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    results = [json.loads((sweep / str(job) / "result.json").read_text()) for job in range(4)]
    assert [result["iterations"] for result in results] == [12, 1, 12, 1]


def test_jobs_on_two_processes_join_their_own_sweep(tmp_path: Path, holdfast: Callable[..., Any]) -> None:
    words = ["accelerator=cpu", "batch_size=20", "data.shuffle=false", "precision=64-true", "epochs=2"]
    done = train("-m", "devices=2,1", *words, "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sweep"]
    two, one = (json.loads((tmp_path / "sweep" / str(job) / "result.json").read_text()) for job in range(2))
    assert (two["iterations"], one["iterations"]) == (4, 6)
    assert one["best"] == pytest.approx(holdfast(*words).result.best, rel=1e-9)


def test_two_processes_train_what_one_trains_with_a_batch_twice_as_large(
    tmp_path: Path, holdfast: Callable[..., Any]
) -> None:
    words = ["accelerator=cpu", "data.shuffle=false", "precision=64-true", "lr=0.001", "test=true"]
    done = train(*words, "devices=2", "batch_size=5", "hydra.run.dir=two", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    two = json.loads((tmp_path / "two" / "result.json").read_text())
    one = holdfast(*words, "batch_size=10").result
    assert (two["iterations"], two["test_opened"]) == (one.iterations, 1)
    for key, value in one.best.items():
        if key != "train/loss_epoch":  # the mean over the first process's batches alone
            assert two["best"][key] == pytest.approx(value, rel=1e-9), key
    assert done.stdout.count("best val/loss") == 1


def test_help_tells_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["--help"])
    text = capsys.readouterr().out
    assert error.value.code == 0
    for key in (
        "lr=0.01",
        "batch_size=1",
        "seed=0",
        "data.outliers=",
        "optimizer.momentum=0.0",
        "experiment=batch_gd|",
    ):
        assert key in text
