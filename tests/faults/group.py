"""The processes of a run on several devices, found from outside, and runs that last long enough to disturb them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.conftest import ROOT

TWO = ["devices=2", "accelerator=cpu", "data=linear", "data.rows=60", "data.features=2", "batch_size=6", "report=false"]
LONG = [*TWO, "epochs=1000000", "lr=0.0001"]
CHOSEN = {"run": "hydra.run.dir=run", "sweep": "hydra.sweep.dir=sweep"}


def start(*words: str, cwd: Path, script: bool = True, **environment: str) -> subprocess.Popen[str]:
    """Start `python train.py WORDS`, or `python WORDS`; what it says goes into the files `out` and `err`."""
    with (cwd / "out").open("w") as out, (cwd / "err").open("w") as err:
        command = [sys.executable, *([str(ROOT / "train.py")] if script else []), *words]
        return subprocess.Popen(command, cwd=cwd, stdout=out, stderr=err, env={**os.environ, **environment}, text=True)


def members(folder: Path) -> dict[int, int]:
    """The process ids of a run's processes, by rank; of those of all jobs where the folder is that of a sweep."""
    found = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            text = (entry / "cmdline").read_bytes().decode() if entry.name.isdecimal() else ""
            if match := re.search(rf"holdfast: {re.escape(str(folder))}\S*, process (\d+) of \d+", text):
                found[int(match[1])] = int(entry.name)
    return found


def wait_for(
    condition: Callable[[], object], process: subprocess.Popen[str] | None = None, seconds: float = 90
) -> None:
    """Wait until a condition holds; the process must run as long as it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, "it has ended already"
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.1)


def training(process: subprocess.Popen[str], folder: Path, ranks: int = 2) -> dict[int, int]:
    """Wait until a run trains; the process ids of its processes, by rank."""
    wait_for(lambda: list(folder.glob("last.ckpt")) and len(members(folder)) == ranks, process)
    return members(folder)


def is_alive(process: int) -> bool:
    """Whether a process exists that is no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)


MARK = "HOLDFAST_TEST_MARK"
"""An environment variable, which all processes of a sweep take over."""


def marked(mark: str) -> list[int]:
    """The processes whose environment has a mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{MARK}={mark}".encode() in path.read_bytes() and "Z" not in path.with_name("stat").read_text()[:40]:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
