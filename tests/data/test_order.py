"""Rows, the order of an epoch, and its batches."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.data import BatchIndices, Rows, row_order
from holdfast.data.order import loader
from holdfast.errors import DataError

X = torch.arange(12.0).reshape(6, 2)
Y = torch.arange(6.0).reshape(6, 1)


def test_rows_have_a_length_an_index_and_a_slice() -> None:
    rows = Rows(X, Y)
    assert len(rows) == 6
    assert rows[2][0].tolist() == [4.0, 5.0]
    assert rows[0:3][1].tolist() == [[0.0], [1.0], [2.0]]
    assert rows[-1][1].tolist() == [5.0]
    assert torch.equal(rows[torch.tensor([4, 0])][0], X[[4, 0]])


@pytest.mark.parametrize(("x", "y"), [(X[:0], Y[:0]), (X, Y[:5])])
def test_empty_or_unequal_rows_are_refused(x: torch.Tensor, y: torch.Tensor) -> None:
    with pytest.raises(DataError):
        Rows(x, y)


# the course's table: six rows, iterations per epoch for each batch size
@pytest.mark.parametrize(("batch_size", "iterations"), [(1, 6), (2, 3), (3, 2), (4, 2), (5, 2), (6, 1), (7, 1)])
def test_number_of_iterations_per_epoch(batch_size: int, iterations: int) -> None:
    batches = BatchIndices(6, batch_size)
    assert len(batches) == len(list(batches)) == len(loader(Rows(X, Y), batches)) == iterations


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 70), st.integers(0, 2**40), st.integers(0, 50), st.booleans())
def test_an_epoch_visits_every_row_once(rows: int, batch_size: int, seed: int, epoch: int, shuffle: bool) -> None:
    batches = list(BatchIndices(rows, batch_size, seed=seed, epoch=lambda: epoch, shuffle=shuffle))
    assert len(batches) == math.ceil(rows / batch_size)
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert sorted(torch.cat(batches).tolist()) == list(range(rows))


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(1, 5), st.integers(1, 8))
def test_all_processes_get_the_same_number_of_batches_and_together_all_rows(
    rows: int, world_size: int, batch_size: int
) -> None:
    shares = [list(BatchIndices(rows, batch_size, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert len({tuple(map(len, share)) for share in shares}) == 1
    assert {row for share in shares for batch in share for row in batch.tolist()} == set(range(rows))


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 5))
def test_a_lazy_split_gives_the_batches_of_one_split(thousands: int, batch_size: int) -> None:
    rows = 1000 * thousands + 7
    batches, expected = list(BatchIndices(rows, batch_size, seed=3)), row_order(rows, 3, 0).split(batch_size)
    assert len(batches) == len(expected)
    assert all(map(torch.equal, batches, expected))


def test_batches_of_one_row_are_split_lazily() -> None:
    code = (
        "import resource\nfrom holdfast.data import BatchIndices\n"
        "list(BatchIndices(10, 1))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "count = sum(1 for _ in BatchIndices(2_000_000, 1))\n"
        "print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, growth = map(int, done.stdout.split())
    assert count == 2_000_000
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS
    assert growth * unit < 200 << 20


def test_row_order_is_a_pure_function_of_seed_and_epoch() -> None:
    first = row_order(60, seed=3, epoch=5)
    torch.manual_seed(123)
    torch.rand(7)
    assert torch.equal(first, row_order(60, seed=3, epoch=5))
    orders = {tuple(row_order(60, seed, epoch).tolist()) for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loader_returns_whole_batches_with_and_without_workers(num_workers: int) -> None:
    batches = list(loader(Rows(X, Y), BatchIndices(6, 4, shuffle=False), num_workers))
    assert [x.tolist() for x, _ in batches] == [X[:4].tolist(), X[4:].tolist()]
