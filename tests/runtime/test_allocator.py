"""When glibc is told to keep memory, and when it is told to give it back."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.runtime import allocator
from holdfast.runtime.allocator import freed_memory_kept


class Library:
    """Stands for glibc; takes no threshold above 32 MiB."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def mallopt(self, option: int, value: int) -> int:
        taken = option != -3 or value <= 32 << 20
        self.calls += [(option, value)] if taken else []
        return int(taken)

    def malloc_trim(self, pad: int) -> int:
        self.calls.append("trim")
        return 1


KEPT = [(-3, 32 << 20), (-1, 2**31 - 1)]
GIVEN_BACK = [(-3, 32 << 20), (-1, 64 << 20), "trim"]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library()
    monkeypatch.setattr(allocator, "_glibc", lambda: library)
    return library


def test_memory_is_given_back_at_the_end_of_the_outermost_block(library: Library) -> None:
    with freed_memory_kept():
        with freed_memory_kept():
            pass
        assert library.calls == KEPT
    assert library.calls == KEPT + GIVEN_BACK
    with freed_memory_kept():
        pass
    assert library.calls == 2 * (KEPT + GIVEN_BACK)


def test_memory_is_given_back_after_an_error(library: Library) -> None:
    with pytest.raises(ZeroDivisionError), freed_memory_kept():
        _ = 1 / 0
    assert library.calls == KEPT + GIVEN_BACK


@pytest.mark.parametrize("variable", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_options_of_the_users_are_left_alone(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "glibc.malloc.trim_threshold=1000000")
    allocator._glibc.cache_clear()
    assert allocator._glibc() is None
    allocator._glibc.cache_clear()
