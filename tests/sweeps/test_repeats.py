"""Means over repeats, their standard errors, and paired differences, against NumPy and SciPy."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from holdfast.store.result import Result
from holdfast.sweeps.ended import Job
from holdfast.sweeps.rank import rank
from holdfast.sweeps.repeats import Settings, estimate, settings_of

VALUES = st.floats(-1e6, 1e6)


def job(number: int, overrides: list[str], value: float | None) -> Job:
    status: Literal["completed", "diverged"] = "completed" if value is not None else "diverged"
    best = {"epoch": 0, "val/loss": value} if value is not None else None
    return Job(number, overrides, "rows", Result(status, overrides, "h", "val/loss", best=best))


def of_values(values: list[float | None], first: int = 0, lr: float = 0.1) -> Settings:
    jobs = [job(first + seed, [f"lr={lr}", f"seed={seed}"], value) for seed, value in enumerate(values)]
    (found,) = settings_of(jobs, ["seed"])
    return found


@given(st.lists(VALUES, min_size=2, max_size=30))
def test_a_mean_and_its_standard_error_are_those_of_scipy(values: list[float]) -> None:
    found = estimate(values)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-6)
    assert found.standard_error == pytest.approx(stats.sem(values), abs=1e-6)


@given(st.lists(st.tuples(VALUES, VALUES), min_size=2, max_size=20))
def test_a_paired_difference_is_the_statistic_of_a_paired_test(pairs: list[tuple[float, float]]) -> None:
    one, other = (of_values(list(values)) for values in zip(*pairs, strict=True))
    found = one.difference(other)
    assert found is not None
    assert found.standard_error is not None
    differences = np.subtract(*np.array(pairs).T)
    if np.std(differences) > 1e-3:
        expected = stats.ttest_rel(*np.array(pairs).T).statistic
        assert found.mean / found.standard_error == pytest.approx(expected, rel=1e-6)
        if abs(abs(expected) - 1) > 1e-9:  # at 1 itself rounding decides
            assert one.is_told_apart(other) == (abs(expected) > 1)


def test_a_repeat_that_diverged_leaves_its_settings_without_a_mean() -> None:
    assert of_values([1.0, None, 3.0]).estimate is None
    assert of_values([1.0, None, 3.0]).completed == 2


def test_settings_are_ranked_by_their_means_not_by_their_best_repeat() -> None:
    lucky, steady, broken = of_values([0.1, 9.0]), of_values([1.0, 1.2], 2, 0.2), of_values([None, 0.01], 4, 0.3)
    jobs = [each for settings in (lucky, broken, steady) for each in settings.jobs.values()]
    (ranking,) = rank(jobs, "min")
    assert [settings.overrides for settings in ranking.settings] == [("lr=0.2",), ("lr=0.1",), ("lr=0.3",)]
    assert ranking.winner is not None
    assert ranking.winner.number == 2
    assert ranking.margin == pytest.approx(4.55 - 1.1)
    assert [each.number for each in ranking.jobs] == [2, 3, 0, 1, 5, 4]
    (ranking,) = rank(jobs, "max")
    assert [settings.overrides for settings in ranking.settings] == [("lr=0.1",), ("lr=0.2",), ("lr=0.3",)]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), unique=True, min_size=1, max_size=12))
def test_every_job_is_a_repeat_of_one_setting(keys: list[tuple[str, int]]) -> None:
    jobs = [job(number, [f"seed={seed}", f"lr={lr}"], 1.0) for number, (lr, seed) in enumerate(keys)]
    groups = settings_of(jobs, ["seed"])
    assert sorted(each.number for group in groups for each in group.jobs.values()) == [*range(len(jobs))]
    assert [group.overrides for group in groups] == list(dict.fromkeys((f"lr={lr}",) for lr, _ in keys))


def test_a_single_repeat_has_no_standard_error() -> None:
    found = of_values([2.0]).estimate
    assert found is not None
    assert (found.mean, found.standard_error) == (2.0, None)
    assert not of_values([2.0]).is_told_apart(of_values([9.0]))
    assert math.isclose(of_values([2.0]).difference(of_values([9.0])).mean, -7.0)  # type: ignore[union-attr]
