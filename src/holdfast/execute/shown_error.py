"""What is shown to the user of an error that has ended a run, here or in another process."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any, NamedTuple

from holdfast.errors import HoldfastError, StorageError, in_a_line


class Shown(NamedTuple):
    """What is shown of an error.

    Attributes:
        text: the message; of an error of the user's code with the lines of that code.
        brief: whether this says all that concerns the user, so that the traceback is for the log alone.
        exit_code: exit code of the program.
        with_traceback: whether there is a traceback to log.
    """

    text: str
    brief: bool
    exit_code: int
    with_traceback: bool


def shown(error: Exception) -> Shown:
    """What is shown of an error."""
    if isinstance(error, ProcessError):
        return error.shown
    error = StorageError.of(error) or error
    if isinstance(error, HoldfastError):
        return Shown(str(error), brief=True, exit_code=error.exit_code, with_traceback=False)
    from holdfast.usercode.packages import lines_of_users

    lines = lines_of_users(error)
    text = f"The run failed: {type(error).__name__}: {error}\n{lines}".rstrip()
    is_lesson = type(error).__name__ in ("MisconfigurationException", "ModuleNotFoundError")  # they say what to do
    return Shown(text, brief=bool(lines) or is_lesson, exit_code=1, with_traceback=True)


class ProcessError(HoldfastError):
    """A process that trained a run together with others has failed.

    Args:
        line: the error in one line.
        what: what is shown of it; None for the line itself.

    Attributes:
        shown: what is shown of it.
    """

    def __init__(self, line: str, what: Shown | None = None) -> None:
        super().__init__(line)
        self.shown = what or Shown(line, brief=True, exit_code=1, with_traceback=False)
        self.exit_code = self.shown.exit_code


class RemoteTraceback(Exception):  # noqa: N818  (it is no error, but the cause of one, as in `multiprocessing`)
    """The traceback of an error in another process."""

    def __str__(self) -> str:
        return f"in another process\n{self.args[0]}"


def error_as_plain(error: Exception) -> dict[str, Any]:
    """An error as JSON can hold it; `error_from_plain` makes a `ProcessError` of it."""
    from holdfast.usercode.packages import place_of_users

    line, trace = in_a_line(error) + place_of_users(error), "".join(traceback.format_exception(error))
    return {"line": line, "shown": shown(error)._asdict(), "traceback": trace}


def error_from_plain(plain: Mapping[str, Any]) -> ProcessError:
    """The error that another process has reported, with its traceback as the cause."""
    error = ProcessError(plain["line"], Shown(**plain["shown"]))
    error.__cause__ = RemoteTraceback(plain["traceback"])
    return error
