"""Runs on several devices whose processes are killed or stopped: what ends, what is said, what goes on, what is left.

By default a sample; HOLDFAST_FAULTS=all, as in CI, tries every process, and moments before and within the training.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from holdfast.store.folders import RunFolder, SweepFolder
from tests.faults.group import CHOSEN, LONG, TWO, is_alive, kill, members, start, training, wait_for
from tests.full import ALL, IN_FULL

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of a run in /proc")


@IN_FULL
@pytest.mark.parametrize("rank", [0, 1] if ALL else [1])
def test_a_killed_process_ends_its_run(rank: int, tmp_path: Path) -> None:
    process = start(*LONG, CHOSEN["run"], cwd=tmp_path)
    pids = training(process, tmp_path / "run")
    kill(pids[rank])
    began = time.monotonic()
    assert process.wait(timeout=60) == 1
    assert time.monotonic() - began < 30
    assert not any(map(is_alive, pids.values()))
    result = RunFolder(tmp_path / "run").read()
    assert result is not None
    assert (result.status, result.epochs > 0) == ("failed", True)
    assert f"process of rank {rank} was killed by SIGKILL" in (result.error or "")
    assert f"process of rank {rank} was killed by SIGKILL" in (tmp_path / "err").read_text()
    assert "Traceback" not in (tmp_path / "err").read_text()
    assert RunFolder(tmp_path / "run").finished(result.config_hash)


def test_a_killed_process_ends_its_job_and_nothing_else(tmp_path: Path) -> None:
    words = ["-m", *TWO, "epochs=1000000,1", CHOSEN["sweep"]]
    process = start(*words, cwd=tmp_path)
    pids = training(process, tmp_path / "sweep" / "0")
    kill(pids[1])
    began = time.monotonic()
    wait_for((tmp_path / "sweep" / "0" / "result.json").exists, process, seconds=30)
    assert process.wait(timeout=120) == 1
    print(f"{time.monotonic() - began:.1f} s after the kill the sweep was over")
    failed, other = (RunFolder(tmp_path / "sweep" / str(number)).read() for number in range(2))
    assert failed is not None
    assert other is not None
    assert (failed.status, other.status) == ("failed", "completed")
    said = (tmp_path / "out").read_text()
    assert "job 0 (epochs=1000000) failed: the process of rank 1 was killed by SIGKILL" in said
    assert json.loads(SweepFolder(tmp_path / "sweep").selection.read_text())["winner"] == 1
    assert not any(map(is_alive, pids.values()))


@IN_FULL
@pytest.mark.parametrize("kind", ["run", "sweep"] if ALL else ["sweep"])
@pytest.mark.parametrize("moment", ["training", "beginning"] if ALL else ["training"])
def test_no_process_outlives_the_one_that_waits(kind: str, moment: str, tmp_path: Path) -> None:
    words = [*LONG, CHOSEN["run"]] if kind == "run" else ["-m", *LONG, "seed=0,1", CHOSEN["sweep"]]
    process = start(*words, cwd=tmp_path)
    folder = tmp_path / ("run" if kind == "run" else "sweep/0")
    if moment == "training":
        pids = training(process, folder)
    else:
        wait_for(lambda: len(members(folder)) == 2, process)
        pids = members(folder)
    process.kill()
    process.wait()
    wait_for(lambda: not any(map(is_alive, pids.values())), seconds=10)


@IN_FULL
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT] if ALL else [signal.SIGTERM])
def test_a_stopped_run_resumes_to_the_same_weights(number: int, tmp_path: Path) -> None:
    words = [*TWO, "epochs=300", "model=mlp", "model.dropout=0.1"]
    process = start(*words, CHOSEN["run"], cwd=tmp_path)
    folder = RunFolder(tmp_path / "run")
    wait_for(lambda: folder.event_files() and len(members(folder.path)) == 2, process)
    time.sleep(0.3)
    pids = members(folder.path)
    process.send_signal(number)
    assert process.wait(timeout=60) == 128 + number
    assert not any(map(is_alive, pids.values()))
    said = (tmp_path / "err").read_text()
    assert "to resume: python train.py resume=run" in said
    assert "Traceback" not in said
    assert folder.read() is None
    assert folder.last.exists()
    assert start("resume=run", cwd=tmp_path).wait(timeout=120) == 0
    assert start(*words, "hydra.run.dir=whole", cwd=tmp_path).wait(timeout=120) == 0
    resumed, whole = (torch.load(tmp_path / name / "model.pth", weights_only=True) for name in ("run", "whole"))
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    result = folder.read()
    assert result is not None
    assert (result.epochs, result.iterations) == (300, 300 * 3)


@IN_FULL
def test_a_stopped_sweep_says_how_it_resumes(tmp_path: Path) -> None:
    process = start("-m", *LONG, "seed=0,1", CHOSEN["sweep"], cwd=tmp_path)
    pids = training(process, tmp_path / "sweep" / "0")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert not any(map(is_alive, pids.values()))
    assert "to resume: python train.py -m resume=sweep" in (tmp_path / "err").read_text()
    assert not list(tmp_path.rglob("result.json"))
