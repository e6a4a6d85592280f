"""Rounds that look at earlier trials: their sizes, their boxes, and that they follow from the trials alone."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.search.rounds import ROUNDS, TPE_ROUND, Trial, tpe, zoom

POINTS = st.lists(
    st.tuples(st.floats(0, 1), st.floats(0, 1), st.one_of(st.floats(-10, 10), st.just(math.inf))),
    min_size=2,
    max_size=70,
)


@given(POINTS, st.integers(1, 20))
def test_zoom_draws_in_the_box_of_the_best_sixteenth(drawn: list[tuple[float, float, float]], count: int) -> None:
    trials = [Trial((x, y), value) for x, y, value in drawn]
    points = zoom(trials, 0, count)
    assert len(points) == count
    finite = sorted((trial for trial in trials if math.isfinite(trial.value)), key=lambda trial: trial.value)
    best = finite[: max(2, math.ceil(len(trials) / 16))]
    for place in range(2):
        low, high = (min, max) if len(finite) > 1 else (lambda _: 0.0, lambda _: 1.0)
        ends = [trial.point[place] for trial in best] or [0.0]
        assert all(low(ends) <= point[place] <= high(ends) for point in points)


@given(st.integers(1, 3000))
def test_the_rounds_of_a_search_are_all_its_trials(trials: int) -> None:
    for name, rounds in ROUNDS.items():
        sizes = list[int]()
        while sum(sizes) < trials:
            sizes.append(rounds.size(trials, sum(sizes)))
        assert sum(sizes) == trials
        assert all(size > 0 for size in sizes)
        assert len(sizes) <= (2 if name == "zoom" else -(-trials // TPE_ROUND))


def bowl(point: list[float]) -> float:
    return sum((each - 0.3) ** 2 for each in point)


def test_tpe_follows_from_the_trials_and_is_nearer_than_random_points() -> None:
    better = 0
    for seed in range(10):
        draw = random.Random(seed)
        trials = [Trial(point, bowl(point)) for point in ([draw.random() for _ in range(4)] for _ in range(64))]
        trials[0] = Trial(trials[0].point, math.inf)  # one that diverged
        points = tpe(trials, seed, 64)
        assert points == tpe(trials, seed, 64)
        assert points != tpe(trials, seed + 1, 64)
        others = [[draw.random() for _ in range(4)] for _ in range(64)]
        better += sum(map(bowl, points)) < sum(map(bowl, others))
    assert better == 10


@pytest.mark.parametrize("ask", [zoom, tpe])
def test_a_round_after_trials_that_all_diverged_is_drawn_all_the_same(ask: object) -> None:
    assert callable(ask)
    points = ask([Trial((0.5, 0.5), math.inf)] * 70, 0, 8)
    assert len({tuple(point) for point in points}) == 8
