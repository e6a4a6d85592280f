"""Whether somebody watches: a terminal, or a notebook."""

from __future__ import annotations

import sys


def is_watched() -> bool:
    """Whether progress bars are drawn, which go to standard error: on a terminal, and in a notebook."""
    return sys.stderr.isatty() or type(sys.stderr).__module__ == "ipykernel.iostream"
