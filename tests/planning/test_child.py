"""What is called in a child leaves nothing behind, and its end is the end of nothing else."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import pytest
import torch

from holdfast.planning.child import in_a_child

LEFT: list[int] = []


def leaves(number: int) -> tuple[int, torch.Tensor, int]:
    LEFT.append(number)
    torch.set_default_dtype(torch.float64)
    weight = torch.ones(3, requires_grad=True)
    (weight @ torch.arange(3.0)).backward()
    return os.getpid(), weight.grad, len(LEFT)  # type: ignore[return-value]


def test_the_result_comes_back_and_nothing_else() -> None:
    process, gradient, length = in_a_child(leaves, 7)
    assert process != os.getpid()
    assert gradient.tolist() == [0.0, 1.0, 2.0]
    assert (length, LEFT, torch.get_default_dtype()) == (1, [], torch.float32)


def test_an_error_comes_back() -> None:
    with pytest.raises(ZeroDivisionError):
        in_a_child(lambda: 1 / 0)


@pytest.mark.parametrize(
    "end", [lambda: sys.exit(3), lambda: os._exit(3), lambda: os.kill(os.getpid(), signal.SIGKILL)]
)
def test_a_child_that_ends_is_an_error(end: Any) -> None:
    with pytest.raises(ChildProcessError):
        in_a_child(end)


def test_many_large_results_come_back() -> None:
    assert [len(in_a_child(bytes, 10**7)) for _ in range(3)] == [10**7] * 3
