"""The versions of the packages that affect the numbers, read without importing them."""

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


def code_of(targets: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of each file of the user's that defines a configured class, in hex, by the name of its module.

    Modules of installed packages, and modules that are not imported, are left out.

    Args:
        targets: values of `_target_`, such as `torch.optim.SGD`.

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
    """The longest prefix of a `_target_` that is an imported module; empty where none is.

    >>> _module_of("torch.optim.SGD")
    'torch.optim'
    """
    name = target.rpartition(".")[0]
    while name and name not in sys.modules:
        name = name.rpartition(".")[0]
    return name


def _version_of(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
