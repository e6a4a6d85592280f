"""The key `data.fold`: which fold of the training and validation rows a job is validated on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

FOLD = "fold"
"""The key of the group `data`, whatever class its rows are of."""

FOLD_KEY = f"data.{FOLD}"

_TEXT = re.compile(r"(all|\d+)/(\d+)")


class Fold(NamedTuple):
    """One of several equal parts of the rows, which is validated on while the others are trained on.

    Attributes:
        number: from 0; None to train on all of them.
        folds: number of folds.
    """

    number: int | None
    folds: int

    def __str__(self) -> str:
        return f"{'all' if self.number is None else self.number}/{self.folds}"


def fold_of(group: Mapping[str, Any]) -> Fold | None:
    """The fold that a data group names; None without one, or where a class of the user's has a `fold` of its own.

    >>> fold_of({"fold": "0/5"}), fold_of({"fold": 3})
    (Fold(number=0, folds=5), None)
    """
    value = group.get(FOLD)
    found = _TEXT.fullmatch(value) if isinstance(value, str) else None
    return None if found is None else Fold(None if found[1] == "all" else int(found[1]), int(found[2]))


def without_fold(group: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a data group that its class is given."""
    return {key: value for key, value in group.items() if key != FOLD or not (value is None or fold_of(group))}


def check_fold(value: str) -> str | None:
    """What is wrong with a value of `data.fold`; None if nothing is.

    >>> check_fold("5/5")
    'must be 0/5 to 4/5, or all/5'
    """
    fold = fold_of({FOLD: value})
    if fold is None or fold.folds < 2:
        return "must be such as 0/5, the first of five folds, or all/5"
    fits = fold.number is None or fold.number < fold.folds
    return None if fits else f"must be 0/{fold.folds} to {fold.folds - 1}/{fold.folds}, or all/{fold.folds}"
