"""Divides the rows of a table on disk into splits, as `holdfast.tables.splits` divides those in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.caching.column_reader import ColumnReader
from holdfast.caching.ranks import values_at
from holdfast.caching.raw_columns import RawColumns
from holdfast.errors import StorageError, TableError
from holdfast.tables import selection, splits
from holdfast.tables.splits import Assigned

Divide = Callable[[NDArray[np.float64]], Assigned]
"""The splits of the next rows, by their values of one column."""


class SplitFile:
    """The split of each row in a file, one byte a row.

    Args:
        path: the file.
        pieces: rows of each piece of the table.
    """

    def __init__(self, path: Path, pieces: Sequence[int]) -> None:
        self._path, self._pieces = path, pieces

    def write(self, parts: Iterator[Assigned]) -> list[int]:
        """Write the splits of all pieces; returns the numbers of training, validation and test rows.

        Raises:
            StorageError: they cannot be written.
        """
        counts = np.zeros(3, dtype=np.int64)
        try:
            with self._path.open("wb") as file:
                for part in parts:
                    file.write(np.ascontiguousarray(part).data)
                    counts += np.bincount(part, minlength=3)
        except OSError as error:
            raise StorageError(f"{self._path} cannot be written: {error.strerror or error}.") from error
        return [int(count) for count in counts]

    def read(self) -> Iterator[Assigned]:
        """The splits piece by piece."""
        with self._path.open("rb") as file:
            for rows in self._pieces:
                yield np.frombuffer(file.read(rows), dtype=np.int8)

    def digest(self, parts: Sequence[str]) -> str:
        """The sha256 of some texts, a line each, and of the splits of all rows."""
        sha256 = hashlib.sha256("\n".join(parts).encode())
        for part in self.read():
            sha256.update(part.tobytes())
        return sha256.hexdigest()


def split_parts(
    keys: Mapping[str, Any],
    raw: RawColumns,
    readers: Mapping[str, ColumnReader],
    *,
    by_class: bool,
    given: Sequence[int] | None,
    where: Callable[[int], str],
) -> Iterator[Assigned]:
    """The split of each row, piece by piece.

    Args:
        keys: of the data group.
        raw: the columns.
        readers: of each column, which know what it holds.
        by_class: whether rows that are divided at random are so by the class of the target.
        given: the split that the file of each piece names, -1 where it is to be drawn; None where no file names one.
        where: the place of a row, for a message.

    Raises:
        TableError: the column that divides the rows cannot, or lacks values.
    """
    key = selection.divided_by(keys)
    if key in ("split", "group", "time"):
        name = keys[key]
        if key != "group" and (problem := selection.dividing_column_problem(keys, readers[name].kind)):
            raise problem
        _check_present(keys, key, raw, where)
        divide = _by_column(keys, key, raw, readers[name])
        return (divide(piece[0]) for piece in raw.read([name]))
    fractions, given = keys["fractions"], given or [-1] * len(raw.pieces)
    left = selection.file_fractions(fractions, [number for number in (1, 2) if number in given])
    random = splits.RandomSplit(left if any(number >= 0 for number in given) else fractions, keys["seed"])
    strata = _classes(raw, selection.targets_of(keys)[0]) if by_class else (np.zeros(rows, int) for rows in raw.pieces)
    return (
        random.of(piece) if number < 0 else np.full(len(piece), number, dtype=np.int8)
        for piece, number in zip(strata, given, strict=True)
    )


def _classes(raw: RawColumns, target: str) -> Iterator[NDArray[np.int64]]:
    """A number for the class of each row, in the order in which classes occur."""
    seen = dict[float, int]()
    for piece in raw.read([target]):
        yield np.array([seen.setdefault(value, len(seen)) for value in piece[0].tolist()], dtype=np.int64)


def _by_column(keys: Mapping[str, Any], key: str, raw: RawColumns, reader: ColumnReader) -> Divide:
    """What divides the rows by a column."""
    if key == "group":
        groups = splits.GroupSplit(keys["fractions"], keys["seed"])
        return lambda values: groups.of(values.astype(np.int64))
    if key == "split":
        of_level = splits.by_column(reader.name, np.array(reader.levels, dtype=object))
        return lambda values: np.asarray(of_level[values.astype(np.int64)])
    ranks = splits.time_ranks(raw.rows, keys["fractions"])
    begin = np.array(values_at(raw.read, {reader.name: raw.rows}, {reader.name: ranks})[reader.name])
    return lambda values: splits.after(begin, values)


def _check_present(keys: Mapping[str, Any], key: str, raw: RawColumns, where: Callable[[int], str]) -> None:
    """Refuse missing values in a column that divides the rows.

    Raises:
        TableError: there is one.
    """
    missing, first = count_missing(raw, keys[key])
    if missing:
        error: TableError = selection.missing_in_dividing(keys, key, where(first), missing, raw.rows)
        raise error


def count_missing(raw: RawColumns, name: str) -> tuple[int, int]:
    """How many values of a column are missing, and the first such row; -1 if there is none."""
    missing, first, before = 0, -1, 0
    for piece in raw.read([name]):
        empty = np.isnan(piece[0])
        if first < 0 and empty.any():
            first = before + int(np.argmax(empty))
        missing, before = missing + int(empty.sum()), before + piece.shape[1]
    return missing, first
