"""Rows in memory, and the order in which they are visited."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from math import ceil
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from holdfast.data.seeding import derive
from holdfast.errors import DataError

Batch = tuple[Tensor, Tensor]

_BATCHES_AT_A_TIME = 1024  # a tensor takes some 500 bytes, however few rows it names

EVALUATION_ROWS = 8192  # rows at a time where no gradient is taken; small enough for any memory


class Rows(Dataset[Batch]):
    """Inputs and targets, one row each, with a length, an index and a slice.

    Args:
        x: inputs, shape `(rows, features)`.
        y: targets, shape `(rows, outputs)`.

    Raises:
        DataError: there are no rows, or not as many inputs as targets.

    >>> rows = Rows(torch.zeros(6, 1), torch.ones(6, 1))
    >>> len(rows), rows[0], rows[0:3][1].shape
    (6, (tensor([0.]), tensor([1.])), torch.Size([3, 1]))
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        if not len(x) == len(y) > 0:
            raise DataError(f"A split needs rows, one target each; there are {len(x)} inputs and {len(y)} targets.")
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int | slice | Tensor) -> Batch:
        if isinstance(index, Tensor):
            # index_select is several times quicker than x[index]
            return self.x.index_select(0, index), self.y.index_select(0, index)
        return self.x[index], self.y[index]


def row_order(rows: int, seed: int, epoch: int) -> Tensor:
    """The order in which an epoch visits the rows, as a pure function of its arguments.

    Nothing global is read, so that a run that resumes at epoch 7 goes on exactly as if it had never stopped.

    >>> row_order(4, seed=0, epoch=0).sort().values
    tensor([0, 1, 2, 3])
    """
    return torch.randperm(rows, generator=torch.Generator().manual_seed(derive(seed, "order", epoch)))


class Batches(Sampler[Tensor]):
    """The row numbers of each batch of an epoch; the last batch may be short.

    Args:
        rows: how many rows there are.
        batch_size: rows a batch.
        seed: of the row order.
        epoch: says which epoch it is. Asked when an epoch begins, since telling a sampler is too late for worker
            processes, which fetch ahead.
        shuffle: a new order every epoch; False visits the rows as they lie.
        rank, world: this process, and how many share the rows. Each gets as many, some rows twice if need be.

    >>> [batch.tolist() for batch in Batches(5, 2, shuffle=False)]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        rows: int,
        batch_size: int,
        *,
        seed: int = 0,
        epoch: Callable[[], int] = lambda: 0,
        shuffle: bool = True,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.rows, self.batch_size = rows, batch_size
        self.seed, self.epoch, self.shuffle = seed, epoch, shuffle
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return ceil(ceil(self.rows / self.world) / self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        order = row_order(self.rows, self.seed, self.epoch()) if self.shuffle else torch.arange(self.rows)
        if self.world > 1:
            share = ceil(self.rows / self.world)
            order = order[torch.arange(self.rank, share * self.world, self.world) % self.rows]
        # batches are cut off as they are needed: with one row each there are as many as rows
        parts = order.split(_BATCHES_AT_A_TIME * self.batch_size)
        return chain.from_iterable(part.split(self.batch_size) for part in parts)


def loader(rows: Rows, batches: Sampler[Tensor], num_workers: int = 0) -> DataLoader[Batch]:
    """A DataLoader that fetches each batch with one index, no row by itself."""
    return DataLoader(
        rows,
        sampler=batches,
        batch_size=None,
        collate_fn=_as_is,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )


def evaluation_loader(rows: Rows) -> DataLoader[Batch]:
    """All rows in order, in large batches."""
    return loader(rows, Batches(len(rows), EVALUATION_ROWS, shuffle=False))


def _as_is(batch: Any) -> Any:
    return batch
