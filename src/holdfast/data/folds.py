"""Folds: training and validation rows together, in parts, each of which is validated on by one of several jobs.

Folds have equal numbers of rows, so that their jobs share a stack. The few rows that are left over are trained on in
every fold, and validated on in none.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from holdfast.config.fold import Fold
from holdfast.data.seeding import derive
from holdfast.errors import DataError

Mask = NDArray[np.bool_]


class Parts(NamedTuple):
    """Which rows are trained on, and which are validated on, each of shape `(rows,)`."""

    train: Mask
    val: Mask


def at_random(strata: NDArray[np.int64], fold: Fold) -> Parts:
    """Folds at random, each with equal numbers of rows of every stratum.

    Args:
        strata: number of each row's stratum, such as its class, shape `(rows,)`.
        fold: with a number.

    Raises:
        DataError: there are fewer rows than folds.

    >>> at_random(np.array([0, 0, 0, 0, 1, 1]), Fold(0, 2)).val.tolist().count(True)
    3
    """
    check_count(len(strata), fold, "rows")
    generator = np.random.default_rng(derive(0, "folds"))
    of_fold, left = list[Any](), list[Any]()
    for stratum in np.unique(strata).tolist():
        rows = generator.permutation(np.flatnonzero(strata == stratum))
        of_fold.append(_nth(rows, fold))
        left.append(rows[len(rows) // fold.folds * fold.folds :])
    # dealt out in turn, so that the few rows of a rare stratum get into different folds
    rest = np.concatenate([left[stratum] for stratum in generator.permutation(len(left))])
    of_fold.append(rest[: len(rest) // fold.folds * fold.folds][fold.number :: fold.folds])
    return _parts(len(strata), np.concatenate(of_fold))


def by_group(groups: NDArray[Any], fold: Fold) -> Parts:
    """Folds of whole groups, with nearly equal numbers of rows: the largest group goes to the smallest fold, and so on.

    Args:
        groups: names the group of each row, shape `(rows,)`.
        fold: with a number.

    Raises:
        DataError: there are fewer groups than folds.
    """
    names, of_row, sizes = np.unique(groups.astype(str), return_inverse=True, return_counts=True)
    check_count(len(names), fold, "groups")
    order = np.random.default_rng(derive(0, "folds")).permutation(len(names))
    total, of_group = np.zeros(fold.folds, dtype=np.int64), np.empty(len(names), dtype=np.int64)
    for group in order[np.argsort(-sizes[order], kind="stable")].tolist():
        of_group[group] = smallest = int(total.argmin())
        total[smallest] += sizes[group]
    return _parts(len(groups), np.flatnonzero(of_group[of_row] == fold.number))


def by_time(times: NDArray[np.float64], fold: Fold) -> Parts:
    """Folds by time: each is validated on one part of the rows, and trained on all parts before it.

    There is one part more than there are folds. Rows of the same time stay together.

    Args:
        times: of each row, shape `(rows,)`.
        fold: with a number.

    Raises:
        DataError: there are fewer different times than parts.

    >>> by_time(np.arange(6.0), Fold(0, 2))[0].tolist(), by_time(np.arange(6.0), Fold(0, 2))[1].tolist()
    ([True, True, False, False, False, False], [False, False, True, True, False, False])
    """
    ordered, parts = np.sort(times), fold.folds + 1
    begins = ordered[[round(len(times) * part / parts) for part in range(1, parts)]] if len(times) >= parts else ()
    part_of = np.searchsorted(np.asarray(begins), times, side="right")
    if len(np.unique(part_of)) < parts:
        raise DataError(f"{fold.folds} folds by time need {parts} parts with different times: give fewer folds.")
    assert fold.number is not None
    return Parts(part_of <= fold.number, part_of == fold.number + 1)


def check_count(found: int, fold: Fold, what: str) -> None:
    """Refuse more folds than there is anything to fill them with.

    Raises:
        DataError: with both numbers.
    """
    if found < fold.folds:
        raise DataError(f"{fold.folds} folds need as many {what}, and there are {found}: give fewer folds.")


def _nth(rows: NDArray[np.int64], fold: Fold) -> NDArray[np.int64]:
    """The rows of a fold, of rows in a random order."""
    assert fold.number is not None
    size = len(rows) // fold.folds
    return rows[fold.number * size : (fold.number + 1) * size]


def _parts(rows: int, of_fold: NDArray[np.int64]) -> Parts:
    val = np.zeros(rows, dtype=bool)
    val[of_fold] = True
    return Parts(~val, val)
