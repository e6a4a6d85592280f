"""The folder in which a worker process trains some jobs of a sweep, until their files are placed in the sweep's."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from holdfast.store.folders import RunFolder, SweepFolder


class WorkFolder(SweepFolder):
    """The folder of a work: inside it looks like that of a sweep.

    It belongs to the work, not to a process: whoever does the work next finds the snapshots of the one before.

    Args:
        path: the folder, which need not exist.

    Attributes:
        bundle: the list of all files, written last.
        assignment: what to do, for a process that is given it by a file.
        failure: why the work could not be done, from a process that says so by a file.
        lock: held by the process that does the work.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.bundle = path / "bundle.json"
        self.assignment = path / "assignment"
        self.failure = path / "failure.json"
        self.lock = path / RunFolder.LOCK

    @property
    def of_worker(self) -> tuple[Path, ...]:
        """The files that are between the driver and the worker, and are not placed."""
        return self.bundle, self.assignment, self.failure, self.lock

    @classmethod
    def of(cls, sweep: SweepFolder, first: int) -> WorkFolder:
        """The folder `works/N` of the work whose first job has a number."""
        return cls(_works(sweep).absolute() / str(first))

    def remove(self) -> None:
        """Remove the folder with all that is in it, and the folder of all works where it is empty then."""
        if self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path)
        with suppress(OSError):  # missing, or not empty
            self.path.parent.rmdir()


def remove_works(sweep: SweepFolder) -> None:
    """Remove the folder of all works of a sweep: a driver may have been stopped after it had placed the last file."""
    shutil.rmtree(_works(sweep), ignore_errors=True)


def _works(sweep: SweepFolder) -> Path:
    return sweep.path / "works"
