"""Which rows of a table belong to training, validation and test."""

from __future__ import annotations

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


def at_random(strata: NDArray[np.int64], fractions: Sequence[float], seed: int) -> Assigned:
    """Split rows at random, so that each split has its fraction of every stratum.

    A row's split depends on its stratum, and on the number of rows of that stratum before it: it stays the same when
    rows are appended. Of every 20 rows in turn each split gets its fraction, but for rounding.

    Args:
        strata: number of each row's stratum, such as its class, shape `(rows,)`.
        fractions: of training, validation and test rows; their sum is 1.
        seed: of the split.

    >>> at_random(np.zeros(200, dtype=np.int64), (0.6, 0.2, 0.2), seed=0).tolist().count(0)
    120
    """
    drawn = np.empty(len(strata))
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        blocks = -(-len(rows) // _BLOCK)
        places = [np.random.default_rng([seed, int(stratum), block]).permutation(_BLOCK) for block in range(blocks)]
        # every block is moved by another part of a place, evenly spread: rounding favours no split in all blocks alike
        shifts = (np.random.default_rng([seed, int(stratum)]).random() + _GOLDEN * np.arange(blocks)) % 1
        drawn[rows] = ((np.stack(places) + shifts[:, None]) / _BLOCK).reshape(-1)[: len(rows)]
    edges = np.cumsum(fractions)[:2]
    return np.asarray(np.searchsorted(edges, drawn, side="right"), dtype=np.int8)


def by_group(groups: NDArray[Any], fractions: Sequence[float], seed: int) -> Assigned:
    """Split groups at random: all rows of a group are in one split."""
    numbers: dict[Any, int] = {}
    of_row = np.array([numbers.setdefault(group, len(numbers)) for group in groups])
    of_group = at_random(np.zeros(len(numbers), dtype=np.int64), fractions, derive(seed, "groups") % 2**32)
    return np.asarray(of_group[of_row])


def by_time(times: NDArray[np.float64], fractions: Sequence[float]) -> Assigned:
    """Split by time: the first rows train, the last ones test; rows of the same time stay together.

    >>> by_time(np.array([3.0, 1.0, 2.0, 5.0, 4.0]), (0.6, 0.2, 0.2)).tolist()
    [0, 0, 0, 2, 1]
    """
    ordered = np.sort(times)
    ends = [ordered[min(len(times) - 1, round(len(times) * share))] for share in np.cumsum(fractions)[:2]]
    return np.asarray(np.searchsorted(np.array(ends), times, side="right"), dtype=np.int8)


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
