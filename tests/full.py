"""Whether all cases of a list are tried, or a part: all with HOLDFAST_FAULTS=all, as in CI."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeVar

import pytest

ALL = os.environ.get("HOLDFAST_FAULTS") == "all"
IN_FULL = pytest.mark.skipif(not ALL, reason="one of the slow tests that CI runs, with HOLDFAST_FAULTS=all")
"""For a test that takes many seconds, in one of the folders that CI runs in full."""

T = TypeVar("T")


def some(cases: Iterable[T], step: int, first: int = 0) -> list[T]:
    """Every n-th case; all of them in the full run.

    >>> some("abcdefg", 3) if not ALL else ["a", "d", "g"]
    ['a', 'd', 'g']
    """
    every = list(cases)
    return every if ALL else every[first::step]


def sample(cases: list[T], count: int = 1) -> list[T]:
    """The first of some cases; all of them in the full run."""
    return cases if ALL else cases[:count]
