"""What came of a command line."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Done(NamedTuple):
    """How a run or a sweep has ended.

    Attributes:
        exit_code: of the command.
        path: the folder of the run or the sweep; None where nothing was trained.
        error: the exception because of which a run failed.
    """

    exit_code: int
    path: Path | None = None
    error: Exception | None = None
