from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import ConfigError
from holdfast.search.grid import overrides_of, spell_out


def values(word: str) -> list[float]:
    return [float(value) for value in spell_out(word).partition("=")[2].split(",")]


@given(st.floats(1e-8, 1e8), st.floats(1e-8, 1e8), st.integers(2, 60))
def test_logspace_has_its_ends_and_equal_ratios(first: float, last: float, count: int) -> None:
    found = values(f"lr=logspace({first!r}, {last!r}, {count})")
    assert (len(found), found[0], found[-1]) == (count, first, last)
    ratio = (last / first) ** (1 / (count - 1))
    assert all(math.isclose(b / a, ratio, rel_tol=1e-10) for a, b in itertools.pairwise(found))


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.integers(2, 60))
def test_linspace_has_its_ends_and_equal_steps(first: float, last: float, count: int) -> None:
    found = values(f"x=linspace({first!r},{last!r},{count})")
    assert (len(found), found[0], found[-1]) == (count, first, last)
    step = (last - first) / (count - 1)
    assert all(math.isclose(b - a, step, rel_tol=1e-6, abs_tol=1e-5) for a, b in itertools.pairwise(found))


@pytest.mark.parametrize("word", ["lr=0.1,0.2", "lr=range(0,3)", "name=logspace", "x=glob(*)"])
def test_other_words_stay_as_they_are(word: str) -> None:
    assert spell_out(word) == word


@pytest.mark.parametrize(
    "arguments", ["1,2", "1,2,3,4", "a,2,3", "1,2,x", "0,1,3", "-1,1,3", "1,2,1", "1,inf,3", "nan,1,3", ""]
)
def test_arguments_that_cannot_work_are_told(arguments: str) -> None:
    with pytest.raises(ConfigError, match="logspace"):
        spell_out(f"lr=logspace({arguments})")


def test_typed_words_replace_those_of_the_file() -> None:
    assert overrides_of({"lr": "logspace(1,100,3)", "seed": 1, "test": False}, ["batch_size=5", "++lr=7"]) == [
        "seed=1",
        "test=false",
        "batch_size=5",
        "++lr=7",
    ]
