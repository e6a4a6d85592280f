"""Which modules are the user's: not Python's own, not an installed package's, and not Holdfast's."""

from __future__ import annotations

import functools
import sys

_HOLDFASTS = frozenset({"holdfast", "hydra_plugins"})
_users: set[str] = set()  # packages that configurations name, wherever they are installed


def note_users(module: str) -> None:
    """Count a module and its whole package as the user's, even if the package is installed.

    Args:
        module: its full name. Modules of Python, torch, Lightning and Holdfast are never the user's.
    """
    package = module.partition(".")[0]
    if package not in _HOLDFASTS and package not in sys.stdlib_module_names and package not in ("torch", "lightning"):
        _users.add(package)
        is_users.cache_clear()


@functools.cache
def is_users(module: str) -> bool:
    """Whether a module is the user's.

    Args:
        module: its full name.

    >>> is_users("collections.abc"), is_users("torch.nn"), is_users("holdfast.model")
    (False, False, False)
    """
    package = module.partition(".")[0]
    if package in sys.stdlib_module_names or package in _HOLDFASTS:
        return False
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    installed = any(part in ("site-packages", "dist-packages") for part in file.replace("\\", "/").split("/"))
    return package in _users or not installed
