"""Rows in memory, and the order in which an epoch visits them."""

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
"""Inputs of shape `(rows, features)` and targets of shape `(rows, outputs)`."""

EVALUATION_ROWS = 8192
"""Rows per batch where no gradient is computed; few enough for any memory."""

_SPLIT_BATCHES = 1024  # index tensors held in memory at a time: each takes about 500 bytes, even for one row


class Rows(Dataset[Batch]):
    """Inputs and targets in memory, indexed by a row number, a slice, or a tensor of row indices.

    Args:
        x: inputs, shape `(rows, features)`.
        y: targets, shape `(rows, outputs)`.

    Raises:
        DataError: there are no rows, or the numbers of inputs and targets differ.

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
            # index_select is several times faster than x[index]
            return self.x.index_select(0, index), self.y.index_select(0, index)
        return self.x[index], self.y[index]


def row_order(rows: int, seed: int, epoch: int) -> Tensor:
    """Return the order in which an epoch visits the rows.

    It is a pure function of its arguments and reads no global generator: a run that resumes at epoch 7 visits the rows
    exactly as if it had never been interrupted.

    Args:
        rows: number of rows.
        seed: seed of the row order.
        epoch: number of the epoch, from 0.

    Returns:
        A permutation of the row indices, shape `(rows,)`.

    >>> row_order(4, seed=0, epoch=0).sort().values
    tensor([0, 1, 2, 3])
    """
    return torch.randperm(rows, generator=torch.Generator().manual_seed(derive(seed, "order", epoch)))


class BatchIndices(Sampler[Tensor]):
    """The row indices of each batch of an epoch, each of shape `(batch,)`; the last batch may be smaller.

    Args:
        rows: number of rows.
        batch_size: rows per batch.
        seed: seed of the row order.
        epoch: returns the number of the epoch. It is called when an epoch begins: worker processes load batches ahead
            of time, so setting an attribute of the sampler would come too late.
        shuffle: whether each epoch has a new order; False visits the rows in the order in which they are stored.
        rank: number of this process, from 0.
        world_size: number of processes that share the rows. All get the same number, so some rows may occur twice.

    >>> [batch.tolist() for batch in BatchIndices(5, 2, shuffle=False)]
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
        world_size: int = 1,
    ) -> None:
        self.rows, self.batch_size = rows, batch_size
        self.seed, self.epoch, self.shuffle = seed, epoch, shuffle
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return ceil(ceil(self.rows / self.world_size) / self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        order = row_order(self.rows, self.seed, self.epoch()) if self.shuffle else torch.arange(self.rows)
        if self.world_size > 1:
            share = ceil(self.rows / self.world_size)
            order = order[torch.arange(self.rank, share * self.world_size, self.world_size) % self.rows]
        # split in two steps, the second one lazily: with a batch size of 1 there are as many batches as rows
        parts = order.split(_SPLIT_BATCHES * self.batch_size)
        return chain.from_iterable(part.split(self.batch_size) for part in parts)


def loader(rows: Rows, indices: Sampler[Tensor], num_workers: int = 0) -> DataLoader[Batch]:
    """Return a DataLoader that reads each batch with one index operation instead of row by row.

    Args:
        rows: the rows to read.
        indices: yields the row indices of each batch, shape `(batch,)`.
        num_workers: processes that load batches.
    """
    return DataLoader(
        rows,
        sampler=indices,
        batch_size=None,
        collate_fn=_identity,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )


def evaluation_loader(rows: Rows) -> DataLoader[Batch]:
    """Return a DataLoader of all rows in order, in batches of `EVALUATION_ROWS`."""
    return loader(rows, BatchIndices(len(rows), EVALUATION_ROWS, shuffle=False))


def _identity(batch: Any) -> Any:
    return batch  # a named function, since worker processes may have to unpickle it
