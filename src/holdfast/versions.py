"""The versions of what decides the numbers, without importing it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from holdfast import __version__

PACKAGES = ("torch", "lightning", "hydra-core")


@cache
def versions() -> dict[str, str]:
    """Of Python, and of the packages that decide the numbers."""
    return {"holdfast": __version__, "python": platform.python_version(), **{name: _of(name) for name in PACKAGES}}


def changed(before: Mapping[str, str]) -> list[str]:
    """What is of another version now, as a line each.

    >>> changed({**versions(), "torch": "1.0"})[0].startswith("torch was 1.0 and is ")
    True
    """
    now = versions()
    return [
        f"{name} was {before[name]} and is {now[name]}" for name in now if before.get(name) not in (None, now[name])
    ]


def _of(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
