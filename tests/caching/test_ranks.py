"""Medians and ranks of columns on disk are those of sorted columns in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from holdfast.caching.ranks import medians, values_at
from tests.full import some

Values = NDArray[np.float64]
Draw = np.random.Generator

BEYOND = 20_000
"""More values than are collected to be sorted, so that all passes are needed where they are equal."""


def read(columns: dict[str, Values], draw: Draw) -> Callable[[Sequence[str]], Iterator[Values]]:
    """A function that reads columns in pieces of random lengths, some of them empty."""
    rows = len(next(iter(columns.values())))
    cuts = np.sort(draw.integers(0, rows + 1, int(draw.integers(0, 9))))

    def pieces(names: Sequence[str]) -> Iterator[Values]:
        whole = np.stack([columns[name] for name in names])
        yield from np.split(whole, cuts, axis=1)

    return pieces


def check(columns: dict[str, Values], draw: Draw) -> None:
    """Compare medians, and the values of some ranks, with those of numpy; -0.0 is 0.0."""
    present = {name: values[~np.isnan(values)] for name, values in columns.items()}
    counts = {name: len(values) for name, values in present.items()}
    found = medians(read(columns, draw), counts)
    assert found == {name: float(np.median(values)) for name, values in present.items()}
    ranks = {name: [0, count - 1, *draw.integers(0, count, 3).tolist()] for name, count in counts.items()}
    expected = {name: np.sort(values)[ranks[name]].tolist() for name, values in present.items()}
    assert values_at(read(columns, draw), counts, ranks) == expected


KINDS: dict[str, Callable[[Draw, int], Values]] = {
    "normal": lambda draw, rows: draw.normal(size=rows),
    "whole": lambda draw, rows: draw.integers(-5, 5, rows).astype(float),
    "zeros": lambda draw, rows: draw.choice([0.0, -0.0], rows),
    "denormal": lambda draw, rows: draw.choice([5e-324, -5e-324, 0.0, 1e-310, -2.5e-309, 2.2e-308], rows),
    "extreme": lambda draw, rows: draw.choice([1e100, -1e100, 1e-300, 1.0], rows),
    "neighbours": lambda draw, rows: (np.float64(0.1).view(np.int64) + draw.integers(0, 40, rows)).view(np.float64),
    "some missing": lambda draw, rows: np.where(draw.random(rows) < 0.5, np.nan, draw.normal(size=rows)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", some([1, 2, 3, 60_000, 100, 4097, 300_000], 3))
def test_columns_of_many_kinds(kind: str, rows: int) -> None:
    draw = np.random.default_rng(rows)
    columns = {"a": KINDS[kind](draw, rows), "b": KINDS["normal"](draw, rows)}
    columns["a"][0] = 1.5  # at least one value is there
    check(columns, draw)


@pytest.mark.parametrize(
    "value", some([0.1, -0.1, 1 / 3, -1.0, -5e-324, 1e-310, 123456789.123, 1e100, -1e100, 0.0, -0.0], 3)
)
def test_a_value_that_most_rows_have(value: float) -> None:
    draw = np.random.default_rng(0)
    often = np.where(draw.random(3 * BEYOND) < 0.8, value, draw.normal(size=3 * BEYOND))
    check({"equal": np.full(3 * BEYOND, value), "often": often}, draw)


@pytest.mark.parametrize("seed", some(range(8), 3))
def test_few_values_of_any_bits(seed: int) -> None:
    draw = np.random.default_rng(seed)
    bits = draw.integers(0, 2**64, 4, dtype=np.uint64)
    values = np.nan_to_num(bits.view(np.float64), nan=0.3, posinf=1e300, neginf=-1e300)
    values = np.clip(values, -1e100, 1e100)
    columns = {"some": draw.choice(values, 4 * BEYOND), "near": draw.choice(values, 4 * BEYOND)}
    columns["near"] = (columns["near"].view(np.int64) ^ draw.integers(0, 16, 4 * BEYOND)).view(np.float64)
    check(columns, draw)
