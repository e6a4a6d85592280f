"""What runs on a node of a Ray cluster: an actor that keeps a worker process, and passes on what it says.

The works are done by the same kind of process as with `hydra/launcher=processes`. A process that dies takes only itself
down; the actor then says how it died, and hands over what it has left.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import platform
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from holdfast.clusters.ray_parcel import finished, receive, unfinished
from holdfast.clusters.ray_sources import Sources
from holdfast.config.options import TABLE
from holdfast.errors import WorkerError
from holdfast.store.versions import versions
from holdfast.store.work_folder import WorkFolder
from holdfast.workers.assignment import Assignment
from holdfast.workers.worker_handle import WorkerHandle, wait_for_signs
from holdfast.workers.worker_process import Failure

SECONDS_BETWEEN_REPLIES = 1.0
"""How long messages are gathered before they go to the driver, unless the work ends."""

SECONDS_TO_STOP = 12.0
"""How long the worker process may take to write what is needed to go on; the driver waits a little longer."""

SECONDS_TO_IMPORT = 600.0
"""How long a worker process may take until it has imported what it needs, as from a slow network disk."""


_PREFIX, _LOCK = "holdfast-ray-", "lock"


class RayWorker:
    """The actor; everything that it is given or returns is text or bytes.

    Args:
        start: JSON: `cwd`, the working folder of the driver; `hides_gpus`, whether the process sees none.
        sources: the user's modules.
    """

    def __init__(self, start: str, sources: str) -> None:
        setting = json.loads(start)
        # Python may have looked for the temporary folder before Ray set the variable
        self._folder, self._lock = new_folder(Path(os.environ.get("TMPDIR") or tempfile.gettempdir()))
        self._hides_gpus: bool = setting["hides_gpus"]
        # relative paths of data mean on this node what they mean on the driver's, if they exist here
        os.chdir(setting["cwd"] if os.path.isdir(setting["cwd"]) else self._folder)
        Sources.from_text(sources).write(self._folder / "modules")
        self._worker = self._new_worker()
        self._work = WorkFolder(self._folder / "works" / "none")
        self._arrived: list[bytes] = []
        self._outgoing: Iterator[bytes] = iter(())
        self._refusal: Mapping[str, Any] | None = None

    def hello(self) -> str:
        """Wait until the worker process has imported what it needs; JSON with its node and versions."""
        deadline = time.monotonic() + SECONDS_TO_IMPORT
        while not self._worker.is_ready and time.monotonic() < deadline and self._worker.is_alive:
            wait_for_signs([self._worker], 1.0)
            list(self._worker.messages())
        died = None if self._worker.is_ready else self._how_it_died()
        return json.dumps({"node": platform.node(), "pid": os.getpid(), "versions": versions(), "died": died})

    def take(self, piece: bytes) -> None:
        """Take a piece of what an earlier attempt at the next work has left."""
        self._arrived.append(piece)

    def give(self, first: int, text: str) -> None:
        """Begin a work.

        Args:
            first: number of its first job.
            text: the assignment.
        """
        self._work = WorkFolder(self._folder / "works" / str(first))
        self._work.remove()
        arrived, self._arrived = self._arrived, []
        try:
            if arrived:
                receive(arrived, self._work)
            _check_tables(Assignment.from_text(text))
        except Exception as error:
            self._refusal = {"failure": Failure.of(error)}
            return
        self._worker.give(self._work.path, text)

    def poll(self) -> list[bytes]:
        """The messages of the next second, or up to the end of the work: JSON, and the first piece of what it leaves.

        `{"epochs": [...], "end": null}`, with `{"done": true}`, `{"failure": [kind, error]}` or `{"died": how}` in the
        place of null where the work has ended.
        """
        epochs, end = list[Any](), self._refusal
        self._refusal = None
        deadline = time.monotonic() + SECONDS_BETWEEN_REPLIES
        while end is None and (seconds := deadline - time.monotonic()) > 0:
            wait_for_signs([self._worker], seconds)
            is_alive = self._worker.is_alive  # before the messages are read: it may end right after its last one
            for message in self._worker.messages():
                if "epochs" in message:
                    epochs += message["epochs"]
                else:
                    end = message
            if end is None and not is_alive:
                end = {"died": self._how_it_died()}
        if end is not None and "done" in end:
            self._outgoing = finished(self._work)
        elif end is not None and "died" in end:
            self._outgoing = unfinished(self._work)
        return [json.dumps({"epochs": epochs, "end": end}).encode(), self.piece() if end else b""]

    def piece(self) -> bytes:
        """The next piece of what the work leaves; empty after the last, when its folder may be removed."""
        piece = next(self._outgoing, b"")
        if not piece and self._work.path.exists():
            aside = WorkFolder(Path(tempfile.mkdtemp(dir=self._folder)) / "done")
            self._work.path.rename(aside.path)
            # to remove thousands of files takes longer than to send them
            threading.Thread(target=aside.remove, daemon=True).start()
        return piece

    def stop(self) -> bytes:
        """Ask the worker process to write what is needed to go on, wait for its end, and return the first piece."""
        self._worker.terminate()
        self._worker.wait_until_it_ends(SECONDS_TO_STOP)
        self._worker.kill()
        if self._work.bundle.exists():  # the work was done just now
            self._outgoing = finished(self._work)
        else:
            self._outgoing = unfinished(self._work)
        return self.piece()

    def close(self) -> None:
        """End the worker process, and remove all files."""
        self._worker.let_go()
        if not self._worker.wait_until_it_ends(1.0):
            self._worker.kill()
        os.chdir(self._folder.parent)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _new_worker(self) -> WorkerHandle:
        sys.stdout.flush()
        return WorkerHandle("" if self._hides_gpus else None)  # Ray has set the variable where a GPU is reserved

    def _how_it_died(self) -> str:
        how = self._worker.how_it_died() if not self._worker.is_alive else "it does not answer"
        self._worker.kill()
        return how


def new_folder(parent: Path) -> tuple[Path, int]:
    """A folder for a worker, and the lock that it holds while it lives; folders of killed workers are removed.

    Args:
        parent: folder for temporary files.
    """
    for lock in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        with suppress(OSError):  # another user's, or removed by another worker
            descriptor = os.open(lock, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an error where its worker lives
                shutil.rmtree(lock.parent, ignore_errors=True)
            finally:
                os.close(descriptor)
    hidden = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=parent))
    descriptor = os.open(hidden / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return hidden.rename(parent / hidden.name.removeprefix(".")), descriptor


def _check_tables(assignment: Assignment) -> None:
    """Check that the tables of jobs are on this node.

    Raises:
        WorkerError: a file is missing here; the message says what to do.
    """
    for job in assignment.work.jobs:
        data = job.config.data
        if data["_target_"] != TABLE:
            continue
        for pattern in filter(None, (data["path"], data["val_path"], data["test_path"])):
            if not Path(pattern).exists() and not glob.glob(pattern):  # noqa: PTH207  (absolute ones too)
                raise WorkerError(
                    f"the table {pattern} is not on the node {platform.node()}: tables do not travel. Copy it to the "
                    "same path on every node, or keep it on a disk that all nodes share"
                )
