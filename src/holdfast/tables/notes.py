"""What a user should know of a table before it is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from holdfast.tables.columns import Column
from holdfast.tables.encoding import Encoding

_FEW_TEST_ROWS = 30
_NEARLY_ONE = 0.9999
"""Correlation of a feature with a target from which it is named."""

_MOST_NAMED = 12


def summary(encoding: Encoding, columns: Mapping[str, Column], split: NDArray[np.int8]) -> list[str]:
    """What is predicted from what, and how many rows there are.

    Args:
        encoding: of the table.
        columns: its columns.
        split: of each row.
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
    missing = {each.name: int(columns[each.name].missing[split == 0].sum()) for each in encoding.features}
    if some := [f"{name} {count}" for name, count in missing.items() if count]:
        lines.append(f"missing values in training rows, which are filled: {', '.join(some)}")
    counts = [int((split == number).sum()) for number in range(3)]
    return [*lines, f"{counts[0]:,} training, {counts[1]:,} validation, {counts[2]:,} test rows"]


def warnings(encoding: Encoding, columns: Mapping[str, Column], split: NDArray[np.int8]) -> Iterator[str]:
    """What may be wrong; arguments as for `summary`."""
    tests = int((split == 2).sum())
    if tests < _FEW_TEST_ROWS:
        yield f"warning: {tests} test rows are few: what they say of the winner is uncertain"
    targets = [each.name for each in encoding.targets]
    names = [*(each.name for each in encoding.features), *targets]
    if shared := _shared_rows([columns[name] for name in names], split):
        yield f"warning: {shared:,} rows are in more than one split, with the same values in every column"
    train = split == 0
    for each in encoding.features:
        for name in () if encoding.classes or each.kind != "number" else targets:
            x, y = columns[each.name].values[train], columns[name].values[train]
            both = ~np.isnan(x)
            varies = both.sum() > 2 and np.ptp(x[both]) > 0 and np.ptp(y[both]) > 0
            if varies and abs(np.corrcoef(x[both], y[both])[0, 1]) > _NEARLY_ONE:
                yield f"warning: {each.name} alone predicts {name} almost perfectly: is it known beforehand?"


def _shared_rows(columns: Sequence[Column], split: NDArray[np.int8]) -> int:
    """Rows whose values are those of a row in another split."""
    # only texts are compared as such: it takes ten times as long as comparing numbers
    values = [each.values.astype(str) if each.kind == "text" else each.values for each in columns]
    codes = np.stack([np.unique(each, return_inverse=True)[1] for each in values], 1)
    _, index = np.unique(codes, axis=0, return_inverse=True)
    present = np.zeros((index.max() + 1, 3), dtype=bool)
    present[index.reshape(-1), split] = True
    return int((present.sum(1) > 1)[index.reshape(-1)].sum())
