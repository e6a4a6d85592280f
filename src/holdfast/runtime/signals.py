"""Signals that end the program, deferred where the exception that they raise would be lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from holdfast.errors import Stopped


def listen() -> None:
    """Let SIGTERM end the program as SIGINT does, by an exception."""
    with suppress(ValueError):  # only the main thread can set a handler
        signal.signal(signal.SIGTERM, _stop)


@contextmanager
def deferred() -> Iterator[None]:
    """Defer signals to the end of the block: C extensions can lose an exception that is raised while they load."""
    received: list[int] = []
    handlers: dict[int, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            if callable(signal.getsignal(number)):  # a signal that is ignored stays ignored
                handlers[number] = signal.signal(number, lambda signum, _: received.append(signum))
    except ValueError:  # only the main thread receives signals
        pass
    try:
        yield
    finally:
        for deferred_number, handler in handlers.items():
            signal.signal(deferred_number, handler)
    if received:
        handlers[received[0]](received[0], None)


def _stop(number: int, frame: Any) -> None:
    raise Stopped(number)
