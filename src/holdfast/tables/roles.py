"""Which columns of a table are features and targets, and what they are encoded by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from holdfast.errors import TableError
from holdfast.tables.encoding import MOST_LEVELS, Feature, Target, fit_feature
from holdfast.tables.facts import Classes, Facts

_TOO_MANY_LEVELS = 1000
"""Different texts of a column from which it is refused."""

FEW_VALUES = 20
"""Different whole numbers up to which a target may be one of classes."""

_LARGEST_CLASS = 2**53
"""Below it all whole numbers differ in double precision."""

INDEX_NAMES = frozenset({"", "Unnamed: 0", "index"})


class Values(NamedTuple):
    """What is known of a target over all rows of its table, of test rows too: nothing is computed from the values.

    Attributes:
        kind: what they are.
        whole: whether all are whole numbers, written without a fraction.
        rows: number of rows.
        missing: those without a value.
        distinct: different values; it may stop at `FEW_VALUES` + 1.
        largest: the largest absolute value.
    """

    kind: str
    whole: bool
    rows: int
    missing: int
    distinct: int
    largest: float = 0.0


def is_classification(task: str, targets: Mapping[str, Values]) -> bool:
    """Whether the targets are classes.

    Args:
        task: "auto", "regression" or "classification".
        targets: what is known of each target.

    Raises:
        TableError: a target cannot be one, or whether it holds classes has to be said.
    """
    first_name, first = next(iter(targets.items()))
    for name, values in targets.items():
        if values.kind == "date":
            raise TableError(f"data.target={name} is a date: give a column of numbers or of classes.")
    if task == "classification" and len(targets) > 1:
        raise TableError("data.task=classification has one target: give one column as data.target.")
    text = next((name for name, values in targets.items() if values.kind == "text"), None)
    if text is not None and (task == "regression" or len(targets) > 1):
        raise TableError(
            f"data.target={text} holds texts, which are classes: a regression needs numbers. Give another column."
        )
    truth = next((name for name, values in targets.items() if values.kind == "boolean"), None)
    if truth is not None and len(targets) > 1:
        raise TableError(
            f"data.target={truth} holds true and false, which are classes, and a classification has one target: give "
            "one column, or columns of numbers."
        )
    if task != "auto":
        return task == "classification"
    if first.kind in ("text", "boolean"):
        return True
    if first.whole and len(targets) == 1 and 2 <= first.distinct <= FEW_VALUES:
        raise TableError(
            f"data.target={first_name} has {first.distinct} different whole numbers: these may be classes or "
            "amounts. Say which: data.task=classification or data.task=regression."
        )
    return False


def check_target(name: str, values: Values, first_missing: str) -> None:
    """Refuse a target that is missing in some rows.

    Args:
        name: of the target.
        values: what is known of it.
        first_missing: the place of the first row without it.

    Raises:
        TableError: it is.
    """
    if values.missing == values.rows:
        raise TableError(f"data.target={name} is an empty column: give one that holds what is to be predicted.")
    if values.missing:
        raise TableError(
            f"{first_missing}: data.target={name} is missing, in {values.missing} of {values.rows} rows. A "
            "row without a target cannot be trained on or measured: remove such rows."
        )


def choose_features(columns: Mapping[str, Facts], said: list[str], *, chosen: bool, standardise: bool) -> list[Feature]:
    """The features, without the columns that nothing can be learned from.

    Args:
        columns: those that may be features.
        said: what the user should know is added to it.
        chosen: whether the user has named the columns.
        standardise: whether numbers get mean 0 and standard deviation 1.

    Raises:
        TableError: a column holds dates or too many texts.
    """
    features, dropped = list[Feature](), dict[str, str]()
    for name, facts in columns.items():
        if reason := _useless(name, facts, chosen=chosen):
            dropped[name or "(unnamed)"] = reason
            continue
        if facts.kind == "date":
            raise TableError(
                f"column {name!r} holds dates, which are no feature: leave it out, data.drop=[{name}], or split the "
                f"rows by it, data.time={name}"
            )
        if facts.kind == "text" and facts.distinct > _TOO_MANY_LEVELS:
            raise TableError(
                f"column {name!r} holds {facts.distinct:,} different texts, of which at most {_TOO_MANY_LEVELS:,} can "
                f"be learned from. Leave it out: data.drop=[{name}]"
            )
        if facts.kind == "text" and facts.distinct > MOST_LEVELS:
            said.append(f"{name}: the {MOST_LEVELS} commonest of {facts.distinct} texts; all others are one")
        features.append(fit_feature(name, facts, standardise=standardise))
    if dropped:
        said.append("left out: " + ", ".join(f"{name} ({why})" for name, why in dropped.items()))
    if not features:
        raise TableError(
            f"no column is left to predict from{': ' + said[-1] if dropped else ''}. Give a table with other columns "
            "than the target, and look at data.columns and data.drop."
        )
    return features


def _useless(name: str, facts: Facts, *, chosen: bool) -> str:
    """Why nothing can be learned from a column; "" if something can."""
    if facts.distinct == 0:
        return "empty"
    if facts.distinct == 1 and not facts.missing:
        return "constant"
    differs = facts.distinct == facts.rows
    if not chosen and name in INDEX_NAMES and facts.whole and differs:
        return "an index"
    if facts.kind == "text" and differs and facts.distinct > FEW_VALUES:
        return "a different text in every row"
    return ""


def regression_target(name: str, facts: Facts) -> Target:
    """A target of a regression, which is trained on (y - mean) / deviation.

    Raises:
        TableError: it has one value: there is nothing to learn.
    """
    if facts.is_constant:
        raise TableError(
            f"data.target={name} is {facts.mean:g} in every training row: there is nothing to "
            "learn. Give another column, or rows that differ."
        )
    return Target(name, facts.mean, facts.deviation or 1.0)


def class_target(name: str, values: Values, classes: Classes) -> Target:
    """A target of a classification.

    Args:
        name: of the target.
        values: what is known of it over all rows.
        classes: its classes.

    Raises:
        TableError: there is nothing to learn, or nothing to learn a class from.
    """
    if values.kind == "number" and values.largest >= _LARGEST_CLASS:
        raise TableError(
            f"data.target={name} has classes from {_LARGEST_CLASS} on, of which neighbours are the same number "
            "in double precision: write them as texts, with a letter before the digits."
        )
    if len(classes.train) < 2:
        raise TableError(
            f"data.target={name} has one class among the training rows, {min(classes.train)!r}: there is "
            "nothing to learn. Give another column, or rows of several classes."
        )
    if classes.others - classes.train:
        raise TableError(
            f"data.target={name}: a class is among the validation or test rows, and not "
            "among the training rows. Give other data.fractions or another data.seed, or remove such rows."
        )
    return Target(name, classes=tuple(sorted(classes.train)))
