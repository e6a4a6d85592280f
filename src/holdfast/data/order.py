"""The rows of a split, and the order in which an epoch visits them.

An epoch visits its rows buffer by buffer. Rows in memory are one buffer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from math import ceil
from typing import Any, Literal, Protocol

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


class RowSource(Protocol):
    """The rows of a split, in memory or on disk.

    Attributes:
        buffer_rows: the most rows that a buffer holds.
        shapes: type and shape of x and of y.
    """

    buffer_rows: int

    @property
    def shapes(self) -> tuple[tuple[torch.dtype, torch.Size], tuple[torch.dtype, torch.Size]]:
        """Type and shape of x and of y."""

    def __len__(self) -> int:
        """Number of rows."""

    def __getitem__(self, index: Any, /) -> Batch:
        """The rows of a slice, or of a tensor of row indices."""

    def head(self, count: int) -> Rows:
        """Copies of the first rows."""

    def sizes(self, epoch: int, *, shuffle: bool) -> Sequence[int]:
        """Number of rows of each buffer of an epoch."""

    def buffer(self, epoch: int, number: int, *, shuffle: bool) -> Rows:
        """A buffer of an epoch, in memory; release the one before, so that not more than two take memory."""

    def read_on(self, epoch: int, number: int, *, shuffle: bool) -> None:
        """Begin to read the buffer that follows, in the background; after the last one, the first of the next epoch."""


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
        self.buffer_rows = len(x)

    @property
    def shapes(self) -> tuple[tuple[torch.dtype, torch.Size], tuple[torch.dtype, torch.Size]]:
        """Type and shape of x and of y."""
        return (self.x.dtype, self.x.shape), (self.y.dtype, self.y.shape)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int | slice | Tensor) -> Batch:
        if isinstance(index, Tensor):
            # index_select is several times faster than x[index]
            return self.x.index_select(0, index), self.y.index_select(0, index)
        return self.x[index], self.y[index]

    def head(self, count: int) -> Rows:
        """Copies of the first rows."""
        return Rows(self.x[:count].clone(), self.y[:count].clone())

    def sizes(self, epoch: int, *, shuffle: bool) -> Sequence[int]:
        """Number of rows of each buffer of an epoch: of one that holds all rows."""
        return (len(self),)

    def buffer(self, epoch: int, number: int, *, shuffle: bool) -> Rows:
        """These rows themselves."""
        return self

    def read_on(self, epoch: int, number: int, *, shuffle: bool) -> None:
        """Nothing to do: all rows are in memory."""


def row_order(rows: int, seed: int, epoch: int, buffer: int = 0) -> Tensor:
    """Return the order in which an epoch visits the rows of a buffer.

    It is a pure function of its arguments and reads no global generator: a run that resumes at epoch 7 visits the rows
    exactly as if it had never been interrupted.

    Args:
        rows: number of rows.
        seed: seed of the row order.
        epoch: number of the epoch, from 0.
        buffer: number of the buffer in the epoch, from 0.

    Returns:
        A permutation of the row indices, shape `(rows,)`.

    >>> row_order(4, seed=0, epoch=0).sort().values
    tensor([0, 1, 2, 3])
    """
    stream = ("order", epoch, buffer) if buffer else ("order", epoch)
    return torch.randperm(rows, generator=torch.Generator().manual_seed(derive(seed, *stream)))


def batch_rows(rows: RowSource, batch_size: int | Literal["full"]) -> int:
    """Return the number of rows of an iteration.

    Args:
        rows: the training rows.
        batch_size: as the user has given it; "full" for all rows.

    Raises:
        DataError: a buffer holds fewer rows.

    >>> batch_rows(Rows(torch.zeros(6, 1), torch.ones(6, 1)), "full")
    6
    """
    size = len(rows) if batch_size == "full" else batch_size
    if size > rows.buffer_rows < len(rows):
        raise DataError(
            f"batch_size={batch_size} is {size:,} rows, but only {rows.buffer_rows:,} of the {len(rows):,} rows are in "
            f"memory at a time. Give a batch_size of at most {rows.buffer_rows}, or data.buffer_rows={size}."
        )
    return size


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
        return self.split(next(self.in_buffers(self.epoch(), (self.rows,))))

    def in_buffers(self, epoch: int, sizes: Sequence[int]) -> Iterator[Tensor]:
        """The row indices inside each buffer, in the order in which this process visits the rows of an epoch.

        Together the buffers are one sequence of positions, of which process r of n takes every n-th, from the r-th on.
        What lies beyond the last position begins the last buffer again.

        Args:
            epoch: number of the epoch.
            sizes: number of rows of each buffer.

        >>> [order.tolist() for order in BatchIndices(5, 2, shuffle=False).in_buffers(0, (3, 2))]
        [[0, 1, 2], [0, 1]]
        """
        start, end = 0, ceil(self.rows / self.world_size) * self.world_size
        for number, size in enumerate(sizes):
            order = row_order(size, self.seed, epoch, number) if self.shuffle else torch.arange(size)
            if self.world_size > 1:
                first = start + (self.rank - start) % self.world_size
                stop = end if number == len(sizes) - 1 else start + size
                order = order[(torch.arange(first, max(first, stop), self.world_size) - start) % size]
            yield order
            start += size

    def split(self, order: Tensor) -> Iterator[Tensor]:
        """Split row indices into batches."""
        # in two steps, the second one lazily: with a batch size of 1 there are as many batches as rows
        for part in order.split(_SPLIT_BATCHES * self.batch_size) if len(order) else ():
            yield from part.split(self.batch_size)


def loader(rows: Rows, indices: Iterable[Tensor], num_workers: int = 0) -> DataLoader[Batch]:
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


def evaluation_loader(rows: Rows, share: Sequence[slice] | None = None) -> DataLoader[Batch]:
    """Return a DataLoader of all rows in order, in batches of `EVALUATION_ROWS`, or of a share of them."""
    if share is None:
        return loader(rows, BatchIndices(len(rows), EVALUATION_ROWS, shuffle=False))
    return loader(rows, [torch.arange(batch.start, batch.stop) for batch in share])


def share_of(rows: int, rank: int, world_size: int) -> list[slice]:
    """The batches of the rows that one of several processes measures; every process has the same number of batches.

    Args:
        rows: number of rows, at least one for each process.
        rank: number of the process, from 0.
        world_size: number of processes.

    >>> share_of(7, 0, 2), share_of(7, 1, 2)
    ([slice(0, 3, None)], [slice(3, 7, None)])
    """
    start, stop = rows * rank // world_size, rows * (rank + 1) // world_size
    count = ceil(ceil(rows / world_size) / EVALUATION_ROWS)
    ends = [start + (stop - start) * number // count for number in range(count + 1)]
    return [slice(*pair) for pair in pairwise(ends)]


def _identity(batch: Any) -> Any:
    return batch  # a named function, since worker processes may have to unpickle it
