"""Means and deviations of columns on disk are those of numpy, to the last bit, however the rows are cut."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from holdfast.caching.moments import moments
from tests.full import some

Values = NDArray[np.float64]
Draw = np.random.Generator

KINDS: dict[str, Callable[[Draw, int], Values]] = {
    "normal": lambda draw, rows: draw.normal(size=rows),
    "far from zero": lambda draw, rows: 1e9 + draw.normal(size=rows),
    "of all sizes": lambda draw, rows: draw.normal(size=rows) * 10.0 ** draw.integers(-30, 30, rows),
    "equal": lambda draw, rows: np.full(rows, 0.1),
    "zeros": lambda draw, rows: draw.choice([0.0, -0.0], rows),
    "negative zeros": lambda draw, rows: np.full(rows, -0.0),
    "denormal": lambda draw, rows: draw.choice([5e-324, -5e-324, 1e-310], rows),
    "huge": lambda draw, rows: draw.choice([1e100, -1e100, 1.0], rows),
}
ROWS = (1, 2, 7, 8, 9, 127, 128, 129, 1000, 32_767, 32_768, 32_769, 65_536, 65_537, 98_304, 100_003, 262_151, 300_000)


def bits(values: Values) -> list[bytes]:
    return [each.tobytes() for each in np.asarray(values)]


@pytest.mark.parametrize("rows", some(ROWS, 2))
def test_the_same_bits_as_numpy(rows: int) -> None:
    draw = np.random.default_rng(rows)
    columns = np.stack([make(draw, rows) for make in KINDS.values()])
    expected = [bits([column.copy().mean() for column in columns]), bits([column.copy().std() for column in columns])]
    for number in (0, 1, 5, 40):
        cuts = np.sort(draw.integers(0, rows + 1, number))
        found = moments(lambda cuts=cuts: np.split(columns, cuts, axis=1), rows)
        assert [bits(each) for each in found] == expected


@pytest.mark.parametrize("seed", some(range(30), 5))
def test_random_lengths(seed: int) -> None:
    draw = np.random.default_rng(seed)
    rows = int(draw.integers(1, 150_000))
    column = draw.lognormal(3, 4, rows)
    pieces = np.split(column[None], np.sort(draw.integers(0, rows + 1, 20)), axis=1)
    mean, deviation = moments(lambda: pieces, rows)
    assert (mean[0], deviation[0]) == (column.mean(), column.std())
