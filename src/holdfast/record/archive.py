"""The archive of a stack: `stacks/N.pt`, its jobs at their ends or at a snapshot, and `stacks/N.history`, its curves.

The archive is written whole, in plain containers and tensors; the curves are appended to, and the archive names the
place up to which they belong to it. So a stack that is killed at any moment goes on from its last archive.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from holdfast.errors import CheckpointError, Stopped
from holdfast.record.checkpoint import load, save
from holdfast.record.curves import Curves, Position
from holdfast.record.history import SavedEpochs, StackHistory
from holdfast.record.stopping import Standing
from holdfast.store.folders import StackFiles

_VERSION = 2


class StackArchive:
    """Writes the archive of a stack while it trains.

    Args:
        files: its files.
        jobs: number of each job.
        hashes: digest of the configuration of each job.
        seconds: between two snapshots.
        signals: numbers of the signals that have arrived; filled while the stack trains.

    Attributes:
        snapshot: where the training was interrupted; None if it was not, or was that of other jobs.
        curves: the curves of the jobs, as far as the snapshot goes.

    Raises:
        CheckpointError: the files of an earlier attempt cannot be read.
    """

    def __init__(
        self,
        files: StackFiles,
        jobs: Sequence[int],
        hashes: Sequence[str],
        seconds: float = 60.0,
        signals: Sequence[int] = (),
    ) -> None:
        self._files, self._seconds, self._signals = files, seconds, signals
        self._head = {"version": _VERSION, "jobs": list(jobs), "config_hashes": list(hashes)}
        self._written = time.monotonic()
        self.curves, self.snapshot = Curves(len(jobs), files.history), None
        files.archive.parent.mkdir(exist_ok=True)
        if files.archive.exists():
            with _remedy(files):
                content = load(files.archive)
                if {key: content.get(key) for key in self._head} == self._head and not content["finished"]:
                    self.snapshot = content
                    self.curves.resume(Position(**content["curves"]), content["metrics"], content["logged"])

    def pause(self, snapshot: Callable[[], Mapping[str, Any]] | None) -> None:
        """Write a snapshot, where one is due.

        Args:
            snapshot: all that the training needs to go on from here, in plain containers and tensors; None where none
                can be taken.

        Raises:
            Stopped: a signal has arrived; the snapshot, if there is one, is written.
            StorageError: the files cannot be written.
        """
        if snapshot and (self._signals or time.monotonic() - self._written >= self._seconds):
            self._write(snapshot(), finished=False)
        if self._signals:
            raise Stopped(self._signals[0])

    def finish(self, history: StackHistory) -> None:
        """Write what the jobs are at their ends."""
        self._write(history_as_plain(history), finished=True)

    def _write(self, content: Mapping[str, Any], *, finished: bool) -> None:
        # the curves first: an archive never names a place that is not there
        position = self.curves.flush()
        names = {"metrics": list(self.curves.names), "logged": list(self.curves.logged_names)}
        head = {**self._head, "finished": finished, "curves": position._asdict(), **names}
        save(_on_cpu({**head, **content}), self._files.archive)
        self._written = time.monotonic()


def read_stack(files: StackFiles, sha256: str | None = None) -> tuple[list[int], list[str], StackHistory] | None:
    """The numbers, configuration hashes and history of the jobs of a stack; None where it is not finished.

    Args:
        files: the files of the stack.
        sha256: expected digest of the archive.

    Raises:
        CheckpointError: a file is missing, damaged, unsafe, or no archive of this version.
    """
    with _remedy(files):
        content = load(files.archive, sha256)
        if content.get("version") != _VERSION:
            raise CheckpointError(f"{files.archive} cannot be read: it is no archive of version {_VERSION}.")
        if not content["finished"]:
            return None
        jobs, hashes = content["jobs"], content["config_hashes"]
        curves = Curves(len(jobs), files.history)
        curves.resume(Position(**content["curves"]), content["metrics"], content["logged"])
        history = StackHistory.start(len(jobs), curves)
        restore_history(history, content)
        return jobs, hashes, history


@contextmanager
def _remedy(files: StackFiles) -> Iterator[None]:
    """Say what to do where an archive cannot be read."""
    try:
        yield
    except CheckpointError as error:
        why = str(error)
    except (KeyError, TypeError, AttributeError) as error:
        why = f"{files.archive} cannot be read: it is no archive of a stack ({error!r})."
    else:
        return
    raise CheckpointError(f"{why}\nNothing was done; remove {files.archive} to train the jobs of this stack again.")


def history_as_plain(history: StackHistory) -> dict[str, Any]:
    """A history without its curves, in plain containers and tensors."""
    return {field.name: _plain(getattr(history, field.name)) for field in fields(history) if field.name != "curves"}


def restore_history(history: StackHistory, plain: Mapping[str, Any]) -> None:
    """Give a history the values that `history_as_plain` returned."""
    history.counts, history.epochs = plain["counts"].numpy(), plain["epochs"].numpy()
    for name in ("began", "ended", "seconds", "events"):
        setattr(history, name, plain[name])
    standing = dict(plain["standing"])
    end = np.array(standing.pop("end"), dtype="<U8")
    history.standing = Standing(**{name: value.numpy() for name, value in standing.items()}, end=end)
    history.best, history.last = (
        SavedEpochs(
            plain[name]["epoch"].numpy(),
            plain[name]["iterations"].numpy(),
            {metric: values.numpy() for metric, values in plain[name]["metrics"].items()},
            dict(plain[name]["tensors"]),
            plain[name].get("plain", []),
        )
        for name in ("best", "last")
    )


def _plain(value: Any) -> Any:
    if isinstance(value, (SavedEpochs, Standing)):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist() if value.dtype.kind == "U" else torch.from_numpy(np.ascontiguousarray(value))
    return value


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _on_cpu(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_on_cpu(item) for item in value]
    return value.cpu() if isinstance(value, Tensor) else value
