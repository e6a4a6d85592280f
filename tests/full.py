"""Whether all cases of a list are tried, or a part: all with HOLDFAST_FAULTS=all.

CI tries a quarter of all of them, HOLDFAST_PART=0/4 for example, and another quarter with another commit.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from typing import TypeVar

import pytest

ALL = os.environ.get("HOLDFAST_FAULTS") == "all"
IN_FULL = pytest.mark.skipif(not ALL, reason="one of the slow tests that CI runs, with HOLDFAST_FAULTS=all")
"""For a test that takes many seconds, in one of the folders that CI runs in full."""

_number, _, _parts = os.environ.get("HOLDFAST_PART", "0/1").partition("/")
NUMBER, PARTS = int(_number), int(_parts)
"""Which part of all cases is tried, from 0, and of how many."""

T = TypeVar("T")


def some(cases: Iterable[T], step: int, first: int = 0) -> list[T]:
    """Every n-th case; all of them in the full run.

    >>> some("abcdefg", 3) if not ALL else ["a", "d", "g"]
    ['a', 'd', 'g']
    """
    every = list(cases)
    return every if ALL else every[first::step]


def in_part(name: str) -> bool:
    """Whether a case is in the part that is tried.

    >>> in_part("a case") or PARTS > 1
    True
    """
    return zlib.crc32(name.encode()) % PARTS == NUMBER


def sample(cases: list[T], count: int = 1) -> list[T]:
    """The first of some cases; all of them in the full run."""
    return cases if ALL else cases[:count]
