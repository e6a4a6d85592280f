"""What a user should know of a table before it is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from holdfast.tables.columns import Column
from holdfast.tables.encoding import Encoding

_FEW_TEST_ROWS = 30
NEARLY_ONE = 0.9999
"""Correlation of a feature with a target from which it is named."""

_MOST_NAMED = 12


def summary(encoding: Encoding, missing: Mapping[str, int], counts: Sequence[int]) -> list[str]:
    """What is predicted from what, and how many rows there are.

    Args:
        encoding: of the table.
        missing: of each feature the number of training rows without a value.
        counts: training, validation and test rows.
    """
    names = [
        f"{each.name} (text, {len(each.levels)} levels)" if each.kind == "text" else each.name or "(unnamed)"
        for each in encoding.features
    ]
    more = len(names) - _MOST_NAMED
    shown = ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    what = f"classes {', '.join(encoding.classes[:_MOST_NAMED])}" if encoding.classes else "a number"
    targets = ", ".join(target.name for target in encoding.targets)
    lines = [f"table: {targets} ({what}) from {len(names)} column{'s' * (len(names) > 1)}: {shown}"]
    if some := [f"{name} {count}" for name, count in missing.items() if count]:
        lines.append(f"missing values in training rows, which are filled: {', '.join(some)}")
    return [*lines, f"{counts[0]:,} training, {counts[1]:,} validation, {counts[2]:,} test rows"]


def warnings(counts: Sequence[int], shared: int, alone: Sequence[tuple[str, str]], about: str = "") -> Iterator[str]:
    """What may be wrong.

    Args:
        counts: training, validation and test rows.
        shared: rows whose values are those of a row in another split.
        alone: features, each with a target that it predicts almost perfectly.
        about: "about " where the number of shared rows is an estimate.
    """
    if counts[2] < _FEW_TEST_ROWS:
        yield f"warning: {counts[2]} test rows are few: what they say of the winner is uncertain"
    if shared:
        yield f"warning: {about}{shared:,} rows are in more than one split, with the same values in all used columns"
    for name, target in alone:
        yield f"warning: {name} alone predicts {target} almost perfectly: is it known beforehand?"


def correlated(encoding: Encoding, columns: Mapping[str, Column], train: NDArray[np.bool_]) -> list[tuple[str, str]]:
    """The features that alone predict a target almost perfectly, each with the target.

    Args:
        encoding: of the table.
        columns: its features and targets.
        train: the training rows.
    """
    pairs = []
    for each in encoding.features:
        for target in () if encoding.classes or each.kind != "number" else encoding.targets:
            x, y = columns[each.name].values[train], columns[target.name].values[train]
            both = ~np.isnan(x)
            varies = both.sum() > 2 and np.ptp(x[both]) > 0 and np.ptp(y[both]) > 0
            if varies and abs(np.corrcoef(x[both], y[both])[0, 1]) > NEARLY_ONE:
                pairs.append((each.name, target.name))
    return pairs


def shared_rows(columns: Sequence[Column], split: NDArray[np.int8]) -> int:
    """Rows whose values are those of a row in another split."""
    # only texts are compared as such: it takes ten times as long as comparing numbers
    values = [each.values.astype(str) if each.kind == "text" else each.values for each in columns]
    codes = np.stack([np.unique(each, return_inverse=True)[1] for each in values], 1)
    _, index = np.unique(codes, axis=0, return_inverse=True)
    present = np.zeros((index.max() + 1, 3), dtype=bool)
    present[index.reshape(-1), split] = True
    return int((present.sum(1) > 1)[index.reshape(-1)].sum())
