"""Folds against scikit-learn's, and what has to hold of them for any rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold, TimeSeriesSplit

from holdfast.config.fold import Fold
from holdfast.data import DataModule, Line, Linear, Rows
from holdfast.data.folded_loaders import set_fold
from holdfast.data.folds import Parts, at_random, by_group, by_time
from holdfast.errors import DataError

FOLDS = st.integers(2, 7)


def all_of(divide: object, values: np.ndarray, folds: int) -> list[Parts]:
    assert callable(divide)
    return [divide(values, Fold(number, folds)) for number in range(folds)]


@given(st.lists(st.integers(0, 3), min_size=7, max_size=80), FOLDS)
def test_random_folds_are_of_equal_size_apart_and_stratified(classes: list[int], folds: int) -> None:
    strata = np.array(classes)
    parts = all_of(at_random, strata, folds)
    times_validated = sum(part.val.astype(int) for part in parts)
    assert times_validated.max() == 1
    assert {int(part.val.sum()) for part in parts} == {len(strata) // folds}
    assert all((part.train == ~part.val).all() for part in parts)
    for name in set(classes):
        expected = classes.count(name) / folds
        counts = [int(part.val[strata == name].sum()) for part in parts]
        assert min(counts) >= int(expected)
        assert max(counts) <= int(expected) + 1


@given(st.lists(st.integers(0, 30), min_size=40, max_size=100), FOLDS)
def test_groups_stay_together_and_folds_are_as_even_as_scikit_learns(names: list[int], folds: int) -> None:
    groups = np.array([f"group {name}" for name in names], dtype=object)
    if len(set(names)) < folds:
        with pytest.raises(DataError, match="need as many groups"):
            by_group(groups, Fold(0, folds))
        return
    parts = all_of(by_group, groups, folds)
    assert (sum(part.val.astype(int) for part in parts) == 1).all()
    for part in parts:
        assert not set(groups[part.train]) & set(groups[part.val])
    theirs = [len(val) for _, val in GroupKFold(folds).split(names, groups=names)]
    assert sorted(int(part.val.sum()) for part in parts) == sorted(theirs)


@pytest.mark.parametrize(("rows", "folds"), [(60, 5), (60, 2), (8, 3), (700, 6)])
def test_folds_by_time_are_those_of_scikit_learn(rows: int, folds: int) -> None:
    times = np.random.default_rng(0).permutation(rows).astype(float)
    order = np.argsort(times)
    expected = TimeSeriesSplit(folds).split(times) if rows % (folds + 1) == 0 else None
    parts = all_of(by_time, times, folds)
    for part in parts:
        assert times[part.train].max() < times[part.val].min()
    if expected is not None:
        for part, (train, val) in zip(parts, expected, strict=True):
            assert sorted(np.flatnonzero(part.train)) == sorted(order[train])
            assert sorted(np.flatnonzero(part.val)) == sorted(order[val])


def test_rows_of_the_same_time_stay_together_or_are_refused() -> None:
    times = np.repeat(np.arange(4.0), 5)
    for part in all_of(by_time, times, 2):
        assert not set(times[part.train]) & set(times[part.val])
    with pytest.raises(DataError, match="give fewer folds"):
        by_time(np.zeros(20), Fold(0, 2))


def folded(data: DataModule, fold: Fold) -> DataModule:
    set_fold(data, fold)
    data.setup("fit")
    return data


def test_outliers_are_in_training_parts_only() -> None:
    parts = [folded(Line(outliers={0: 0.0, "50:55": 20.0}), Fold(number, 5)) for number in range(5)]
    for data in parts:
        assert isinstance(data.val, Rows)
        assert (data.val.y - (1 - 3 * data.val.x)).abs().max() < 0.5
    # six rows of 120 are outliers, and each fold trains on four fifths of all rows
    counts = [int(((data.train.y - (1 - 3 * data.train.x)).abs() > 0.5).sum()) for data in parts]  # type: ignore[union-attr]
    assert sum(counts) == 6 * 4
    whole = folded(Line(outliers={0: 0.0, "50:55": 20.0}), Fold(None, 5))
    assert len(whole.train) == 120


def test_every_clean_row_of_both_splits_is_validated_once() -> None:
    plain = Linear(rows=200, features=2, outlier_fraction=0.0)
    plain.setup("fit")
    assert isinstance(plain.train, Rows)
    assert isinstance(plain.val, Rows)
    expected = torch.cat([plain.train.x, plain.val.x])
    found = [folded(Linear(rows=200, features=2, outlier_fraction=0.3), Fold(number, 4)).val for number in range(4)]
    xs = torch.cat([rows.x for rows in found if isinstance(rows, Rows)])
    ys = torch.cat([rows.y for rows in found if isinstance(rows, Rows)])
    of_row = {
        tuple(x.tolist()): y.item() for x, y in zip(expected, torch.cat([plain.train.y, plain.val.y]), strict=True)
    }
    assert {tuple(x.tolist()): y.item() for x, y in zip(xs, ys, strict=True)} == of_row
