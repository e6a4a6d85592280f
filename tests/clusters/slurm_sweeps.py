"""Sweeps on the SLURM of this computer, for tests; where there is none, they are skipped."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdfast.clusters import slurm_queue, slurm_watch
from holdfast.store.folders import SweepFolder
from tests.conftest import ROOT, command_line
from tests.workers import swept as sweeps
from tests.workers.swept import FLAGS, QUIET, working_in


def missing() -> str:
    """Why there is no SLURM here; "" if there is."""
    if shutil.which("sinfo") is None or shutil.which("sbatch") is None:
        return "SLURM is not installed: .ci/slurm starts one, where slurm-wlm and munge are"
    try:
        done = subprocess.run(["sinfo", "--noheader", "--format=%t"], capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return "SLURM does not answer"
    if done.returncode == 0 and done.stdout.strip():
        return ""
    return f"no SLURM answers: {' '.join(done.stderr.splitlines()[-1:])}"


WHY_NOT = missing()
NEEDS_SLURM = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
if WHY_NOT and os.environ.get("HOLDFAST_SLURM") == "required":
    raise RuntimeError(WHY_NOT)

SLURM = "hydra/launcher=slurm"


@contextmanager
def in_folder(path: Path) -> Iterator[Path]:
    """Work in a folder with the user's modules; SLURM is asked more often than otherwise."""
    patch = pytest.MonkeyPatch()
    patch.setattr(slurm_watch, "SECONDS_BETWEEN_LOOKS", 0.2)
    patch.setattr(slurm_watch, "SECONDS_BETWEEN_QUERIES", 0.5)
    patch.setattr(slurm_watch, "SECONDS_OF_LAG", 3.0)
    patch.setattr(slurm_watch, "SECONDS_AFTER_A_DEATH", 1.0)
    patch.setattr(slurm_queue, "SECONDS_WITHOUT_ANSWER", 5.0)
    with working_in(path):
        try:
            yield path
        finally:
            cancel_all()
            patch.undo()


def swept(name: str, *words: str) -> tuple[int, str, SweepFolder]:
    """Run a sweep with a name in this process: exit code, what it said, its folder."""
    return sweeps.swept(list(words), name)


def resumed(sweep: SweepFolder, *words: str) -> tuple[int, str]:
    """Resume a sweep in this process."""
    return command_line("-m", "--config-dir", "my_conf", f"resume={sweep.path}", *words)


def started(name: str, *words: str) -> subprocess.Popen[str]:
    """Start a sweep in a process of its own."""
    return _started(*words, *QUIET, f"hydra.sweep.dir={name}")


def resuming(name: str) -> subprocess.Popen[str]:
    """Resume a sweep in a process of its own."""
    return _started(f"resume={name}")


def _started(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "train.py"), *FLAGS, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def arrays(sweep: SweepFolder) -> list[str]:
    """The numbers of the arrays of a sweep that were submitted so far."""
    try:
        entries = json.loads(sweep.sweep.read_text()).get("slurm", [])
    except FileNotFoundError:
        return []
    return [entry["array"] for entry in entries if entry["array"]]


def states(sweep: SweepFolder) -> dict[str, str]:
    """The state of each element of a sweep, such as `{"12_0": "RUNNING"}`."""
    command = ["squeue", "--array", "--noheader", "--states=all", f"--jobs={','.join(arrays(sweep))}"]
    done = subprocess.run([*command, "--format=%F_%K %T"], capture_output=True, text=True)
    return dict(line.split() for line in done.stdout.splitlines())


def wait_for(what: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.1)


def scancel(*words: str) -> None:
    """Call scancel."""
    subprocess.run(["scancel", *words], check=True)


def cancel_all() -> None:
    """Cancel what the tests in a folder have left."""
    for file in () if WHY_NOT else Path.cwd().glob("*/sweep.json"):
        for number in arrays(SweepFolder(file.parent)):
            subprocess.run(["scancel", number], capture_output=True)
