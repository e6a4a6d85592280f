"""The versions of the packages that affect the numbers, read without importing them."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from holdfast import __version__

PACKAGES = ("torch", "lightning", "hydra-core")


@cache
def versions() -> dict[str, str]:
    """Versions of Holdfast, of Python, and of the packages that affect the numbers, by name."""
    return {
        "holdfast": __version__,
        "python": platform.python_version(),
        **{name: _version_of(name) for name in PACKAGES},
    }


def changed(before: Mapping[str, str]) -> list[str]:
    """A line for each package whose version differs from a recorded one.

    Args:
        before: the recorded versions, see `versions`.

    >>> changed({**versions(), "torch": "1.0"})[0].startswith("torch was 1.0 and is ")
    True
    """
    now = versions()
    return [
        f"{name} was {before[name]} and is {now[name]}" for name in now if before.get(name) not in (None, now[name])
    ]


def _version_of(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
