"""The table of a data group: in memory where it fits, otherwise on disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from holdfast.caching.cached_table import CachedTable
from holdfast.caching.limit import fits, memory_limit
from holdfast.config.fold import fold_of
from holdfast.errors import TableError
from holdfast.tables.reader import files_of
from holdfast.tables.selection import FILE_KEYS
from holdfast.tables.source import TableSource

TABLE_KEYS = (
    *("path", "target", "columns", "drop", "split", "val_path", "test_path", "fractions", "group", "time", "task"),
    *("delimiter", "decimal", "seed", "standardise"),
)

_sources: dict[tuple[Any, ...], TableSource | CachedTable] = {}
"""The tables that this process has read, by their keys and the state of their files."""


def source_of(group: Mapping[str, Any]) -> TableSource | CachedTable:
    """The table of a data group; it is read once in a process, as long as its files stay as they are."""
    keys = {key: group[key] for key in TABLE_KEYS}
    lacking = {"data.path=FILE.csv": keys["path"], "data.target=COLUMN": keys["target"]}
    if missing := [word for word, value in lacking.items() if not value]:  # a sweep may give them to its jobs alone
        raise TableError(f"data=table needs {' and '.join(missing)}: the table, and the column to predict.")
    paths = [(key, keys[key]) for key in FILE_KEYS if keys[key] is not None]
    files = [file for key, path in paths for file in files_of(path, f"data.{key}")]
    buffer_rows = group.get("buffer_rows")
    on_disk = isinstance(buffer_rows, int) or (buffer_rows == "auto" and not fits(files, memory_limit()))
    stamps = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key, fold = (repr(keys), on_disk and group["cache_dir"], *stamps), fold_of(group)
    if key not in _sources:
        _sources[key] = CachedTable(keys, group["cache_dir"]) if on_disk else TableSource(keys)
    if fold is None:
        return _sources[key]
    whole, of_fold = _sources[key], (*key, fold)
    if not isinstance(whole, TableSource):
        raise TableError(
            f"{keys['path']} is read from disk, buffer by buffer, and folds are divided in memory: "
            "leave sweep.folds out."
        )
    if of_fold not in _sources:
        _sources[of_fold] = whole.folded(fold)
    return _sources[of_fold]


def settle_buffer(group: dict[str, Any], recorded: int | Literal["auto"] | None = "auto") -> list[str]:
    """Settle how many rows of a table are in memory at a time: once for a run, since the order of rows follows from it.

    Args:
        group: a data group; its `buffer_rows` becomes a number, or None where the table is held in memory whole.
        recorded: what an earlier process has settled; "auto" where none has.

    Returns:
        What the user should know of the table.

    Raises:
        TableError: the table cannot be used, or batches do not fit into a buffer.
    """
    if recorded != "auto":
        group["buffer_rows"] = recorded
    source = source_of(group)
    if isinstance(source, TableSource):
        group["buffer_rows"] = None
        return source.said
    if group["buffer_rows"] == "auto":
        group["buffer_rows"] = source.buffer_rows()
    return [*source.said, *source.settle(group)]
