"""Means and standard deviations of columns that are read from disk, to the last bit those of numpy in memory.

numpy adds the halves of an array, and the halves of these, down to 128 numbers. Here the same halves are added, of
which only the smallest are in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from holdfast.caching.raw_columns import Matrix

_LEAF = 1 << 15
"""Numbers that are added in memory; at least the 128 at which numpy ends to halve."""


def moments(read: Callable[[], Iterable[Matrix]], rows: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean and the standard deviation of each column, in two passes.

    Args:
        read: reads the columns piece by piece, shape `(columns, rows)`, no value missing.
        rows: of all pieces.

    >>> [values.tolist() for values in moments(lambda: [np.array([[1.0]]), np.array([[2.0, 6.0]])], 3)]
    [[3.0], [2.160246899469287]]
    """
    means = _sum(iter(_leaves(read(), rows)), rows) / rows

    def squares() -> Iterator[Matrix]:
        for piece in read():
            differences = piece - means[:, None]
            yield differences * differences

    return means, np.sqrt(_sum(iter(_leaves(squares(), rows)), rows) / rows)


def _halves(count: int) -> tuple[int, int]:
    """How numpy halves that many numbers."""
    half = count // 2
    half -= half % 8
    return half, count - half


def _sum(sums: Iterator[NDArray[np.float64]], count: int) -> NDArray[np.float64]:
    """Add the sums of the leaves, in the order in which numpy does."""
    if count <= _LEAF:
        return next(sums)
    first, second = _halves(count)
    left = _sum(sums, first)
    return left + _sum(sums, second)


def _sizes(count: int) -> Iterator[int]:
    """The numbers of each leaf."""
    if count <= _LEAF:
        yield count
    else:
        for half in _halves(count):
            yield from _sizes(half)


def _leaves(pieces: Iterable[Matrix], rows: int) -> Iterator[NDArray[np.float64]]:
    """The sum of each leaf, for all columns."""
    sizes, leaf, filled = _sizes(rows), None, 0
    size = next(sizes)
    for piece in pieces:
        taken = 0
        while taken < piece.shape[1]:
            if leaf is None:
                leaf = np.empty((len(piece), _LEAF))
            count = min(size - filled, piece.shape[1] - taken)
            leaf[:, filled : filled + count] = piece[:, taken : taken + count]
            filled, taken = filled + count, taken + count
            if filled == size:
                yield np.array([column[:size].sum() for column in leaf])
                size, filled = next(sizes, 0), 0
