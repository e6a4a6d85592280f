"""Which columns of a table are features and targets, and what they are encoded by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from holdfast.errors import TableError
from holdfast.tables.columns import Column
from holdfast.tables.encoding import MOST_LEVELS, Feature, Target, class_names, fit_feature, fit_target

_TOO_MANY_LEVELS = 1000
"""Different texts of a column from which it is refused."""

_FEW_VALUES = 20
"""Different whole numbers up to which a target may be one of classes."""

_LARGEST_CLASS = 2**53
"""Below it all whole numbers differ in double precision."""

_INDEX_NAMES = frozenset({"", "Unnamed: 0", "index"})


def is_classification(
    task: str, columns: Mapping[str, Column], targets: Sequence[str], where: Callable[[int], str]
) -> bool:
    """Whether the targets are classes.

    Args:
        task: "auto", "regression" or "classification".
        columns: of the table.
        targets: names of the targets.
        where: the place of a row, for a message.

    Raises:
        TableError: a target cannot be one, or whether it holds classes has to be said.
    """
    for name in targets:
        _check_target(name, columns[name], where)
    first = columns[targets[0]]
    if task == "classification" and len(targets) > 1:
        raise TableError("data.task=classification has one target: give one column as data.target.")
    text = next((name for name in targets if columns[name].kind == "text"), None)
    if text is not None and (task == "regression" or len(targets) > 1):
        raise TableError(
            f"data.target={text} holds texts, which are classes: a regression needs numbers. Give another column."
        )
    if task != "auto":
        return task == "classification"
    if first.kind in ("text", "boolean"):
        return True
    values = np.unique(first.values)
    if first.whole and len(targets) == 1 and 2 <= len(values) <= _FEW_VALUES:
        raise TableError(
            f"data.target={targets[0]} has {len(values)} different whole numbers: these may be classes or "
            "amounts. Say which: data.task=classification or data.task=regression."
        )
    return False


def _check_target(name: str, column: Column, where: Callable[[int], str]) -> None:
    if column.missing.all():
        raise TableError(f"data.target={name} is an empty column: give one that holds what is to be predicted.")
    if column.missing.any():
        rows = np.flatnonzero(column.missing)
        raise TableError(
            f"{where(int(rows[0]))}: data.target={name} is missing, in {len(rows)} of {len(column.values)} rows. A "
            "row without a target cannot be trained on or measured: remove such rows."
        )
    if column.kind == "date":
        raise TableError(f"data.target={name} is a date: give a column of numbers or of classes.")


def choose_features(
    columns: Mapping[str, Column], train: NDArray[np.bool_], said: list[str], *, chosen: bool, standardise: bool
) -> list[Feature]:
    """The features, without the columns that nothing can be learned from.

    Args:
        columns: those that may be features.
        train: the training rows.
        said: what the user should know is added to it.
        chosen: whether the user has named the columns.
        standardise: whether numbers get mean 0 and standard deviation 1.

    Raises:
        TableError: a column holds dates or too many texts.
    """
    features, dropped = list[Feature](), dict[str, str]()
    for name, column in columns.items():
        values, missing = column.values[train], column.missing[train]
        distinct = len(set(values[~missing].tolist()))
        if reason := _useless(name, column, distinct, len(values), any_missing=bool(missing.any()), chosen=chosen):
            dropped[name or "(unnamed)"] = reason
            continue
        if column.kind == "date":
            raise TableError(
                f"column {name!r} holds dates, which are no feature: leave it out, data.drop=[{name}], or split the "
                f"rows by it, data.time={name}"
            )
        if column.kind == "text" and distinct > _TOO_MANY_LEVELS:
            raise TableError(
                f"column {name!r} holds {distinct:,} different texts, of which at most {_TOO_MANY_LEVELS:,} can be "
                f"learned from. Leave it out: data.drop=[{name}]"
            )
        if column.kind == "text" and distinct > MOST_LEVELS:
            said.append(f"{name}: the {MOST_LEVELS} commonest of {distinct} texts; all others are one")
        features.append(fit_feature(name, column, train, standardise=standardise))
    if dropped:
        said.append("left out: " + ", ".join(f"{name} ({why})" for name, why in dropped.items()))
    if not features:
        raise TableError(
            f"no column is left to predict from{': ' + said[-1] if dropped else ''}. Give a table with other columns "
            "than the target, and look at data.columns and data.drop."
        )
    return features


def _useless(name: str, column: Column, distinct: int, rows: int, *, any_missing: bool, chosen: bool) -> str:
    """Why nothing can be learned from a column; "" if something can."""
    if distinct == 0:
        return "empty"
    if distinct == 1 and not any_missing:
        return "constant"
    if not chosen and name in _INDEX_NAMES and column.whole and distinct == rows:
        return "an index"
    if column.kind == "text" and distinct == rows and distinct > _FEW_VALUES:
        return "a different text in every row"
    return ""


def choose_targets(
    columns: Mapping[str, Column],
    targets: Sequence[str],
    split: NDArray[np.int8],
    *,
    classes: bool,
) -> Iterator[Target]:
    """The targets, as they are trained on.

    Args:
        columns: of the table.
        targets: names of the targets.
        split: of each row.
        classes: whether they are classes.

    Raises:
        TableError: there is nothing to learn, or nothing to learn a class from.
    """
    train = split == 0
    for name in targets:
        column = columns[name]
        target = fit_target(name, column, train, is_class=classes)
        if classes:
            if column.kind == "number" and np.abs(column.values).max() >= _LARGEST_CLASS:
                raise TableError(
                    f"data.target={name} has classes from {_LARGEST_CLASS} on, of which neighbours are the same number "
                    "in double precision: write them as texts, with a letter before the digits."
                )
            if len(target.classes) < 2:
                raise TableError(
                    f"data.target={name} has one class among the training rows, {target.classes[0]!r}: there is "
                    "nothing to learn. Give another column, or rows of several classes."
                )
            if set(class_names(column, ~train)) - set(target.classes):
                raise TableError(
                    f"data.target={name}: a class is among the validation or test rows, and not "
                    "among the training rows. Give other data.fractions or another data.seed, or remove such rows."
                )
        elif np.ptp(column.values[train]) == 0:
            raise TableError(
                f"data.target={name} is {target.mean:g} in every training row: there is nothing to "
                "learn. Give another column, or rows that differ."
            )
        yield target
