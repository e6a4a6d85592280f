"""The files of the user's modules, with those of the modules that they import, and digests of what these say."""

from __future__ import annotations

import ast
import functools
import hashlib
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from holdfast.usercode.packages import is_users_file


def code_digest(module: str) -> str:
    """The digest of a module of the user's and of all modules of the user's that it imports; empty of any other.

    Comments, docstrings and formatting do not count. Import statements count wherever they stand; what is imported by
    calls, such as `importlib.import_module`, is not seen.

    Args:
        module: its full name.

    >>> code_digest("torch.nn"), code_digest("not_there")
    ('', '')
    """
    digests: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in digests or (file := _file_of(name)) is None:
            continue
        status = file.stat()
        source = _read(file, status.st_mtime_ns, status.st_size)
        digests[name] = source.digest
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        for imported in source.imports:
            waiting += _with_packages(_absolute(imported, package))
    return hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest() if digests else ""


class _Source(NamedTuple):
    digest: str
    imports: tuple[str, ...]  # with leading dots where they are relative


@functools.cache
def _read(file: Path, mtime_ns: int, size: int) -> _Source:
    content = file.read_bytes()
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # such as a compiled module
        return _Source(hashlib.sha256(content).hexdigest(), ())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node, clean=False
        ):
            node.body = node.body[1:]
    with suppress(RecursionError):  # of code that is nested too deep, comments count
        content = ast.dump(tree).encode()
    return _Source(hashlib.sha256(content).hexdigest(), tuple(dict.fromkeys(_imports(tree))))


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            yield start
            # a name may be that of a module in a package
            yield from (f"{start}.{each.name}" if node.module else f"{start}{each.name}" for each in node.names)


def _absolute(name: str, package: str) -> str:
    """The full name of a module that a module in a package imports.

    >>> _absolute("..data", "mine.models"), _absolute(".data", "mine"), _absolute("torch", "mine")
    ('mine.data', 'mine.data', 'torch')
    """
    relative = name.lstrip(".")
    for _ in range(len(name) - len(relative) - 1):
        package = package.rpartition(".")[0]
    return ".".join(filter(None, (package, relative))) if name.startswith(".") else name


def _with_packages(name: str) -> list[str]:
    """A module and the packages in which it lies, which are imported before it."""
    parts = name.split(".")
    return [".".join(parts[: number + 1]) for number in range(len(parts))]


def _file_of(name: str) -> Path | None:
    """The file of a module of the user's, whether it is imported or not; None where there is none."""
    if name == "__main__" or name.partition(".")[0] in sys.stdlib_module_names:
        return None
    file = getattr(sys.modules[name], "__file__", None) if name in sys.modules else _found(name)
    return Path(file) if file and is_users_file(name, file) and Path(file).is_file() else None


def _found(name: str) -> str | None:
    """The file from which a module would be imported; nothing is imported, packages without `__init__.py` neither."""
    first, *rest = name.split(".")
    try:
        spec = find_spec(first)  # of a name without dots: nothing is imported
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None:
        return None
    file, folders = spec.origin, [Path(folder) for folder in spec.submodule_search_locations or ()]
    for part in rest:
        files = [file for folder in folders for file in (folder / part / "__init__.py", folder / f"{part}.py")]
        file = next((str(each) for each in files if each.is_file()), None)
        folders = [folder / part for folder in folders]
    return file
