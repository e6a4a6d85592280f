"""The versions of what decides the numbers, without importing it."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

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


def code_of(targets: Iterable[str]) -> dict[str, str]:
    """The sha256 of the file of each imported module that a `_target_` names, those of installed packages left out.

    >>> code_of(["torch.optim.SGD", "holdfast.data.Line"])
    {}
    """
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in sorted(map(_module_of, targets))}
    return {
        name: hashlib.sha256(Path(file).read_bytes()).hexdigest()
        for name, file in files.items()
        if file
        and name.partition(".")[0] != "holdfast"
        and not {"site-packages", "dist-packages"} & {*Path(file).parts}
    }


def _module_of(target: str) -> str:
    """The longest part of a `_target_` that is an imported module.

    >>> _module_of("torch.optim.SGD")
    'torch.optim'
    """
    name = target.rpartition(".")[0]
    while name and name not in sys.modules:
        name = name.rpartition(".")[0]
    return name


def _of(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
