from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.record.stopping import Standing, StoppingRules, judge, largest_loss

ANY = st.floats(allow_nan=True, allow_infinity=True)


def after(values: list[float], rules: StoppingRules = StoppingRules()) -> tuple[Standing, int]:  # noqa: B008
    """The standing of a run with these validation losses at its end, and its number of epochs."""
    standing = Standing()
    for epoch, value in enumerate(values):
        standing = judge(standing, epoch, {rules.metric: value}, 1.0, rules)
        if standing.end:
            return standing, epoch + 1
    return standing, len(values)


@given(st.lists(ANY, min_size=1, max_size=20))
def test_the_best_is_the_first_lowest_finite_loss_before_a_run_diverged(values: list[float]) -> None:
    standing, epochs = after(values)
    diverged = [epoch for epoch, value in enumerate(values) if not abs(value) <= 1e12]
    eligible = values[: diverged[0]] if diverged else values
    assert standing.best_epoch == (eligible.index(min(eligible)) if eligible else -1)
    assert (standing.end == "diverged") == bool(diverged)
    assert epochs == (diverged[0] + 1 if diverged else len(values))


@given(st.lists(ANY, min_size=1, max_size=20), st.sampled_from(["min", "max"]))
def test_of_any_other_metric_only_finite_values_are_the_best(values: list[float], mode: str) -> None:
    standing, _ = after(values, StoppingRules(metric="val/r2", mode=mode))  # type: ignore[arg-type]
    finite = [value for value in values if math.isfinite(value)]
    assert standing.end == ""
    if finite:
        assert standing.best == (min if mode == "min" else max)(finite)
        assert standing.best_epoch == values.index(standing.best)
    else:
        assert standing.best_epoch == -1


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, 2e12, -2e12])
@pytest.mark.parametrize("name", ["largest", "val/loss", "train/loss"])
def test_any_diverged_loss_ends_the_run_and_its_epoch_is_never_the_best(loss: float, name: str) -> None:
    metrics = {"val/loss": 0.5, "train/loss": 0.5}
    largest = 1.0
    if name == "largest":
        largest = largest_loss([1.0, loss])
    else:
        metrics[name] = loss
    before = replace(Standing(), best_epoch=0, best=0.7, reference=0.7)
    standing = judge(before, 1, metrics, largest, StoppingRules())
    assert standing.end == "diverged"
    assert (standing.best_epoch, standing.best) == (0, 0.7)


def test_a_loss_at_the_threshold_has_not_diverged() -> None:
    assert judge(Standing(), 0, {"val/loss": 5.0}, 7.0, StoppingRules(threshold=7.0)).end == ""
    assert judge(Standing(), 0, {"val/loss": 5.0}, 7.1, StoppingRules(threshold=7.0)).end == "diverged"


def test_early_stopping_counts_epochs_without_improvement() -> None:
    values = [5.0, 4.0, 4.0, 3.9, 3.8, 3.79, 3.78, 1.0]
    assert after(values, StoppingRules(patience=2))[1] == 8
    assert after(values, StoppingRules(patience=1))[1] == 3
    # 3.9 and 3.8 are each less than 0.3 below 4.0, but are the best all the same
    standing, epochs = after(values, StoppingRules(patience=3, min_delta=0.3))
    assert (epochs, standing.best_epoch, standing.end) == (5, 4, "stopped")


def test_early_stopping_of_a_metric_to_be_maximised() -> None:
    standing, epochs = after([0.1, 0.5, 0.4, 0.3, 0.9], StoppingRules("val/r2", "max", patience=2))
    assert (epochs, standing.best_epoch, standing.end) == (4, 1, "stopped")


@given(st.lists(st.lists(ANY, min_size=4, max_size=4), min_size=1, max_size=12), st.sampled_from([None, 1, 2]))
def test_runs_judged_together_stand_as_when_judged_one_by_one(epochs: list[list[float]], patience: int | None) -> None:
    rules = StoppingRules(patience=patience, min_delta=0.1)
    together = Standing()
    for epoch, values in enumerate(epochs):
        together = judge(together, epoch, {"val/loss": np.array(values)}, np.ones(4), rules)
    for run in range(4):
        alone, _ = after([values[run] for values in epochs], rules)
        assert together.end[run] == alone.end
        assert together.best_epoch[run] == alone.best_epoch
        np.testing.assert_equal(together.best[run], np.asarray(alone.best, dtype=float)[()])


@given(st.lists(st.tuples(st.sampled_from([0.5, 0.9, math.nan]), st.sampled_from([1.0, 2.0, 3.0])), min_size=1))
def test_of_epochs_with_the_same_metric_the_one_with_the_lowest_loss_is_the_best(epochs: list[Any]) -> None:
    rules, standing = StoppingRules("val/acc", "max"), Standing()
    for number, (accuracy, loss) in enumerate(epochs):
        standing = judge(standing, number, {"val/acc": accuracy, "val/loss": loss}, 1.0, rules)
    finite = [(-accuracy, loss, number) for number, (accuracy, loss) in enumerate(epochs) if math.isfinite(accuracy)]
    assert standing.best_epoch == (min(finite)[2] if finite else -1)


@given(st.lists(st.one_of(st.none(), st.floats(0, 10)), min_size=1), st.integers(1, 3))
def test_an_epoch_in_which_nothing_was_measured_changes_nothing(values: list[float | None], patience: int) -> None:
    rules = StoppingRules(patience=patience)
    everything, measured = Standing(), Standing()
    for number, value in enumerate(values):
        everything = judge(everything, number, {} if value is None else {"val/loss": value}, 1.0, rules)
        if value is not None:
            measured = judge(measured, number, {"val/loss": value}, 1.0, rules)
    assert everything.end == measured.end
    np.testing.assert_equal([everything.best, everything.waited], [measured.best, measured.waited])
