"""Ends the processes of Ray that were started for a driver, when that driver has been killed.

Linux kills the daemons of Ray with the driver, but not the agents that these have started.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

SECONDS_TO_END = 10.0
"""How long the guard may take once the driver has closed the pipe."""

_PROGRAM = """
import sys
sys.stdin.read()
sys.path.insert(0, sys.argv[1])
import psutil
for entry in sys.argv[2:]:
    pid, _, began = entry.partition(":")
    try:
        process = psutil.Process(int(pid))
        if repr(process.create_time()) == began:
            process.kill()
    except psutil.Error:
        pass
"""
"""Waits for the end of the pipe; a number of a process that another one has got since is left alone."""


def descendants() -> set[str]:
    """The processes below this one: number and time of start."""
    import psutil  # Ray brings it

    entries = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            entries.add(f"{process.pid}:{process.create_time()!r}")
    return entries


class Guard:
    """A process that outlives this one by a moment, and then ends Ray.

    Args:
        others: processes below this one that are not Ray's, from `descendants`.
    """

    def __init__(self, others: set[str]) -> None:
        import psutil

        entries = sorted(descendants() - others)
        folder = str(Path(psutil.__file__).parents[1])
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _PROGRAM, folder, *entries],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # signals of the terminal are for the driver
        )

    def close(self) -> None:
        """End the guard; what still runs of that which it knows is killed."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
