"""What an element of an array runs: one work, whose assignment lies in the folder of the work."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from holdfast.clusters.slurm_note import Note
from holdfast.errors import Stopped, WorkerError, in_a_line
from holdfast.runtime import processes
from holdfast.runtime.signals import deferred, listen
from holdfast.store.work_folder import WorkFolder

SECONDS_TO_FOLLOW = 5.0
"""How long a process that has failed waits, so that the first one can say why the job failed."""


def main() -> None:
    """Do the work of this element, as one of its processes.

    The arguments of the program are the folder of all works, and for each element the number of the first job of its
    work and the digest of its assignment: a file that was altered since is not believed.
    """
    first, _, sha256 = sys.argv[2 + int(os.environ["SLURM_ARRAY_TASK_ID"])].partition(":")
    folder = WorkFolder(Path(sys.argv[1]) / first)
    if not folder.assignment.exists():
        print("the work of this element was done, and placed, before: there is nothing left to do")
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    listen()
    follows = os.environ.get("SLURM_PROCID", "0") != "0" and int(os.environ.get("SLURM_NTASKS", "1")) > 1
    try:
        _do(folder, sha256, follows=follows)
    except KeyboardInterrupt as stop:
        if not follows:
            Note.of(stop).write(folder)
        sys.exit(Stopped.of(stop).exit_code)
    except Exception as error:
        print(error, flush=True)
        if follows:
            time.sleep(SECONDS_TO_FOLLOW)
        Note.of(error).write(folder)
        sys.exit(1 if follows else 0)


def _do(folder: WorkFolder, sha256: str, *, follows: bool) -> None:
    if not follows:
        folder.failure.unlink(missing_ok=True)  # of an attempt before this element was requeued
    try:
        with deferred():
            from holdfast.workers import preloaded  # noqa: F401  (imports all that trains)
            from holdfast.workers.assignment import Assignment
            from holdfast.workers.worker import do, follow
    except Exception as error:
        raise WorkerError(f"the element cannot import what trains: {in_a_line(error)}") from None
    text = folder.assignment.read_text()
    if text.partition("\n")[0] != sha256:
        raise WorkerError("the assignment of this element was altered since it was submitted")
    assignment = Assignment.from_text(text)
    if follows:
        follow(assignment, folder)
    elif int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        do(assignment, folder)
    else:
        with processes.single_process():
            do(assignment, folder)
