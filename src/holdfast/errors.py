"""Every mistake a user can make, as an exception that knows its exit code.

HoldfastError           one clean message, no traceback                          exit 1
├── ConfigError         words or YAML that cannot work; nothing was written      exit 2
│   └── DeviceError     an accelerator or a number of devices this machine lacks exit 2
├── FolderError         a run's folder that is taken, or cannot be made          exit 2
├── DataError           rows that nothing can be learnt from                     exit 1
├── StorageError        a file that cannot be written                            exit 1
├── CheckpointError     a checkpoint that cannot be read, or is not what it says exit 1
└── SealedError         test rows were asked for outside of a test               exit 1
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Sequence
from dataclasses import dataclass


class HoldfastError(Exception):
    """Something the user can mend; the message says what was given, why it cannot work and what to type instead."""

    exit_code = 1


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a configuration.

    Attributes:
        word: what was given, as the user would type it: `lr=abc`.
        lesson: why it cannot work and what to type instead.
    """

    word: str
    lesson: str


class Stopped(KeyboardInterrupt):
    """A signal ended the program; like Python's own KeyboardInterrupt it is no error that a job could have.

    Args:
        number: of the signal.
        command: goes on with the work.

    Attributes:
        exit_code: 128 and the number of the signal, as a shell shows it.
    """

    def __init__(self, number: int, command: str | None = None) -> None:
        self.number, self.exit_code = number, 128 + number
        on = f"nothing was concluded; to go on: {command}" if command else "nothing was concluded"
        super().__init__(f"stopped by {signal.Signals(number).name}; {on}")

    @classmethod
    def of(cls, stop: BaseException, command: str | None = None) -> Stopped:
        """What stopped the program, with the command that goes on with its work."""
        cause: BaseException | None = stop
        while cause is not None and not isinstance(cause, Stopped):  # Lightning raises an exit of its own instead
            cause = cause.__context__
        return cls(cause.number if cause else signal.SIGINT, command)


def in_a_line(error: BaseException) -> str:
    r"""An error as one line of a table.

    >>> in_a_line(ConfigError([Problem("lr=-1", "must be above 0")])), in_a_line(ValueError("no\nrows"))
    ('lr=-1: must be above 0', 'ValueError: no rows')
    """
    if isinstance(error, ConfigError):
        return "; ".join(f"{problem.word}: {problem.lesson}" for problem in error.problems)
    error = StorageError.of(error) or error
    name = "" if isinstance(error, HoldfastError) else f"{type(error).__name__}: "
    return name + " ".join(str(error).split())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was not enough memory, of the processor or of an accelerator.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(ValueError("too many values"))
    (True, False)
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or type(cause).__name__ == "OutOfMemoryError":
            return True
        if isinstance(cause, RuntimeError) and any(text in str(cause).lower() for text in _NO_MEMORY):
            return True
        cause = cause.__cause__
    return False


_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "failed to allocate")


class ConfigError(HoldfastError):
    """A configuration that cannot work, with all that is wrong with it.

    >>> print(ConfigError([Problem("lr=-1", "must be above 0")]))
    1 problem in the configuration; nothing was run.
    <BLANKLINE>
      lr=-1  must be above 0
    """

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        width = min(max(len(problem.word) for problem in self.problems), 40)
        count = len(self.problems)
        lines = [f"{count} problem{'s' if count > 1 else ''} in the configuration; nothing was run.", ""]
        for problem in self.problems:
            first, *rest = problem.lesson.splitlines() or [""]
            lines.append(f"  {problem.word:<{width}}  {first}")
            lines.extend(" " * (width + 4) + line for line in rest)
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[Problem, ...]]]:
        # exceptions travel between the processes of a launcher
        return type(self), (self.problems,)


class DeviceError(ConfigError):
    """An accelerator, or a number of devices, that this machine does not have."""


class FolderError(HoldfastError):
    """A run's folder is already taken, or cannot be made."""

    exit_code = 2


class DataError(HoldfastError):
    """Rows that nothing can be learnt from: an empty split, a shape that does not fit."""


class StorageError(HoldfastError):
    """A file cannot be written: a full disk, a folder that is read-only."""

    @classmethod
    def of(cls, error: BaseException) -> StorageError | None:
        """What an operating system says of its disks, as one of these; None of any other error."""
        cause: BaseException | None = error
        while cause is not None:  # logging, for one, raises an error of its own instead
            if isinstance(cause, OSError) and cause.errno in _DISKS and cause.filename is not None:
                return cls(f"{cause.filename} cannot be written: {cause.strerror}.")
            cause = cause.__cause__
        return None


_DISKS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO}


class CheckpointError(HoldfastError):
    """A checkpoint is missing, torn, altered, unsafe, or of another model."""


class SealedError(HoldfastError):
    """Test rows were asked for while they are sealed."""
