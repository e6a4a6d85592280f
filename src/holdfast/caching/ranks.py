"""Medians, and other values by their rank, of columns that are read several times from disk: exact, in little memory.

Doubles are sorted as whole numbers of 64 bits. Each pass counts the numbers of one range by their next 12 bits, and
goes on with the part that holds the wanted rank, until it has few enough values to be sorted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from holdfast.caching.raw_columns import Matrix

Read = Callable[[Sequence[str]], Iterable[Matrix]]
"""Reads some columns piece by piece, shape `(columns, rows)`; NaN values are passed over."""

_BITS = 12
_FEW = 1 << 14
"""Values of a range that are collected and sorted."""

_SIGN = np.uint64(1 << 63)


@dataclass
class _Range:
    """The values of a column whose first bits are known.

    Attributes:
        low: the smallest 64-bit number in the range.
        bits: how many of the first bits are known.
        count: values in it.
        below: values of the column that are smaller.
    """

    low: int
    bits: int
    count: int
    below: int
    values: list[NDArray[np.uint64]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._next = min(_BITS, 64 - self.bits)  # bits that are counted by
        self._shift = 64 - self.bits - self._next
        self._counts = np.zeros(1 << self._next, dtype=np.int64)

    @property
    def is_few(self) -> bool:
        return self.count <= _FEW or self.bits >= 64

    def add(self, numbers: NDArray[np.uint64]) -> None:
        """Count, or collect, those numbers of a piece that are in the range."""
        if self.bits:
            known = np.uint64(64 - self.bits)
            numbers = numbers[numbers >> known == np.uint64(self.low) >> known] if self.bits < 64 else numbers[:0]
        if self.is_few:
            self.values.append(numbers)
            return
        index = (numbers >> np.uint64(self._shift)) & np.uint64(len(self._counts) - 1)
        self._counts += np.bincount(index.astype(np.int64), minlength=len(self._counts))

    def narrowed(self, rank: int) -> _Range:
        """The part of the range that holds a rank, after all pieces were counted."""
        ends = np.cumsum(self._counts)
        part = int(np.searchsorted(ends, rank - self.below, side="right"))
        before = int(ends[part - 1]) if part else 0
        low = self.low + (part << self._shift)
        return _Range(low, 64 - self._shift, int(self._counts[part]), self.below + before)

    def value(self, rank: int) -> float:
        """The value of a rank, of a range whose values were collected."""
        if self.bits >= 64:
            return float(_doubles(np.array([self.low], dtype=np.uint64))[0])
        return float(_doubles(np.sort(np.concatenate(self.values)))[rank - self.below])


def values_at(read: Read, counts: Mapping[str, int], ranks: Mapping[str, Sequence[int]]) -> dict[str, list[float]]:
    """The values of columns at some ranks, as sorting would find them.

    Args:
        read: reads columns; it is called once for each pass.
        counts: of each column the number of values that are not NaN.
        ranks: of each column, from 0.

    >>> values_at(lambda names: [np.array([[3.0, np.nan, -1.0, 2.0]])], {"a": 3}, {"a": [0, 1]})
    {'a': [-1.0, 2.0]}
    """
    ranges = {(name, rank): _Range(0, 0, counts[name], 0) for name, wanted in ranks.items() for rank in wanted}
    ended = dict[tuple[str, int], float]()
    while ranges:
        passed = _pass(read, ranges)
        ranges = {}
        for key, part in passed.items():
            if part.is_few:
                ended[key] = part.value(key[1])
            else:
                ranges[key] = part.narrowed(key[1])
    return {name: [ended[name, rank] for rank in wanted] for name, wanted in ranks.items()}


def _pass(read: Read, ranges: Mapping[tuple[str, int], _Range]) -> dict[tuple[str, int], _Range]:
    """Show every value to the ranges of its column; ranks in the same range share it."""
    distinct = defaultdict[str, dict[tuple[int, int], _Range]](dict)
    shared = {key: distinct[key[0]].setdefault((part.low, part.bits), part) for key, part in ranges.items()}
    for piece in read(list(distinct)):
        for row, parts in zip(piece, distinct.values(), strict=True):
            numbers = _ordered(row[~np.isnan(row)])
            for part in parts.values():
                part.add(numbers)
    return shared


def _ordered(values: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Doubles as whole numbers of the same order."""
    bits = (values + 0.0).view(np.uint64)  # + 0.0 makes -0.0 the same as 0.0
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def _doubles(numbers: NDArray[np.uint64]) -> NDArray[np.float64]:
    return np.where(numbers & _SIGN, numbers ^ _SIGN, ~numbers).view(np.float64)


def medians(read: Read, counts: Mapping[str, int]) -> dict[str, float]:
    """The median of each column; arguments as for `values_at`, no count may be 0.

    >>> medians(lambda names: [np.array([[4.0, 1.0]]), np.array([[2.0, 9.0]])], {"a": 4})
    {'a': 3.0}
    """
    ranks = {name: [(count - 1) // 2, count // 2] for name, count in counts.items()}
    return {name: float(np.mean(two)) for name, two in values_at(read, counts, ranks).items()}
