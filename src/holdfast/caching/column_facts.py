"""The facts of columns on disk, as `holdfast.tables.facts` finds those in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from holdfast.caching.column_reader import MOST_LEVELS, ColumnReader, number_of
from holdfast.caching.dividing import SplitFile, count_missing
from holdfast.caching.moments import moments
from holdfast.caching.ranks import medians
from holdfast.caching.raw_columns import Matrix, RawColumns
from holdfast.errors import TableError
from holdfast.tables.facts import Classes, Facts, class_name
from holdfast.tables.roles import FEW_VALUES, INDEX_NAMES, Values, check_target

_MOST_COMPARED = 1 << 22
"""Values of a column that are compared with each other at once."""


def values_of_target(raw: RawColumns, reader: ColumnReader, where: Callable[[int], str]) -> Values:
    """What is known of a target over all rows.

    Raises:
        TableError: it is missing in some rows.
    """
    if reader.left_out:
        raise TableError(
            f"data.target={reader.name} holds more than {MOST_LEVELS:,} different texts: give a column of numbers, or "
            "of fewer classes."
        )
    missing, first = count_missing(raw, reader.name)
    values = Values(reader.kind, reader.whole, raw.rows, missing, 0)
    check_target(reader.name, values, where(first) if values.missing else "")
    if reader.kind == "text":
        return values
    distinct, largest = np.empty(0), 0.0
    for piece in raw.read([reader.name]):
        largest = max(largest, float(np.abs(piece).max()))
        if len(distinct) <= FEW_VALUES:
            distinct = np.unique(np.concatenate([distinct, piece[0]]))
    return values._replace(distinct=len(distinct), largest=largest)


def classes_on_disk(raw: RawColumns, split: SplitFile, reader: ColumnReader) -> Classes:
    """The classes of a target."""
    seen: tuple[set[float], set[float]] = (set(), set())
    for piece, part in zip(raw.read([reader.name]), split.read(), strict=True):
        for values, rows in zip(seen, (part == 0, part != 0), strict=True):
            values.update(np.unique(piece[0][rows]).tolist())
    named = [frozenset(_class(reader, value) for value in values) for values in seen]
    return Classes(*named)


def _class(reader: ColumnReader, value: float) -> str:
    return reader.levels[int(value)] if reader.kind == "text" else class_name(value, reader.kind)


class _Extent(NamedTuple):
    """Of the training rows of a column of numbers: the values that are missing, the least and the largest."""

    missing: int
    low: float
    high: float


class ColumnsOnDisk:
    """The training rows of a table's columns.

    Args:
        raw: the columns.
        split: of each row.
        readers: of each column, which know what it holds.
        rows: number of training rows.
    """

    def __init__(self, raw: RawColumns, split: SplitFile, readers: Mapping[str, ColumnReader], rows: int) -> None:
        self._raw, self._split, self._readers, self._rows = raw, split, readers, rows

    def read(self, names: Sequence[str]) -> Iterator[Matrix]:
        """Some columns piece by piece."""
        for piece, part in zip(self._raw.read(names), self._split.read(), strict=True):
            yield piece[:, part == 0]

    def facts(self, names: Sequence[str]) -> dict[str, Facts]:
        """What is known of some columns."""
        texts = [name for name in names if self._readers[name].kind == "text"]
        numbers = [name for name in names if self._readers[name].kind != "text"]
        facts = {**self._of_texts(texts), **self._of_numbers(numbers)}
        return {name: facts[name] for name in names}

    def _of_texts(self, names: Sequence[str]) -> dict[str, Facts]:
        counts = [np.zeros(len(self._readers[name].levels), dtype=np.int64) for name in names]
        for piece in self.read(names):
            for column, codes in enumerate(piece):
                known = codes[codes < len(counts[column])].astype(np.int64)
                counts[column] += np.bincount(known, minlength=len(counts[column]))
        return {name: self._text(name, count) for name, count in zip(names, counts, strict=True)}

    def _text(self, name: str, counts: NDArray[np.int64]) -> Facts:
        reader = self._readers[name]
        if reader.left_out:  # too many to be learned from, or another one in every row
            distinct = self._rows if self._all_differ(name) else len(reader.levels)
            return Facts("text", False, self._rows, 0, distinct)
        levels = {reader.levels[code]: int(counts[code]) for code in np.flatnonzero(counts)}
        return Facts("text", False, self._rows, self._rows - int(counts.sum()), len(levels), levels=levels)

    def _of_numbers(self, names: Sequence[str]) -> dict[str, Facts]:
        if not names:
            return {}
        extents = self._extents(names)
        counts = {name: self._rows - extent.missing for name, extent in extents.items()}
        fills = {
            **dict.fromkeys(names, 0.0),
            **medians(self.read, {name: each for name, each in counts.items() if each}),
        }
        fill = np.array([fills[name] for name in names])[:, None]

        def filled() -> Iterator[Matrix]:
            return (np.where(np.isnan(piece), fill, piece) for piece in self.read(names))

        means, deviations = moments(filled, self._rows)
        return {
            name: Facts(
                self._readers[name].kind,
                self._readers[name].whole,
                self._rows,
                extents[name].missing,
                self._distinct(name, extents[name]),
                fills[name],
                float(mean),
                float(deviation),
                extents[name].missing == self._rows or extents[name].low == extents[name].high,
            )
            for name, mean, deviation in zip(names, means, deviations, strict=True)
        }

    def _extents(self, names: Sequence[str]) -> dict[str, _Extent]:
        missing = np.zeros(len(names), dtype=np.int64)
        low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
        for piece in self.read(names):
            if piece.shape[1]:
                missing += np.isnan(piece).sum(1)
                low, high = np.fmin(low, np.fmin.reduce(piece, 1)), np.fmax(high, np.fmax.reduce(piece, 1))
        return {
            name: _Extent(int(some), float(least), float(most))
            for name, some, least, most in zip(names, missing, low, high, strict=True)
        }

    def _distinct(self, name: str, extent: _Extent) -> int:
        """The number of different values; 2 where it is not known whether there are more."""
        if extent.missing == self._rows or extent.low == extent.high:
            return int(extent.missing < self._rows)
        is_index = name in INDEX_NAMES and self._readers[name].whole and not extent.missing
        return self._rows if is_index and self._all_differ(name) else 2

    def _all_differ(self, name: str) -> bool:
        """Whether no value of a column is missing or occurs twice; read as often as it takes to compare all of them."""
        parts = -(-self._rows // _MOST_COMPARED)
        numbers = np.array([number_of(level) for level in self._readers[name].levels])
        for part in range(parts):
            pieces = list[NDArray[np.float64]]()
            for (values,) in self.read([name]):
                if np.isnan(values).any():
                    return False
                if len(numbers):  # texts: those that are kept are written as codes
                    is_code = (values < len(numbers)) & (values == np.floor(values))
                    values = np.where(is_code, numbers[np.where(is_code, values, 0).astype(np.int64)], values)  # noqa: PLW2901
                pieces.append(values[_hashed(values) % np.uint64(parts) == part])
            values = np.concatenate(pieces)
            if len(np.unique(values)) < len(values):
                return False
        return True


def _hashed(values: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Numbers that are equal for equal values, and spread evenly."""
    return ((values + 0.0).view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
