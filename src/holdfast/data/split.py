"""Which rows belong to training, validation and test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def split_rows(rows: int, fractions: Sequence[float], generator: torch.Generator) -> dict[Split, Tensor]:
    """Deal the row numbers out at random; every row belongs to exactly one split.

    Validation and test get the whole number of rows below their share, training the rest.

    Args:
        rows: how many rows there are.
        fractions: share of train, validation and test rows; sum 1.
        generator: source of the order.

    Returns:
        The row numbers of each split, shape `(rows of the split,)`.

    >>> {name: len(part) for name, part in split_rows(10, [0.6, 0.2, 0.2], torch.Generator()).items()}
    {'train': 6, 'val': 2, 'test': 2}
    """
    # 0.1 * 30 is 3.0000000000000004 and 0.7 * 10 is 7.000000000000001: rounding first keeps such shares whole
    val, test = (int(round(rows * fraction, 9)) for fraction in fractions[1:])
    order = torch.randperm(rows, generator=generator)
    parts = order.split([rows - val - test, val, test])
    return dict(zip(SPLITS, parts, strict=True))
