"""`failure.json` in the folder of a work: why an element has left no bundle, as far as it could say so itself."""

from __future__ import annotations

import json
from typing import Literal, NamedTuple, get_args

from holdfast.errors import FolderError, Stopped
from holdfast.store.files import write_json
from holdfast.store.work_folder import WorkFolder
from holdfast.workers.worker_process import Failure

MOST_BYTES = 1 << 20
"""Largest size of a note."""

Kind = Literal["memory", "files", "worker", "other", "stopped"]


class Note(NamedTuple):
    """Why an element has left no bundle.

    Attributes:
        kind: `stopped` where the work can be resumed; otherwise as of a `Failure`.
        error: the reason in a line.
    """

    kind: Kind
    error: str

    @classmethod
    def of(cls, error: BaseException) -> Note:
        """The note that an exception becomes."""
        if isinstance(error, KeyboardInterrupt):
            signal_name = str(Stopped.of(error)).partition(";")[0]
            return cls("stopped", signal_name)
        if isinstance(error, FolderError):
            return cls("stopped", str(error))
        return cls(*Failure.of(error)) if isinstance(error, Exception) else cls("other", repr(error))

    def as_error(self) -> Exception:
        """An exception of the same kind, for what decides how a work goes on."""
        return Failure("other" if self.kind == "stopped" else self.kind, self.error).as_error()

    def write(self, folder: WorkFolder) -> None:
        """Write the note; one that is there already, by another process of the element, came first."""
        if not folder.failure.exists():
            write_json(folder.failure, self._asdict())


def read_note(folder: WorkFolder) -> Note | None:
    """The note in the folder of a work; None where there is none, or it cannot be read."""
    try:
        if folder.failure.is_symlink() or folder.failure.stat().st_size > MOST_BYTES:
            return None
        content = json.loads(folder.failure.read_bytes())
        note = Note(content["kind"], str(content["error"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return note if note.kind in get_args(Kind) else None
