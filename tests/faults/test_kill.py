"""Kills, full disks and read-only folders at every write boundary; see `docs/reliability.md` for the counts.

By default every 60th boundary is tried, of some kinds more; HOLDFAST_FAULTS=all tries each, and 13 random times. In CI
every fourth is.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast.store.folders import RunFolder
from tests.conftest import ROOT
from tests.forked import python
from tests.full import ALL, NUMBER, PARTS

STEP = PARTS if ALL else 60
RANDOM = max(1, 13 // PARTS) if ALL else 1  # of each kind
SHORTER = {"run": 25, "snapshots": 5, "folds": 15, "zoom": 15}
"""Steps of the kinds with fewer boundaries."""
KINDS = ("run", "stacked", "basic", "mixed", "snapshots", "folds", "zoom", "tpe")


def tried(folder: Path, kind: str, tmpdir: Path, **plan: Any) -> list[dict[str, Any]]:
    step = min(STEP, SHORTER.get(kind, STEP))
    plan = {"folder": str(folder), "kind": kind, "first": 1 + NUMBER, "step": step, "random": 0, "errno": 0, **plan}
    command = [sys.executable, "-m", "tests.faults.victims", json.dumps(plan)]
    environment = {**os.environ, "TMPDIR": str(tmpdir)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=1800)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert len(told["outcomes"]) >= told["boundaries"] // plan["step"] > 0
    print(f"{kind}: {told['boundaries']} boundaries, {len(told['outcomes'])} tried")
    outcomes: list[dict[str, Any]] = told["outcomes"]
    return outcomes


@pytest.mark.parametrize("kind", KINDS if ALL else ("run", "stacked", "snapshots", "folds", "zoom"))
def test_a_kill_at_any_write_loses_nothing(kind: str, tmp_path: Path) -> None:
    other = Path("/dev/shm")  # another file system, where there is one
    tmpdir = other if kind in ("stacked", "run") and other.is_dir() else tmp_path
    outcomes = tried(tmp_path, kind, tmpdir, random=RANDOM)
    assert [outcome for outcome in outcomes if outcome["code"] != 0] == []
    assert [outcome for outcome in outcomes if not outcome["same"]] == []
    assert [outcome for outcome in outcomes if outcome["rerun"]] == []
    assert [outcome for outcome in outcomes if outcome["left"]] == []
    at_writes = [outcome for outcome in outcomes if isinstance(outcome["at"], int)]
    assert all(outcome["killed"] for outcome in at_writes)
    if kind == "snapshots":
        assert sum(outcome["went_on"] for outcome in at_writes) >= (3 if PARTS == 1 else 1)
    # the test rows count as opened from the moment that was written down until what they said is
    most = 0.2 * len(at_writes) + PARTS - 1  # of a part of all writes more may lie there
    assert sum(outcome["opened_twice"] for outcome in at_writes) <= max(1, most)


@pytest.mark.parametrize("kind", ["run", "stacked", "basic", "snapshots"] if ALL else ["stacked"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES], ids=["full disk", "read-only"])
def test_a_write_that_fails_is_told_and_tears_nothing(kind: str, number: int, tmp_path: Path) -> None:
    outcomes = tried(tmp_path, kind, tmp_path, first=1 + NUMBER if ALL else 3, errno=number)
    for outcome in outcomes:
        if outcome["what"]:
            assert not outcome["torn"], outcome
            assert not outcome["traceback"], outcome
            # what was not needed, such as a folder that is there already, changes nothing
            assert outcome["whole"] or (outcome["code"] in (1, 2) and outcome["named"]), outcome


@pytest.mark.parametrize("kilobytes", range(16, 176, 16) if ALL else (48,))
def test_a_disk_that_is_too_small(kilobytes: int, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        words = ["-m", "lr=0.01,0.1", "seed=0,1,2", "batch_size=5", "report=false", f"hydra.sweep.dir={disk}/sweep"]
        done = python(ROOT / "train.py", *words, cwd=tmp_path)
        assert "Traceback" not in done.stdout + done.stderr
        ended = [RunFolder(path.parent) for path in disk.glob("sweep/*/result.json")]
        whole = [run for run in ended if run.finished(hash_of(run))]
        assert len(whole) == len(ended)
        if done.returncode == 0:
            assert len(whole) == 6
        else:
            assert "No space left on device" in done.stdout + done.stderr
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def hash_of(run: RunFolder) -> str:
    result = run.read()
    return "" if result is None else result.config_hash
