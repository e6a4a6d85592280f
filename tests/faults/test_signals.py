"""Signals at several moments, and starts that want the same folder: exit codes, what is said, what is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from holdfast.record.checkpoint import load
from holdfast.store.folders import RunFolder
from tests.conftest import ROOT
from tests.forked import python
from tests.full import ALL, IN_FULL, some

TRAIN = [sys.executable, str(ROOT / "train.py")]
LONG = {
    "run": (["epochs=1000000", "hydra.run.dir=there"], "python train.py resume=there"),
    "stacked": (["-m", "lr=0.01,0.02", "epochs=1000000", "hydra.sweep.dir=there"], "python train.py -m resume=there"),
    "basic": (
        ["-m", "lr=0.01,0.02", "epochs=1000000", "hydra/launcher=basic", "hydra.sweep.dir=there"],
        "python train.py -m resume=there",
    ),
}
MOMENTS = {"training": 4.0} if not ALL else {"importing": 0.8, "beginning": 2.2, "training": 4.0, "later": 5.5}
PAIRS = 20
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
CASES = [(kind, number, code) for kind in LONG for number, code in CODES.items()]


@pytest.mark.parametrize(("kind", "number", "code"), some(CASES, 4))
def test_a_signal_at_any_moment(kind: str, number: int, code: int, tmp_path: Path) -> None:
    words, command = LONG[kind]

    def at(moment: str) -> None:
        folder = tmp_path / moment
        folder.mkdir()
        process = subprocess.Popen([*TRAIN, *words], cwd=folder, stdout=-1, stderr=-1, text=True)
        time.sleep(MOMENTS[moment])
        assert process.poll() is None
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, (moment, err)
        assert "Traceback" not in out + err, (moment, err)
        assert not list(folder.rglob("result.json"))
        if number != signal.SIGKILL:
            assert "nothing was concluded" in err
            begun = list(folder.glob("there/run.json")) + list(folder.glob("there/sweep.json"))
            assert (f"to resume: {command}" in err) == bool(begun), (moment, err)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(at, MOMENTS))


def test_what_a_signal_stopped_goes_on_to_its_end(tmp_path: Path) -> None:
    epochs = 2000
    words = [f"epochs={epochs}", "batch_size=full", "lr=0.1", "report=false", "hydra.run.dir=there"]
    for pause in (1, 2, 4, 8):  # until it is stopped in the middle, also on a machine that is busy
        shutil.rmtree(tmp_path / "there", ignore_errors=True)
        process = subprocess.Popen([*TRAIN, *words], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (tmp_path / "there" / "run.json").exists():
            assert process.poll() is None
            time.sleep(0.1)
        time.sleep(pause)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
        if (tmp_path / "there" / "last.ckpt").exists():
            break
    reached = len(load(tmp_path / "there" / "last.ckpt")["holdfast"]["epochs"])
    assert 0 < reached < epochs
    refused = python(ROOT / "train.py", "resume=there", "lr=0.5", cwd=tmp_path)
    assert refused.returncode == 2
    assert "lr=0.5  this run was started with lr=0.1" in refused.stderr
    done = python(ROOT / "train.py", "resume=there", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    result = RunFolder(tmp_path / "there").read()
    assert result is not None
    assert (result.status, result.epochs, result.iterations) == ("completed", epochs, epochs)


@IN_FULL
def test_pairs_of_starts_get_folders_of_their_own(tmp_path: Path) -> None:
    def start(number: int) -> tuple[int, str]:
        command = [*TRAIN, "epochs=1", "batch_size=full", "logger=none"]
        done = subprocess.run(command, cwd=tmp_path / str(number // 2), capture_output=True, text=True)
        return done.returncode, done.stderr

    for pair in range(PAIRS):
        (tmp_path / str(pair)).mkdir()
    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(start, range(2 * PAIRS))) == {(0, "")}
    for pair in range(PAIRS):
        folders = list((tmp_path / str(pair) / "outputs" / "runs").iterdir())
        assert len(folders) == 2
        assert all(RunFolder(folder).read() for folder in folders)


def test_the_second_in_a_folder_is_told_who_holds_it(tmp_path: Path) -> None:
    words, _ = LONG["stacked"]
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen([*TRAIN, *words], cwd=tmp_path, stdout=nowhere, stderr=nowhere)
    while not (tmp_path / "there" / "sweep.json").exists():
        assert process.poll() is None
        time.sleep(0.1)
    second = python(ROOT / "train.py", *words, cwd=tmp_path)
    assert second.returncode == 2
    assert f"there is in use by process {process.pid} on {os.uname().nodename}" in second.stderr
    process.kill()
    process.wait()
