"""Which rows belong to training, validation and test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def split_rows(rows: int, fractions: Sequence[float], generator: torch.Generator) -> dict[Split, Tensor]:
    """Assign each row to exactly one split, at random.

    Validation and test get their fraction of the rows, rounded down; training gets the rest.

    Args:
        rows: number of rows.
        fractions: fraction of training, validation and test rows; their sum is 1.
        generator: source of the random order.

    Returns:
        The row indices of each split, shape `(rows of the split,)`.

    >>> {name: len(index) for name, index in split_rows(10, [0.6, 0.2, 0.2], torch.Generator()).items()}
    {'train': 6, 'val': 2, 'test': 2}
    """
    # 0.1 * 30 is 3.0000000000000004 and 0.7 * 10 is 7.000000000000001: rounding first keeps such products whole
    val, test = (int(round(rows * fraction, 9)) for fraction in fractions[1:])
    order = torch.randperm(rows, generator=generator)
    return dict(zip(SPLITS, order.split([rows - val - test, val, test]), strict=True))
