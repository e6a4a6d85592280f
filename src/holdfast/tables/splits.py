"""Which rows of a table belong to training, validation and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.data.seeding import derive
from holdfast.data.split import SPLITS
from holdfast.errors import TableError

_BLOCK = 20
"""Rows among which each split has its fraction, but for rounding."""

_GOLDEN = (5**0.5 - 1) / 2
"""Its multiples fill the interval from 0 to 1 evenly, in any number."""

Assigned = NDArray[np.int8]
"""The index of the split of each row in `SPLITS`, shape `(rows,)`."""


class RandomSplit:
    """Splits rows at random, piece by piece, so that each split has its fraction of every stratum.

    A row's split depends on its stratum, and on the number of rows of that stratum before it: it stays the same when
    rows are appended. Of every 20 rows in turn each split gets its fraction, but for rounding.

    Args:
        fractions: of training, validation and test rows; their sum is 1.
        seed: of the split.

    >>> RandomSplit((0.6, 0.2, 0.2), seed=0).of(np.zeros(200, dtype=np.int64)).tolist().count(0)
    120
    """

    def __init__(self, fractions: Sequence[float], seed: int) -> None:
        self._edges, self._seed = np.cumsum(fractions)[:2], seed
        self._rows: Counter[int] = Counter()  # so far, by stratum

    def of(self, strata: NDArray[np.int64]) -> Assigned:
        """The splits of the next rows.

        Args:
            strata: number of each row's stratum, such as its class, shape `(rows,)`.
        """
        drawn = np.empty(len(strata))
        for stratum in np.unique(strata).tolist():
            rows = np.flatnonzero(strata == stratum)
            drawn[rows] = self._drawn(stratum, self._rows[stratum], len(rows))
            self._rows[stratum] += len(rows)
        return np.asarray(np.searchsorted(self._edges, drawn, side="right"), dtype=np.int8)

    def _drawn(self, stratum: int, first: int, count: int) -> NDArray[np.float64]:
        """A number from 0 to 1 for each of some rows of a stratum."""
        blocks = range(first // _BLOCK, -(-(first + count) // _BLOCK))
        places = [np.random.default_rng([self._seed, stratum, block]).permutation(_BLOCK) for block in blocks]
        # every block is moved by another part of a place, evenly spread: rounding favours no split in all blocks alike
        shifts = (np.random.default_rng([self._seed, stratum]).random() + _GOLDEN * np.array(blocks)) % 1
        drawn = ((np.stack(places) + shifts[:, None]) / _BLOCK).reshape(-1)
        return drawn[first - blocks.start * _BLOCK :][:count]


class GroupSplit:
    """Splits groups at random, piece by piece: all rows of a group are in one split.

    Args:
        fractions, seed: as for `RandomSplit`.
    """

    def __init__(self, fractions: Sequence[float], seed: int) -> None:
        self._random = RandomSplit(fractions, derive(seed, "groups") % 2**32)
        self._numbers: dict[Any, int] = {}
        self._of_group = np.zeros(0, dtype=np.int8)

    def of(self, groups: NDArray[Any]) -> Assigned:
        """The splits of the next rows; `groups` names the group of each, shape `(rows,)`."""
        numbers, known = self._numbers, len(self._numbers)
        of_row = np.array([numbers.setdefault(group, len(numbers)) for group in groups.tolist()])
        if len(numbers) > known:
            new = self._random.of(np.zeros(len(numbers) - known, dtype=np.int64))
            self._of_group = np.concatenate([self._of_group, new])
        return np.asarray(self._of_group[of_row])


def at_random(strata: NDArray[np.int64], fractions: Sequence[float], seed: int) -> Assigned:
    """Split rows at random, as `RandomSplit`."""
    return RandomSplit(fractions, seed).of(strata)


def by_group(groups: NDArray[Any], fractions: Sequence[float], seed: int) -> Assigned:
    """Split groups at random, as `GroupSplit`."""
    return GroupSplit(fractions, seed).of(groups)


def by_time(times: NDArray[np.float64], fractions: Sequence[float]) -> Assigned:
    """Split by time: the first rows train, the last ones test; rows of the same time stay together.

    >>> by_time(np.array([3.0, 1.0, 2.0, 5.0, 4.0]), (0.6, 0.2, 0.2)).tolist()
    [0, 0, 0, 2, 1]
    """
    ordered = np.sort(times)
    return after(ordered[time_ranks(len(times), fractions)], times)


def time_ranks(rows: int, fractions: Sequence[float]) -> list[int]:
    """Which of the times, in order, begin the validation and the test rows."""
    return [min(rows - 1, round(rows * share)) for share in np.cumsum(fractions)[:2]]


def after(begin: NDArray[np.float64], times: NDArray[np.float64]) -> Assigned:
    """The split of each row by its time; `begin` holds the first times of validation and test."""
    return np.asarray(np.searchsorted(begin, times, side="right"), dtype=np.int8)


_NAMES = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "test": 2}


def by_column(name: str, values: NDArray[Any]) -> Assigned:
    """Split by a column that names the split of each row.

    Raises:
        TableError: a value names no split.
    """
    others = sorted({str(value) for value in values if str(value).lower() not in _NAMES})
    if others:
        raise TableError(
            f"data.split={name}: the column holds {', '.join(map(repr, others[:5]))}. Its values have to be "
            f"{', '.join(SPLITS)}."
        )
    return np.array([_NAMES[str(value).lower()] for value in values], dtype=np.int8)
