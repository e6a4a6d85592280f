from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from holdfast.errors import FolderError
from holdfast.store.folders import RunFolder
from holdfast.store.lock import claim, locked

HOLD = "import sys, time; from pathlib import Path; from holdfast.store.lock import locked\n" + (
    "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
)


def holder(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_folder_is_locked_by_one_process_until_it_dies(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        with pytest.raises(FolderError, match=f"process {process.pid} on {socket.gethostname()}"), locked(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / RunFolder.LOCK).exists()
    with locked(tmp_path):
        assert (tmp_path / RunFolder.LOCK).read_text() == f"process {os.getpid()} on {socket.gethostname()}"
    assert list(tmp_path.iterdir()) == []


def test_partial_files_and_folders_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".best.ckpt.123.part").write_bytes(b"half")
    (tmp_path / "best.ckpt").write_bytes(b"whole")
    with locked(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["best.ckpt"]


def test_only_one_of_many_processes_has_the_lock_at_a_time(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from holdfast.store.lock import locked\n"
        "from holdfast.errors import FolderError\n"
        "folder, log = Path(sys.argv[1]), Path(sys.argv[2])\n"
        "for _ in range(200):\n"
        "    try:\n"
        "        with locked(folder):\n"
        "            (folder / 'alone').mkdir(); time.sleep(0.0005); (folder / 'alone').rmdir()\n"
        "    except FolderError: time.sleep(0.0003)\n"
        "log.write_text('well')\n"
    )
    folder = tmp_path / "folder"
    folder.mkdir()
    logs = [tmp_path / f"log{number}" for number in range(4)]
    processes = [subprocess.Popen([sys.executable, "-c", code, str(folder), str(log)]) for log in logs]
    assert [process.wait(timeout=60) for process in processes] == [0] * 4
    assert [log.read_text() for log in logs] == ["well"] * 4


def test_a_folder_with_only_the_lock_of_a_dead_process_can_be_claimed(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.kill()
    time.sleep(0.05)
    assert claim(tmp_path, chosen=True) == tmp_path
