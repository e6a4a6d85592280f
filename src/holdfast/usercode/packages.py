"""Which modules are the user's: not Python's own, not an installed package's, and not Holdfast's."""

from __future__ import annotations

import functools
import hashlib
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import FrameType

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
def is_users(module: object) -> bool:
    """Whether a module is the user's.

    Args:
        module: its full name; what some compiled classes have in its place is nobody's.

    >>> is_users("collections.abc"), is_users("torch.nn"), is_users("holdfast.model")
    (False, False, False)
    """
    if not isinstance(module, str):
        return False
    return is_users_file(module, getattr(sys.modules.get(module.partition(".")[0]), "__file__", None) or "")


def is_users_file(module: str, file: str) -> bool:
    """Whether a module in a file is the user's, be it imported or not.

    Args:
        module: its full name.
        file: its file, or that of its package.
    """
    package = module.partition(".")[0]
    of_cython = package.startswith("_cython_")  # the class of its functions says that it stands in such a module
    if package in sys.stdlib_module_names or package in _HOLDFASTS or of_cython:
        return False
    installed = any(part in ("site-packages", "dist-packages") for part in str(file).replace("\\", "/").split("/"))
    return package in _users or not installed


def code_of(targets: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of each file of the user's that defines a configured class, in hex, by the name of its module.

    Modules that are not imported are left out.

    Args:
        targets: values of `_target_`, such as `torch.optim.SGD`.

    >>> code_of(["torch.optim.SGD", "holdfast.data.Line"])
    {}
    """
    names = filter(is_users, sorted(set(map(_module_of, targets)) - {""}))
    files = {name: getattr(sys.modules[name], "__file__", None) for name in names}
    return {name: hashlib.sha256(Path(file).read_bytes()).hexdigest() for name, file in files.items() if file}


def lines_of_users(error: BaseException) -> str:
    """The user's lines of a traceback, as Python prints them; empty where it has none."""
    return "".join(traceback.StackSummary.extract(iter(_frames_of_users(error))).format())


def place_of_users(error: BaseException) -> str:
    """The last of the user's lines of a traceback, such as ` (mine.py, line 7, in loss)`; empty where it has none."""
    if not (frames := _frames_of_users(error)):
        return ""
    frame, line = frames[-1]
    return f" ({Path(frame.f_code.co_filename).name}, line {line}, in {frame.f_code.co_name})"


def _frames_of_users(error: BaseException) -> list[tuple[FrameType, int]]:
    frames = traceback.walk_tb(error.__traceback__)
    return [(frame, line) for frame, line in frames if is_users(str(frame.f_globals.get("__name__", "")))]


def _module_of(target: str) -> str:
    """The longest prefix of a `_target_` that is an imported module; empty where none is.

    >>> _module_of("torch.optim.SGD")
    'torch.optim'
    """
    name = target.rpartition(".")[0]
    while name and name not in sys.modules:
        name = name.rpartition(".")[0]
    return name
