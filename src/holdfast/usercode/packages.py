"""Whose a module is: the user's, or that of Python, of an installed package, or ours."""

from __future__ import annotations

import functools
import sys

_OURS = frozenset({"holdfast", "hydra_plugins"})
_users: set[str] = set()  # packages that configurations name, wherever they are installed


def note_users(module: str) -> None:
    """Count a module, by its name, and all of its package as the user's, even if it is an installed package."""
    top = module.partition(".")[0]
    if top not in _OURS and top not in sys.stdlib_module_names and top not in ("torch", "lightning"):
        _users.add(top)
        is_users.cache_clear()


@functools.cache
def is_users(module: str) -> bool:
    """Whether a module, by its name, is the user's: neither of the standard library nor installed, nor ours."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top in _OURS:
        return False
    file = getattr(sys.modules.get(top), "__file__", None) or ""
    installed = any(part in ("site-packages", "dist-packages") for part in file.replace("\\", "/").split("/"))
    return top in _users or not installed
