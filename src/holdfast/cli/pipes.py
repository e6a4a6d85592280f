"""Output into a pipe whose reader has left, as in `python train.py -m lr=0.1,0.2 | head`."""

from __future__ import annotations

import os
import sys
from typing import Any, TextIO


class _Pipe:
    """A standard stream that goes on into nothing once nobody reads it, so that the work is done all the same."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._discard()
            return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._discard()

    def _discard(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def survive_closed_pipes() -> None:
    """Let both standard streams survive that their reader leaves."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, _Pipe):
            setattr(sys, name, _Pipe(stream))
