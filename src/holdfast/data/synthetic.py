"""Rows made from a seed: the course's line, and linear functions of many features."""

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
    """Points on a line: `y = slope * x + intercept + noise * N(0, 1)`.

    The three splits share their x; each has noise of its own, and only training rows carry outliers.

    Args:
        split: which rows to make.
        start, stop, step: x runs from start by step, up to but not including stop.
        slope, intercept: the line.
        noise: standard deviation of the noise, in units of y.
        outliers: y of single training rows, `{0: 0.0}`, or of ranges, `{"50:55": 20.0}`; None for none.
        seed: of the noise.

    Returns:
        x and y, each of shape `(rows, 1)`.

    >>> len(line("train")), line("val", noise=0.0)[0:2][1].tolist()
    (60, [[10.0], [9.699999809265137]])
    """
    # counted in whole steps: adding 0.1 sixty times would drift
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
    """A random linear function: `y = x w + b + noise * N(0, 1)` with x, w and b from N(0, 1).

    Outliers replace y of some training rows by draws from N(0, (10 s)^2), s being the deviation of y.

    Args:
        split: which rows to make.
        rows: rows of all splits together.
        features: columns of x.
        fractions: share of train, validation and test rows; sum 1.
        noise: standard deviation of the noise, in units of y.
        outlier_fraction: share of training rows that are outliers.
        seed: of everything here.

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
        spoilt = torch.randperm(len(y), generator=generator)[: round(len(y) * outlier_fraction)]
        y[spoilt] = 10 * y.std(correction=0) * torch.randn(len(spoilt), 1, generator=generator)
    return Rows(x, y)
