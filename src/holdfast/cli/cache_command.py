"""`holdfast cache list` and `holdfast cache clear`: the tables that were converted for reading from disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

DEFAULT = Path("outputs/cache")


def cache(words: Sequence[str]) -> int:
    """`holdfast cache list`, `holdfast cache clear`: list or remove the tables that were converted."""
    import argparse

    parser = argparse.ArgumentParser(prog="holdfast cache", description=cache.__doc__)
    parser.add_argument("action", choices=("list", "clear"))
    parser.add_argument("names", nargs="*", default=[], help="tables to remove, as they are listed; all without names")
    parser.add_argument("--dir", type=Path, default=DEFAULT, help="data.cache_dir; outputs/cache without it")
    arguments = parser.parse_args(words)
    from holdfast.caching.cache_folder import CacheFolder
    from holdfast.errors import FolderError

    folder = CacheFolder(arguments.dir)
    tables = {files.path.name: files for files in folder.tables()}
    if unknown := [name for name in arguments.names if name not in tables]:
        raise FolderError(
            f"{arguments.dir} holds no table {unknown[0]}: holdfast cache list names those that it holds."
        )
    if not tables:
        print(f"{arguments.dir} holds no tables")
    for files in map(tables.__getitem__, arguments.names or tables):
        line = files.described()
        if arguments.action == "clear":
            line = f"in use, kept: {line}" if files.is_locked() else f"removed: {line}"
            if not files.is_locked():
                files.remove()
        print(line)
    if arguments.action == "clear":
        folder.remove_if_empty()
    return 0
