"""The life of a worker process: it takes assignments from a connection, one after another, until that is closed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, NamedTuple

from holdfast.errors import (
    CheckpointError,
    FolderError,
    HoldfastError,
    Stopped,
    StorageError,
    WorkerError,
    in_a_line,
    is_about_files,
    is_out_of_memory,
)
from holdfast.runtime.lifeline import end_with
from holdfast.runtime.signals import deferred, listen
from holdfast.store.result import Result

SECONDS_BETWEEN_REPORTS = 0.1


class Failure(NamedTuple):
    """Why a work could not be done, as it is sent to the driver.

    Attributes:
        kind: `memory` where it ran out, `files` where one could not be written or read, `worker` where the process
            lacks what it needs, otherwise `other`.
        error: the error in a line.
    """

    kind: Literal["memory", "files", "worker", "other"]
    error: str

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """The failure that an exception is."""
        if is_about_files(error):
            return cls("files", str(StorageError.of(error) or error))
        if is_out_of_memory(error):
            return cls("memory", in_a_line(error))
        return cls("worker" if isinstance(error, (WorkerError, FolderError)) else "other", in_a_line(error))

    def as_error(self) -> Exception:
        """An exception of the same kind, for what decides how a work goes on."""
        if self.kind == "files":
            return CheckpointError(self.error) if "cannot be read" in self.error else StorageError(self.error)
        return MemoryError(self.error) if self.kind == "memory" else HoldfastError(self.error)


class Start(NamedTuple):
    """What a worker process is started with.

    Attributes:
        parent: process id of the driver.
        environment: all environment variables.
        forked: whether it was forked from a server that has imported all that trains.
    """

    parent: int
    environment: Mapping[str, str]
    forked: bool


def work(connection: Connection, start: Start) -> None:
    """Do what comes through a connection, until it is closed; the entry of a worker process.

    Each assignment comes as the path of the folder of the work, a line break, and the text of the assignment. Messages
    go back as JSON: `{"ready": true}` once, `{"epochs": [...]}` while a stack trains, then `{"done": true}` or
    `{"failure": [kind, error]}`.

    Args:
        connection: to the driver.
        start: what is set before anything else is imported.
    """
    # a process that multiprocessing calls daemonic cannot have loaders with workers; this one may
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    os.environ.clear()
    os.environ.update(start.environment)
    with suppress(OSError):  # it leads a session already
        os.setsid()  # Ctrl-C is for the driver, which stops its workers
    end_with(os.getppid())
    if not start.forked and os.getppid() != start.parent:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    listen()
    try:
        with deferred():
            from holdfast.store.work_folder import WorkFolder
            from holdfast.workers import preloaded  # noqa: F401  (imports all that trains)
            from holdfast.workers.assignment import Assignment
            from holdfast.workers.worker import do
        Reporter(connection).send({"ready": True})
        while True:
            path, _, text = connection.recv_bytes().decode().partition("\n")
            reporter = Reporter(connection)
            try:
                do(Assignment.from_text(text), WorkFolder(Path(path)), reporter)
                message: dict[str, Any] = {"done": True}
            except Exception as error:
                message = {"failure": Failure.of(error)}
            reporter.send(message)
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the driver needs no more, or has ended
        sys.stdout.flush()
    except KeyboardInterrupt as stop:
        sys.exit(Stopped.of(stop).exit_code)


class Reporter:
    """Sends the progress of a work to the driver, a few messages a second.

    Args:
        connection: to the driver.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection, self._epochs, self._sent = connection, list[tuple[int, int, int, float]](), time.monotonic()

    def epoch(self, jobs: int, epochs: int, epoch: int, best: float) -> None:
        """Jobs have finished an epoch; see `holdfast.execute.work.Progress`."""
        self._epochs.append((jobs, epochs, epoch, best))
        if time.monotonic() - self._sent >= SECONDS_BETWEEN_REPORTS:
            self._send_epochs()

    def ended(self, number: int, result: Result | None) -> None:
        """The driver finds out by itself."""

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message, after the epochs before it."""
        self._send_epochs()
        self._connection.send_bytes(json.dumps(message).encode())

    def _send_epochs(self) -> None:
        if self._epochs:
            self._connection.send_bytes(json.dumps({"epochs": self._epochs}).encode())
            self._epochs.clear()
        self._sent = time.monotonic()
