"""A worker process as the driver sees it: started, given works, heard, and ended."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from holdfast.workers.worker_process import Start, work

PRELOADED = ["holdfast.workers.preloaded", "holdfast.report.console"]
"""Modules that the server imports once for all workers: what trains, and the formatter of the job's log."""

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""Environment variables of a worker: the works are what runs at the same time."""

_GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


def can_fork() -> bool:
    """Whether workers are forked from a server that has torch imported: not where it may have initialised a GPU."""
    return sys.platform == "linux" and not any(map(os.path.exists, _GPU_DRIVERS))


def start_server() -> None:
    """Start the server from which workers are forked, so that it imports what they need meanwhile."""
    if not can_fork():
        return
    from multiprocessing import forkserver

    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    with _environment(ONE_THREAD), _without_main():
        forkserver.ensure_running()


class WorkerHandle:
    """A worker process.

    Args:
        gpu: what `CUDA_VISIBLE_DEVICES` is there; None leaves it as it is.

    Attributes:
        is_ready: whether the process has said, in a message that was read, that it has imported all that trains.
    """

    def __init__(self, gpu: str | None = None) -> None:
        start_server()
        self.gpu, self.is_ready = gpu, False
        environment = {**os.environ, **ONE_THREAD, **({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})}
        context: Any = multiprocessing.get_context("forkserver" if can_fork() else "spawn")
        self._connection, theirs = context.Pipe()
        start = Start(os.getpid(), environment, forked=can_fork())
        self._process = context.Process(target=work, args=(theirs, start), name="holdfast worker")
        sys.stdout.flush()
        with _environment(environment), _without_main():  # a process that is not forked imports torch with these
            self._process.start()
        theirs.close()

    def give(self, folder: Path, text: str) -> None:
        """Give the worker an assignment; a worker that has died meanwhile is noticed later.

        Args:
            folder: the folder of the work.
            text: the assignment.
        """
        with suppress(OSError):
            self._connection.send_bytes(f"{folder}\n{text}".encode())

    def messages(self) -> Iterator[Mapping[str, Any]]:
        """The messages that have arrived."""
        try:
            while not self._connection.closed and self._connection.poll():
                message = json.loads(self._connection.recv_bytes())
                if "ready" in message:
                    self.is_ready = True
                else:
                    yield message
        except (EOFError, ConnectionResetError):
            self._connection.close()

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return bool(self._process.is_alive())

    def how_it_died(self) -> str:
        """How the process ended, such as `signal 9`."""
        self._process.join()
        code = self._process.exitcode
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def let_go(self) -> None:
        """Let the process end by itself, once it has nothing to do."""
        self._connection.close()

    def terminate(self) -> None:
        """Ask the process to write what is needed to go on, and to end."""
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process, and all that it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if self.is_alive:  # it does not lead a session yet
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()
        self._connection.close()

    def wait_until_it_ends(self, seconds: float) -> bool:
        """Wait for the end of the process; returns whether it has ended."""
        self._process.join(seconds)
        return not self.is_alive

    @property
    def signs(self) -> list[Any]:
        """What becomes readable when a message arrives, or the process ends."""
        return [self._process.sentinel] if self._connection.closed else [self._connection, self._process.sentinel]


class LocalStarter:
    """Starts worker processes on this computer."""

    def start(self, gpu: str | None, count: int) -> WorkerHandle:
        """A new worker process."""
        return WorkerHandle(gpu)

    def wait(self, workers: Sequence[Any], seconds: float) -> None:
        """Wait until a worker has sent a message or ended, or some time has passed."""
        wait_for_signs(workers, seconds)

    def close(self) -> None:
        """Nothing is prepared."""


def wait_for_signs(workers: Sequence[WorkerHandle], seconds: float) -> None:
    """Wait until a worker has sent a message or ended, or some time has passed."""
    wait([sign for worker in workers for sign in worker.signs], seconds)


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the main program, which a new process would import: a script may start its sweep without a guard."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
