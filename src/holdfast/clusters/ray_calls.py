"""Waiting for what Ray refers to, such that a signal that arrives meanwhile keeps its name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray

from holdfast.errors import Stopped
from holdfast.runtime.signals import noted


def get(reference: Any, seconds: float | None = None) -> Any:
    """What a reference stands for.

    Raises:
        RayError: the actor has died, has raised an exception, or has not answered in time.
        Stopped: a signal has arrived.
    """
    with _named():
        return ray.get(reference, timeout=seconds)


def ready(references: Sequence[Any], seconds: float = 0.0, *, most: int = 1) -> list[Any]:
    """Those references whose values are there, up to some number; waits until they are, or some time has passed.

    Raises:
        Stopped: a signal has arrived.
    """
    if not references:
        return []
    with _named():
        return list(ray.wait(list(references), num_returns=min(most, len(references)), timeout=seconds)[0])


@contextmanager
def _named() -> Iterator[None]:
    """Ray replaces the exception of a signal by a bare KeyboardInterrupt; here it is the right one again."""
    with noted(most=0) as received:
        try:
            yield
        except KeyboardInterrupt as stop:
            raise Stopped(received[0]) if received else Stopped.of(stop) from None
