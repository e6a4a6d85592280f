"""`engine=lean` against the Trainer: the same folder, the same numbers, the same promises."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.config.schema import Config
from holdfast.errors import Stopped
from holdfast.execute import lean
from holdfast.store.folders import RunFolder
from holdfast.store.result import Result
from tests.conftest import ROOT, Ran, command_line
from tests.forked import python
from tests.stacked.test_loop import configured, curves
from tests.workers.swept import write_modules

SETTINGS = [
    ["lr=0.1", "batch_size=5", "optimizer.momentum=0.9"],
    ["model=mlp", "model.dropout=0.2", "optimizer=adam", "batch_size=7", "scheduler=step"],
    ["lr=1e9"],
    ["lr=0.1", "batch_size=full", "epochs=50", "callbacks.early_stopping.patience=1"],
    ["--config-dir", "my_conf", "model=ordinary", "batch_size=7", "lr=0.1"],
]


@pytest.mark.parametrize("words", SETTINGS, ids=" ".join)
def test_a_run_is_what_the_trainer_makes(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holdfast: Callable[..., Ran]
) -> None:
    write_modules(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    words = [*words, "precision=64-true", "test=true"] if "my_conf" not in words else words
    by_trainer, by_lean = holdfast(*words), holdfast(*words, "engine=lean")
    assert by_lean.code == by_trainer.code == 0, by_lean.err
    one, other = by_trainer.result, by_lean.result
    assert (other.status, other.epochs, other.iterations, other.test_opened) == (
        *(one.status, one.epochs, one.iterations, one.test_opened),
    )
    tolerance = 1e-9 if "precision=64-true" in words else 1e-4
    for entry in ("best", "last", "test"):
        ours, theirs = getattr(other, entry), getattr(one, entry)
        assert (ours is None) == (theirs is None)
        rel = max(tolerance, 1e-6) if entry == "test" else tolerance  # Lightning's test metrics are float32
        if ours is not None:
            assert ours.keys() == theirs.keys()
            for key, value in theirs.items():
                assert ours[key] == (None if value is None else pytest.approx(value, rel=rel, nan_ok=True)), key
    assert _names(by_lean.folder) == _names(by_trainer.folder)
    if one.best is not None:
        weights = [torch.load(ran.folder.weights, weights_only=True) for ran in (by_lean, by_trainer)]
        assert weights[0].keys() == weights[1].keys()
        for name, value in weights[1].items():
            torch.testing.assert_close(weights[0][name], value, rtol=tolerance, atol=tolerance)
    ours, theirs = curves(by_lean.folder.path), curves(by_trainer.folder.path)
    assert set(theirs) - set(ours) <= {f"test/{name}" for name in ("loss", "mae", "r2")}


def _names(folder: RunFolder) -> set[str]:
    """The files of a run; the test metrics may be in an event file of their own."""
    return {path.name for path in folder.path.rglob("*") if path.is_file() and "tfevents" not in path.name}


def test_a_run_that_is_stopped_ends_with_the_same_bits(tmp_path: Path) -> None:
    words = ["engine=lean", "epochs=1000", "lr=0.001", "batch_size=5", "report=false", "model=mlp"]
    command = [sys.executable, str(ROOT / "train.py"), *words]
    process = subprocess.Popen([*command, "hydra.run.dir=stopped"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "stopped" / "run.json").exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "to resume: python train.py resume=stopped" in err
    folders = [RunFolder(tmp_path / name) for name in ("stopped", "whole")]
    assert folders[0].lean.archive.exists()
    assert folders[0].read() is None
    again = python(ROOT / "train.py", "resume=stopped", cwd=tmp_path, check=True)
    assert "go on from their snapshot" in again.stdout
    python(ROOT / "train.py", *words, "hydra.run.dir=whole", cwd=tmp_path, check=True)
    for file in ("best", "last", "weights"):
        assert getattr(folders[0], file).read_bytes() == getattr(folders[1], file).read_bytes()
    assert not any(file.exists() for folder in folders for file in folder.lean)


def test_a_finished_run_is_not_trained_again(holdfast: Callable[..., Ran]) -> None:
    done = holdfast("engine=lean", "epochs=1")
    written = done.folder.result.read_bytes()
    code, said = command_line(f"resume={done.folder.path}")
    assert (code, done.folder.result.read_bytes()) == (0, written)
    assert "is finished (completed); nothing was done" in said


def test_test_rows_are_opened_again_without_training(holdfast: Callable[..., Ran]) -> None:
    done = holdfast("engine=lean", "epochs=1", "test=true")
    result = done.result
    kept = {file.name: file.read_bytes() for file in (done.folder.best, done.folder.last, done.folder.weights)}
    code, said = command_line(f"resume={done.folder.path}", "test_again=true")
    assert code == 0, said
    again = done.folder.read()
    assert again is not None
    assert (again.test, again.test_opened) == (result.test, 2)
    assert replace(again, test_opened=1) == result
    assert {name: (done.folder.path / name).read_bytes() for name in kept} == kept


@pytest.mark.parametrize("where", ["_written", "_tested"])
def test_a_run_killed_after_its_training_is_not_trained_again(
    where: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, holdfast: Callable[..., Ran]
) -> None:
    def stopped(*_: Any) -> None:
        raise Stopped(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(lean, where, stopped)
        done = holdfast("engine=lean", "epochs=2", "test=true")
    assert (done.code, done.folder.read()) == (143, None)
    monkeypatch.setattr("holdfast.stacked.stack_trainer.train_stack", None)  # would fail
    code, said = command_line(f"resume={done.folder.path}")
    assert code == 0, said
    whole = done.folder.read()
    assert whole is not None
    assert (whole.status, whole.epochs, whole.test_opened) == ("completed", 2, 1)
    assert not any(file.exists() for file in done.folder.lean)


def test_test_rows_that_cannot_be_read_leave_the_trained_weights(
    monkeypatch: pytest.MonkeyPatch, holdfast: Callable[..., Ran]
) -> None:
    def fails(*_: Any) -> None:
        raise ValueError("unreadable")

    monkeypatch.setattr("holdfast.single.trainer._test", fails)
    done = holdfast("engine=lean", "epochs=2", "test=true")
    assert done.code == 1
    result = done.result
    assert (result.status, result.epochs, result.test, result.test_opened) == ("failed", 2, None, 1)
    assert (result.error or "").startswith("ValueError: unreadable")
    assert done.folder.finished(result.config_hash)
    assert done.folder.weights.exists()


@pytest.mark.parametrize("engine", ["trainer", "lean"])
def test_a_module_without_a_test_step_is_told_before_it_is_trained(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holdfast: Callable[..., Ran]
) -> None:
    write_modules(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    done = holdfast("--config-dir", str(tmp_path / "my_conf"), "model=ordinary", "test=true", f"engine={engine}")
    assert done.code == 1
    assert done.result.error == "test=true needs a test_step, which Ordinary does not have"
    assert (done.result.epochs, done.result.test_opened) == (0, 0)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["devices=2", "accelerator=cpu"], "devices"),
        (["trainer.accumulate_grad_batches=2"], "accumulate_grad_batches"),
        (["--config-dir", "my_conf", "model=alone"], "item"),
    ],
)
def test_what_it_cannot_train_is_refused_and_nothing_is_written(
    words: list[str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_modules(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    code, said = command_line(*words, "engine=lean", "hydra.run.dir=run")
    assert code == 2, said
    assert "engine=lean  cannot train this run: " in said
    assert reason in said
    assert "leave it out" in said
    assert not (tmp_path / "run").exists()


def test_a_sweep_refuses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = command_line("-m", "lr=0.1,0.2", "engine=lean")
    assert code == 2
    assert "engine=lean  is for a single run" in said


def test_a_failure_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holdfast: Callable[..., Ran]) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("as asked")

    monkeypatch.setattr("holdfast.stacked.stack_trainer.train_stack", fails)
    done = holdfast("engine=lean")
    assert done.code == 1
    assert done.result.status == "failed"
    assert done.result.error.startswith("RuntimeError: as asked (test_lean.py, line")


def test_a_long_run_is_told_what_it_would_have_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured("epochs=1000", "lr=0.001")

    def line(config: Config, seconds: float) -> str | None:
        result = Result("completed", [], "hash", "val/loss", epochs=1000, seconds=seconds)
        return lean.faster(config, result)

    assert line(config, 9.0) is None
    said = line(config, 400.0)
    assert said is not None
    seconds = float(said.split("about ")[1].split(" s")[0])
    assert said == f"engine=lean would have taken about {seconds:.0f} s instead of 400 s"
    began = time.perf_counter()
    (share,) = [lean.check_lean(config)]
    assert share.reason is None
    estimate = lean._estimate(config, 1000, by_steps=share.by_steps)
    assert 0 < estimate < 60 + time.perf_counter() - began
    monkeypatch.setattr(lean, "_estimate", lambda *_, **__: 300.0)
    assert line(config, 400.0) is None  # it would not be twice as fast
    assert line(configured("trainer.accumulate_grad_batches=2"), 400.0) is None
    assert np.isfinite(estimate)
