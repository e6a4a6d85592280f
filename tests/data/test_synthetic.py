"""Synthetic rows against the formulas that define them; splits are partitions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.data.split import SPLITS, split_rows
from holdfast.data.synthetic import line, linear


def test_the_courses_line() -> None:
    rows = line("train", noise=0.0, outliers={0: 0.0, "50:55": 20.0})
    x = torch.tensor([-3 + row / 10 for row in range(60)], dtype=torch.float64)
    y = -3 * x + 1
    y[0], y[50:55] = 0.0, 20.0
    assert rows.x.shape == rows.y.shape == (60, 1)
    torch.testing.assert_close(rows.x[:, 0].double(), x, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(rows.y[:, 0].double(), y, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("split", ["val", "test"])
def test_validation_and_test_rows_have_no_outliers_and_different_noise(split: str) -> None:
    outliers = {0: 0.0, "50:55": 20.0}
    rows = line(split, noise=0.1, outliers=outliers)  # type: ignore[arg-type]
    noise = rows.y - (-3 * rows.x + 1)
    assert noise.abs().max() < 0.5
    assert 0.05 < noise.std() < 0.15
    for other in SPLITS:
        same = torch.equal(rows.y, line(other, noise=0.1, outliers=outliers).y)
        assert same == (other == split)


def test_noise_is_a_function_of_the_seed() -> None:
    assert torch.equal(line("train", seed=1).y, line("train", seed=1).y)
    assert not torch.equal(line("train", seed=1).y, line("train", seed=2).y)


@settings(deadline=None)
@given(st.integers(3, 3000), st.lists(st.floats(0.05, 1), min_size=3, max_size=3), st.integers(0, 99))
def test_a_split_is_a_partition(rows: int, shares: list[float], seed: int) -> None:
    fractions = [share / sum(shares) for share in shares]
    parts = split_rows(rows, fractions, torch.Generator().manual_seed(seed))
    assert sorted(torch.cat(list(parts.values())).tolist()) == list(range(rows))
    for name, fraction in zip(("val", "test"), fractions[1:], strict=True):
        assert rows * fraction - 1 <= len(parts[name]) <= rows * fraction + 1e-6


@pytest.mark.parametrize(("rows", "fraction", "count"), [(10, 0.7, 7), (30, 0.1, 3), (1000, 0.2, 200)])
def test_a_whole_number_of_rows_is_not_rounded_down(rows: int, fraction: float, count: int) -> None:
    assert len(split_rows(rows, [1 - fraction, fraction, 0.0], torch.Generator())["val"]) == count


def test_all_splits_of_linear_follow_one_function_and_share_no_row() -> None:
    parts = {split: linear(split, rows=500, features=4, noise=0.0) for split in SPLITS}
    assert [len(parts[split]) for split in SPLITS] == [300, 100, 100]
    x = torch.cat([torch.nn.functional.pad(rows.x, (0, 1), value=1.0) for rows in parts.values()]).double()
    y = torch.cat([rows.y for rows in parts.values()]).double()
    solution = torch.linalg.lstsq(x, y).solution
    assert (x @ solution - y).abs().max() < 1e-4
    assert len({tuple(row) for row in x.tolist()}) == 500


def test_only_training_rows_have_outliers() -> None:
    clean = linear("train", rows=1000, noise=0.0)
    with_outliers = linear("train", rows=1000, noise=0.0, outlier_fraction=0.1)
    assert (clean.y != with_outliers.y).sum() == 60
    assert torch.equal(linear("val", outlier_fraction=0.5).y, linear("val").y)
