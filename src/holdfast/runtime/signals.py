"""Signals that end the program, deferred where the exception that they raise would be lost."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from holdfast.errors import Stopped


def listen() -> None:
    """Let SIGTERM end the program as SIGINT does, by an exception."""
    with suppress(ValueError):  # only the main thread can set a handler
        signal.signal(signal.SIGTERM, _stop)


@contextmanager
def noted(most: int = 1) -> Iterator[list[int]]:
    """Note signals instead of stopping; those beyond the first `most` stop all the same.

    Yields:
        The numbers of the signals that have arrived so far; one that nobody heeded stops at the end of the block.
    """
    received: list[int] = []
    handlers: dict[int, Any] = {}

    def note(number: int, frame: Any) -> None:
        received.append(number)
        if len(received) > most:
            handlers[number](number, frame)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            if callable(signal.getsignal(number)):  # a signal that is ignored stays ignored
                handlers[number] = signal.signal(number, note)
    except ValueError:  # only the main thread receives signals
        pass
    try:
        yield received
    finally:
        for noted_number, handler in handlers.items():
            signal.signal(noted_number, handler)
    if received:
        handlers[received[0]](received[0], None)


@contextmanager
def deferred() -> Iterator[None]:
    """Defer signals to the end of the block: C extensions can lose an exception that is raised while they load."""
    with noted(most=sys.maxsize):
        yield


def _stop(number: int, frame: Any) -> None:
    raise Stopped(number)
