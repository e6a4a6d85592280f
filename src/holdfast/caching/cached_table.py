"""A table on disk: converted when it is first needed, and trained on buffer by buffer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.caching.cache_folder import CachedFiles, CacheFolder, converting, gigabytes
from holdfast.caching.checked_json import read_checked
from holdfast.caching.conversion_progress import ConversionProgress
from holdfast.caching.converting import TableFile, convert
from holdfast.caching.encoded_rows import SealedRows
from holdfast.caching.limit import memory_limit, rows_that_fit
from holdfast.data.blocks import BlockFile, BlockForm
from holdfast.data.buffered import BufferedRows
from holdfast.data.order import batch_rows
from holdfast.data.split import SPLITS, Split
from holdfast.errors import DataError, StorageError, TableError
from holdfast.tables import selection
from holdfast.tables.csv_files import import_arrow
from holdfast.tables.encoding import Encoding
from holdfast.tables.reader import files_of

_SPLIT_OF = {"path": -1, "val_path": 1, "test_path": 2}


class CachedTable:
    """The rows of a table that is not held in memory.

    Args:
        keys: the data group of a configuration, with a `path` and a `target`.
        cache_dir: where converted tables lie.

    Raises:
        TableError: the table cannot be used; the message names the file, the line or the column.
        StorageError: it cannot be converted, since the disk is full.

    Attributes:
        encoding: of its columns, fitted on the training rows.
        said: what was found out, and should be known before training.
    """

    def __init__(self, keys: Mapping[str, Any], cache_dir: str) -> None:
        self._keys = keys
        import_arrow()
        cache = CacheFolder(Path(cache_dir))
        files = [TableFile(path, split, *cache.digest(path)) for path, split in _files(keys)]
        others = {key: value for key, value in keys.items() if key not in selection.FILE_KEYS}
        self._files = cache.files_of(others, [(file.split, file.sha256) for file in files])
        table = _read(self._files) or self._convert(files, cache)
        self.encoding = Encoding.from_plain({**table["encoding"], "files": [file.sha256 for file in files]})
        self._digest, self.rows = table["digest"], table["rows"]
        self._blocks = [(BlockForm(*each["form"]), each["checks"]) for each in table["splits"]]
        self.said: list[str] = table["said"]

    def _convert(self, files: Sequence[TableFile], cache: CacheFolder) -> dict[str, Any]:
        with converting(self._files):
            if (table := _read(self._files)) is not None:  # by another process, which this one has waited for
                return table
            total = sum(file.path.stat().st_size for file in files)
            with ConversionProgress(self._keys["path"], self._files.path, total) as progress:
                try:
                    table = convert(self._keys, files, cache, self._files, progress)
                except StorageError:
                    if not self._files.progress.exists():  # there was too little room to begin with
                        self._files.remove()
                        cache.remove_made()
                    raise
                except TableError as error:  # nothing of a table that cannot be used is kept
                    self._files.remove()
                    cache.remove_made()
                    named = any(str(error).startswith(str(file.path)) for file in files)
                    raise error if named else TableError(f"{self._keys['path']}: {error}") from None
            cache.save_digests()
            return table

    @property
    def row_bytes(self) -> int:
        """Bytes of an encoded row."""
        return sum(self._blocks[0][0].row_bytes)

    def buffer_rows(self) -> int:
        """The rows of a buffer that fills its share of the memory."""
        return rows_that_fit(self.row_bytes, memory_limit())

    def settle(self, group: Mapping[str, Any]) -> list[str]:
        """How a job is trained from disk, as lines for the user.

        Args:
            group: its data group, with the rows of a buffer.

        Raises:
            TableError: its batches do not fit into a buffer.
        """
        rows = self.rows_of("train", group["buffer_rows"])
        try:
            batch_rows(rows, group["batch_size"])
        except DataError as error:
            raise TableError(str(error)) from None
        size = gigabytes(sum(form.offset(form.blocks) for form, _ in self._blocks))
        lines = [
            f"rows are read from disk ({self._files.path}, {size}), {rows.buffer_rows:,} training rows at a time: "
            f"{rows.buffers} buffer{'s' * (rows.buffers > 1)} an epoch"
        ]
        if group["num_workers"]:
            lines.append(f"data.num_workers={group['num_workers']} has no effect: rows on disk are read ahead anyway")
        return lines

    def digest(self) -> str:
        """The sha256 of the files, the targets and the split of each row."""
        return str(self._digest)

    def rows_of(self, split: Split, buffer_rows: int | None = None) -> BufferedRows:
        """The encoded rows of a split.

        Args:
            split: which.
            buffer_rows: rows in memory at a time; None for as many as fill their share of it.

        Raises:
            DataError: the file is damaged or gone.
        """
        number = SPLITS.index(split)
        form, checks = self._blocks[number]
        path = self._files.rows[number]
        if not path.exists() or path.stat().st_size != form.offset(form.blocks):
            state = "was cut off" if path.exists() else "is gone"
            raise DataError(f"{path} {state}. Remove the table with {self._files.remedy}, and start again.")
        file = BlockFile(path, form, checks)
        if split == "test":
            return SealedRows(file, self.encoding)
        return BufferedRows(file, buffer_rows or self.buffer_rows(), self._keys["seed"])


def _files(keys: Mapping[str, Any]) -> list[tuple[Path, int]]:
    """The files of a table, each with the split of its rows."""
    named = [(key, split) for key, split in _SPLIT_OF.items() if keys[key] is not None]
    return [(path, split) for key, split in named for path in files_of(keys[key], f"data.{key}")]


def _read(files: CachedFiles) -> dict[str, Any] | None:
    """What is known of a converted table; None if it is not converted to the end.

    Raises:
        DataError: the file is damaged.
    """
    try:
        table: dict[str, Any] = read_checked(files.table)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise DataError(
            f"{files.table} cannot be read: {error}. Remove the table with {files.remedy}, and start again."
        ) from None
    return table
