"""Synthetic rows made from a seed: the course's line, and linear functions of many features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from holdfast.config.rules import count
from holdfast.data.order import Rows
from holdfast.data.seeding import derive
from holdfast.data.split import Split, split_rows


def line(
    split: Split,
    *,
    start: float = -3.0,
    stop: float = 3.0,
    step: float = 0.1,
    slope: float = -3.0,
    intercept: float = 1.0,
    noise: float = 0.1,
    outliers: Mapping[int | str, float] | None = None,
    seed: int = 0,
) -> Rows:
    """Make points on a line: `y = slope * x + intercept + noise * N(0, 1)`.

    All splits have the same x. Each split has different noise, and only training rows have outliers.

    Args:
        split: the split to make.
        start, stop, step: x runs from start in steps of step, up to but not including stop.
        slope, intercept: of the line.
        noise: standard deviation of the noise, in units of y.
        outliers: y of single training rows, `{0: 0.0}`, or of ranges of rows, `{"50:55": 20.0}`; None for none.
        seed: seed of the noise.

    Returns:
        x and y, each of shape `(rows, 1)`.

    >>> len(line("train")), line("val", noise=0.0)[0:2][1].tolist()
    (60, [[10.0], [9.699999809265137]])
    """
    # whole steps times 0.1: adding 0.1 sixty times would accumulate rounding errors
    x = start + step * torch.arange(count(start, stop, step), dtype=torch.float64).unsqueeze(1)
    generator = torch.Generator().manual_seed(derive(seed, "noise", split))
    y = slope * x + intercept + noise * torch.randn(x.shape, dtype=torch.float64, generator=generator)
    for rows, value in (outliers or {}).items() if split == "train" else ():
        first, _, end = str(rows).partition(":")
        y[int(first) : int(end or int(first) + 1)] = value
    return Rows(x.float(), y.float())


def linear(
    split: Split,
    *,
    rows: int = 1000,
    features: int = 8,
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    noise: float = 0.1,
    outlier_fraction: float = 0.0,
    seed: int = 0,
) -> Rows:
    """Make rows of a random linear function: `y = x w + b + noise * N(0, 1)` with x, w and b from N(0, 1).

    Outliers replace y of some training rows by draws from N(0, (10 s)^2), where s is the standard deviation of the y of
    the training rows.

    Args:
        split: the split to make.
        rows: number of rows of all splits together.
        features: columns of x.
        fractions: fraction of training, validation and test rows; their sum is 1.
        noise: standard deviation of the noise, in units of y.
        outlier_fraction: fraction of the training rows that are outliers.
        seed: seed of x, w, b, the noise, the split and the outliers.

    Returns:
        x of shape `(rows of the split, features)` and y of shape `(rows of the split, 1)`.

    >>> len(linear("train")), len(linear("val")), len(linear("test"))
    (600, 200, 200)
    """
    generator = torch.Generator().manual_seed(derive(seed, "linear"))
    x = torch.randn(rows, features, generator=generator)
    weight, bias = torch.randn(features, 1, generator=generator), torch.randn(1, generator=generator)
    y = x @ weight + bias + noise * torch.randn(rows, 1, generator=generator)
    index = split_rows(rows, fractions, generator)[split]
    x, y = x.index_select(0, index), y.index_select(0, index)
    if split == "train":
        outliers = torch.randperm(len(y), generator=generator)[: round(len(y) * outlier_fraction)]
        y[outliers] = 10 * y.std(correction=0) * torch.randn(len(outliers), 1, generator=generator)
    return Rows(x, y)
