"""What is known of a column: all that its encoding, and the choice of features and targets, depend on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from holdfast.tables.columns import Column


class Facts(NamedTuple):
    """What is known of a column; all but the first two over its training rows.

    Attributes:
        kind: of its values.
        whole: whether all are whole numbers, written without a fraction.
        rows: number of training rows.
        missing: those without a value.
        distinct: different values.
        fill: the median of the values that are there; 0 if there is none.
        mean, deviation: with missing values filled.
        is_constant: whether all are the same, with missing values filled.
        levels: of texts, how often each occurs.
    """

    kind: str
    whole: bool
    rows: int
    missing: int
    distinct: int
    fill: float = 0.0
    mean: float = 0.0
    deviation: float = 0.0
    is_constant: bool = False
    levels: Mapping[str, int] = {}


class Classes(NamedTuple):
    """The classes of a target.

    Attributes:
        train: those among the training rows.
        others: those among the other rows.
    """

    train: frozenset[str]
    others: frozenset[str]


def facts_of(column: Column, train: NDArray[np.bool_]) -> Facts:
    """What is known of a column in memory.

    Args:
        column: its values.
        train: the training rows.

    >>> facts_of(Column("number", np.array([1.0, np.nan, 3.0, 9.0])), np.array([True, True, True, False])).mean
    2.0
    """
    values = column.values[train]
    if column.kind == "text":
        levels = Counter(value for value in values.tolist() if value is not None)
        return Facts("text", False, len(values), len(values) - levels.total(), len(levels), levels=levels)
    missing = np.isnan(values)
    present = values[~missing]
    fill = float(np.median(present)) if len(present) else 0.0
    filled = np.where(missing, fill, values)
    return Facts(
        column.kind,
        column.whole,
        len(values),
        int(missing.sum()),
        len(np.unique(present)),
        fill,
        float(filled.mean()) if len(values) else 0.0,
        float(filled.std()) if len(values) else 0.0,
        bool(len(values) and np.ptp(filled) == 0),
    )


def classes_of(column: Column, train: NDArray[np.bool_]) -> Classes:
    """The classes of a target in memory."""
    return Classes(frozenset(class_names(column, train)), frozenset(class_names(column, ~train)))


def class_names(column: Column, rows: NDArray[np.bool_]) -> list[str]:
    """The class of each of some rows, as `class_name`."""
    if column.kind == "text":
        return [str(value) for value in column.values[rows]]
    return [class_name(value, column.kind) for value in column.values[rows].tolist()]


def class_name(value: float, kind: str) -> str:
    """A class that is written as a number or a boolean, as the shortest text: 1, not 1.0."""
    if kind == "boolean":
        return "true" if value else "false"
    return f"{value + 0:.0f}" if value == round(value) else repr(value)
