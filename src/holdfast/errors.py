"""The exceptions that are shown as a message, each with the exit code of the program.

HoldfastError           shown as one message, without a traceback                    exit 1
├── ConfigError         invalid overrides or YAML; nothing was written               exit 2
│   └── DeviceError     an accelerator or a number of devices this machine lacks     exit 2
├── FolderError         a folder is in use, cannot be made, or does not hold a run   exit 2
├── DataError           rows that a model cannot be trained on                       exit 1
├── StorageError        a file cannot be written                                     exit 1
├── CheckpointError     a checkpoint is missing, damaged, unsafe or of another model exit 1
├── BundleError         what a worker handed back is torn, altered or too large      exit 1
├── WorkerError         a worker process lacks, or cannot do, what it was given      exit 1
├── ClusterError        a cluster refused jobs or ended them; they can be resumed    exit 1
│   └── Submitted       jobs were submitted to a cluster, and nobody waits for them  exit 0
└── SealedError         test rows were requested while they are sealed               exit 1
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Sequence
from dataclasses import dataclass


class HoldfastError(Exception):
    """What the user can mend; the message says what was given, why it cannot work and what to type instead."""

    exit_code = 1


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a configuration.

    Attributes:
        override: what was given, as the user would type it: `lr=abc`.
        lesson: why it cannot work and what to type instead.
    """

    override: str
    lesson: str


class Stopped(KeyboardInterrupt):
    """A signal stopped the program. Like `KeyboardInterrupt` it is no `Exception`, so that no job fails with it.

    Args:
        number: number of the signal.
        command: the command that resumes the work.

    Attributes:
        exit_code: 128 plus the number of the signal, as in a shell.
        command: as given.
    """

    def __init__(self, number: int, command: str | None = None) -> None:
        self.number, self.exit_code, self.command = number, 128 + number, command
        remedy = f"; to resume: {command}" if command else ""
        super().__init__(f"stopped by {signal.Signals(number).name}; nothing was concluded{remedy}")

    @classmethod
    def of(cls, stop: BaseException, command: str | None = None) -> Stopped:
        """The signal behind an exception that stopped the program; SIGINT where there is none.

        Args:
            stop: the exception, which may have replaced a `Stopped`.
            command: the command that resumes the work.
        """
        cause: BaseException | None = stop
        while cause is not None and not isinstance(cause, Stopped):  # Lightning replaces it by an exception of its own
            cause = cause.__context__
        return cls(cause.number if cause else signal.SIGINT, command)


def in_a_line(error: BaseException) -> str:
    r"""An error as one line, as in a table.

    >>> in_a_line(ConfigError([Problem("lr=-1", "must be above 0")])), in_a_line(ValueError("no\nrows"))
    ('lr=-1: must be above 0', 'ValueError: no rows')
    """
    if isinstance(error, ConfigError):
        return "; ".join(f"{problem.override}: {problem.lesson}" for problem in error.problems)
    error = StorageError.of(error) or error
    name = "" if isinstance(error, HoldfastError) else f"{type(error).__name__}: "
    return name + " ".join(str(error).split())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or a cause of it, says that memory ran out on the processor or on an accelerator.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(ValueError("too many values"))
    (True, False)
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or type(cause).__name__ == "OutOfMemoryError":
            return True
        if isinstance(cause, RuntimeError) and any(text in str(cause).lower() for text in _OUT_OF_MEMORY):
            return True
        cause = cause.__cause__
    return False


_OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "failed to allocate")


class ConfigError(HoldfastError):
    """An invalid configuration, with all of its problems.

    Args:
        problems: at least one problem.

    >>> print(ConfigError([Problem("lr=-1", "must be above 0")]))
    1 problem in the configuration; nothing was run.
    <BLANKLINE>
      lr=-1  must be above 0
    """

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        width = min(max(len(problem.override) for problem in self.problems), 40)
        count = len(self.problems)
        lines = [f"{count} problem{'s' if count > 1 else ''} in the configuration; nothing was run.", ""]
        for problem in self.problems:
            first, *rest = problem.lesson.splitlines() or [""]
            lines.append(f"  {problem.override:<{width}}  {first}")
            lines.extend(" " * (width + 4) + line for line in rest)
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[Problem, ...]]]:
        # launchers send exceptions between processes
        return type(self), (self.problems,)


class DeviceError(ConfigError):
    """This machine lacks the accelerator or the number of devices."""


class FolderError(HoldfastError):
    """The folder of a run or a sweep is in use, cannot be made, or does not hold what is looked for."""

    exit_code = 2


class DataError(HoldfastError):
    """A model cannot be trained on the rows: a split is empty, or a shape does not fit."""


class TableError(DataError):
    """A table cannot be read, or cannot be used as it is asked for: names the file, the line or the column."""

    exit_code = 2


class StorageError(HoldfastError):
    """A file cannot be written: the disk is full, or the folder is read-only."""

    @classmethod
    def of(cls, error: BaseException) -> StorageError | None:
        """A storage error for an `OSError` about a file among the causes of an error; None where there is none."""
        cause: BaseException | None = error
        while cause is not None:  # logging, for one, raises another error from it
            if isinstance(cause, OSError) and cause.errno in _STORAGE_ERRNOS and cause.filename is not None:
                return cls(f"{cause.filename} cannot be written: {cause.strerror}.")
            cause = cause.__cause__
        return None


_STORAGE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO}


class CheckpointError(HoldfastError):
    """A checkpoint is missing, damaged, changed, unsafe, or of another model."""


class BundleError(HoldfastError):
    """What a worker process handed back is torn, altered, too large, or names files outside of its folder."""


class WorkerError(HoldfastError):
    """A worker process was given something altered, or lacks the user's modules as they were when the sweep began."""


class ClusterError(HoldfastError):
    """A cluster refused jobs, or ended them before they were done: none of them has failed, and all can be resumed."""


class Submitted(ClusterError):  # noqa: N818  (nothing is wrong)
    """Jobs were submitted to a cluster, and are not waited for."""

    exit_code = 0


class SealedError(HoldfastError):
    """Test rows were requested while they are sealed."""


def is_about_files(error: Exception) -> bool:
    """Whether a file could not be written or read, so that to train in another way is no help."""
    return isinstance(error, (StorageError, CheckpointError)) or StorageError.of(error) is not None
