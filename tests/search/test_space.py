"""The values that intervals give to a search."""

from __future__ import annotations

import itertools
import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from holdfast.search.samplers import SAMPLERS, sobol
from holdfast.search.space import Interval

ENDS = st.tuples(st.floats(1e-9, 1e9), st.floats(1e-9, 1e9)).map(sorted).filter(lambda ends: ends[0] < ends[1])
SHARES = st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=20).map(sorted)


@given(ends=ENDS, shares=SHARES, tags=st.sampled_from([frozenset[str](), frozenset({"log"})]))
def test_values_lie_between_the_ends_and_grow_with_the_share(
    ends: list[float], shares: list[float], tags: frozenset[str]
) -> None:
    interval = Interval("", "lr", *ends, tags)
    values = [float(interval.value(share)) for share in shares]
    assert all(ends[0] <= value <= ends[1] for value in values)
    assert values == sorted(values)


@given(ends=ENDS, share=st.floats(0, 1, exclude_max=True))
def test_under_log_equal_shares_are_equal_ratios(ends: list[float], share: float) -> None:
    low, high = ends
    value = float(Interval("", "lr", low, high, frozenset({"log"})).value(share))
    assert math.isclose(math.log(value / low), share * math.log(high / low), rel_tol=1e-5, abs_tol=6e-6)


@given(low=st.integers(-50, 50), count=st.integers(2, 12))
def test_whole_numbers_have_equal_shares(low: int, count: int) -> None:
    interval = Interval("", "epochs", low, low + count - 1, frozenset({"int"}))
    drawn = Counter(int(interval.value((step + 0.5) / (60 * count))) for step in range(60 * count))
    assert drawn == {low + value: 60 for value in range(count)}


@given(keys=st.integers(1, 6), seed=st.integers(0, 2**31), first=st.integers(0, 40), count=st.integers(1, 40))
def test_a_trial_depends_on_the_seed_and_its_number_alone(keys: int, seed: int, first: int, count: int) -> None:
    for sampler in SAMPLERS.values():
        assert sampler(keys, seed, first, count) == sampler(keys, seed, 0, first + count)[first:]
        assert all(0 <= number < 1 for point in sampler(keys, seed, first, count) for number in point)


@given(keys=st.integers(1, 8), seed=st.integers(0, 1000), power=st.integers(1, 7))
def test_each_of_the_first_points_of_a_sobol_sequence_has_a_cell_of_its_own(keys: int, seed: int, power: int) -> None:
    # in each key the first 2^k points of a (t, s)-sequence lie one in each of 2^k equal cells (Sobol, 1967)
    cells = 2**power
    for column in zip(*sobol(keys, seed, 0, cells), strict=True):
        assert sorted(math.floor(number * cells) for number in column) == list(range(cells))


def test_other_seeds_draw_other_points() -> None:
    for sampler in SAMPLERS.values():
        drawn = [tuple(map(tuple, sampler(3, seed, 0, 4))) for seed in range(20)]
        assert all(one != other for one, other in itertools.combinations(drawn, 2))
