"""Signals that end the program: heard everywhere, but for where an exception would be lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from holdfast.errors import Stopped


def listen() -> None:
    """Let SIGTERM end the program as SIGINT does, by an exception."""
    with suppress(ValueError):  # not in the main thread: whoever started that one is told
        signal.signal(signal.SIGTERM, _stop)


@contextmanager
def deferred() -> Iterator[None]:
    """Hear signals, but at the end: modules written in C lose or garble an exception that is raised while they load."""
    came: list[int] = []
    before: dict[int, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            if callable(signal.getsignal(number)):  # who was told to ignore a signal goes on to do so
                before[number] = signal.signal(number, lambda heard, _: came.append(heard))
    except ValueError:  # not in the main thread, which is the one that hears
        pass
    try:
        yield
    finally:
        for heard, handler in before.items():
            signal.signal(heard, handler)
    if came:
        before[came[0]](came[0], None)


def _stop(number: int, frame: Any) -> None:
    raise Stopped(number)
