"""A function called in a child process leaves nothing behind, and may end the child only."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import pytest
import torch

from holdfast.planning.child import in_a_child

CALLS: list[int] = []


def changes_globals(number: int) -> tuple[int, torch.Tensor, int]:
    CALLS.append(number)
    torch.set_default_dtype(torch.float64)
    weight = torch.ones(3, requires_grad=True)
    (weight @ torch.arange(3.0)).backward()
    return os.getpid(), weight.grad, len(CALLS)  # type: ignore[return-value]


def test_only_the_result_is_returned() -> None:
    process, gradient, length = in_a_child(changes_globals, 7)
    assert process != os.getpid()
    assert gradient.tolist() == [0.0, 1.0, 2.0]
    assert (length, CALLS, torch.get_default_dtype()) == (1, [], torch.float32)


def test_an_exception_is_raised_in_the_parent() -> None:
    with pytest.raises(ZeroDivisionError):
        in_a_child(lambda: 1 / 0)


@pytest.mark.parametrize(
    "end", [lambda: sys.exit(3), lambda: os._exit(3), lambda: os.kill(os.getpid(), signal.SIGKILL)]
)
def test_a_child_that_ends_without_a_result_is_an_error(end: Any) -> None:
    with pytest.raises(ChildProcessError):
        in_a_child(end)


def test_large_results_are_returned_repeatedly() -> None:
    assert [len(in_a_child(bytes, 10**7)) for _ in range(3)] == [10**7] * 3
