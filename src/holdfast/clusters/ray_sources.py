"""The user's modules as text: they travel to workers that share no disk with the driver."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from holdfast.errors import WorkerError
from holdfast.usercode.packages import is_users

MOST_BYTES = 64 << 20
"""Largest size of all modules together."""


class Sources(NamedTuple):
    """Python files of the user's.

    Attributes:
        folders: where they were on the driver's computer: the entries of `sys.path` under which they are imported.
        files: their contents by their paths below those folders, with `/` between the parts.
    """

    folders: tuple[str, ...]
    files: dict[str, str]

    def as_text(self) -> str:
        """The files as a line with the digest of what follows, and JSON."""
        text = json.dumps(self._asdict())
        return f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}"

    @classmethod
    def from_text(cls, content: str) -> Sources:
        """The files that `as_text` wrote.

        Raises:
            WorkerError: the text was altered on its way, or names a file outside of its folder.
        """
        sha256, _, text = content.partition("\n")
        if hashlib.sha256(text.encode()).hexdigest() != sha256:
            raise WorkerError("the user's modules were altered on their way: their digest differs")
        plain = json.loads(text)
        for name in plain["files"]:
            if not name.endswith(".py") or name.startswith("/") or "\\" in name or ".." in name.split("/"):
                raise WorkerError(f"the user's modules name a file that they may not: {name!r}")
        return cls(tuple(plain["folders"]), dict(plain["files"]))

    def write(self, folder: Path) -> None:
        """Write the files below a folder, and let the modules be imported from there, after those of libraries."""
        for name, text in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode("utf-8", "surrogateescape"))
        # where the driver's disk is shared, a module that is edited there must not replace the one that travelled
        sys.path[:] = [entry for entry in sys.path if entry and entry not in self.folders] + [str(folder)]


def collect() -> Sources:
    """The user's modules that this process has imported, with what lies beside them and may be imported later.

    A package travels whole; beside a module that is in no package, all modules of its folder travel. Installed
    packages do not: every node needs them.

    Raises:
        WorkerError: the files are too large.
    """
    folders, files, size = dict[str, None](), dict[str, str](), 0
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if name == "__main__" or not file.endswith(".py") or not is_users(name):
            continue
        root = _root(name, Path(file))
        if root is None or _is_installed(root):
            continue
        folders[str(root)] = None
        for path in _around(root, name):
            key = path.relative_to(root).as_posix()
            if key not in files:
                # bytes that are no UTF-8 survive: a module may declare another encoding
                files[key] = path.read_bytes().decode("utf-8", "surrogateescape")
                size += len(files[key])
                if size > MOST_BYTES:
                    raise WorkerError(f"the modules in {root} are too large to travel: over {MOST_BYTES} bytes")
    return Sources(tuple(folders), files)


def _root(name: str, file: Path) -> Path | None:
    """The folder from which a module is imported; None where its path does not follow from its name."""
    relative = Path(*name.split("."))
    for ending in (relative.with_suffix(".py"), relative / "__init__.py"):
        if file.parts[-len(ending.parts) :] == ending.parts:
            return Path(*file.parts[: -len(ending.parts)])
    return None


def _around(root: Path, name: str) -> Iterator[Path]:
    """The files of the package of a module; the modules beside one that is in no package."""
    package = root / name.partition(".")[0]
    if not package.is_dir():
        yield from sorted(path for path in root.glob("*.py") if path.is_file())
        return
    for parent, folders, names in os.walk(package):
        folders[:] = sorted(folder for folder in folders if not folder.startswith((".", "__pycache__")))
        yield from (Path(parent, name) for name in sorted(names) if name.endswith(".py"))


def _is_installed(root: Path) -> bool:
    standard = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    return str(root) in standard or any(part in ("site-packages", "dist-packages") for part in root.parts)
