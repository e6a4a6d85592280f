"""The batches of rows on disk: shuffled for training, and in order for everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import ceil

import torch

from holdfast.data.buffered import BufferedRows, ReadAhead
from holdfast.data.order import EVALUATION_ROWS, Batch, BatchIndices


class ShuffledBatches:
    """The training batches of an epoch, read from disk; a batch may have rows of several buffers.

    Each call of `iter` begins the epoch that `indices` names at that moment.

    Args:
        rows: the rows.
        indices: cuts an epoch into batches.
        done: returns the number of batches of the epoch that were trained on before; they are left out.
    """

    def __init__(self, rows: BufferedRows, indices: BatchIndices, done: Callable[[], int] = lambda: 0) -> None:
        self.rows, self.indices, self.done = rows, indices, done

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Batch]:
        _draw()
        return self._batches(self.indices.epoch(), self.done())

    def _batches(self, epoch: int, done: int) -> Iterator[Batch]:
        size, shuffle = self.indices.batch_size, self.indices.shuffle
        rest = self.rows.file.form.empty(0)
        sizes = self.rows.sizes(epoch, shuffle=shuffle)
        skipped = done * size
        for number, all_visited in enumerate(self.indices.in_buffers(epoch, sizes)):
            visited, skipped = all_visited[skipped:], max(0, skipped - len(all_visited))
            if not len(visited):
                continue
            buffer = self.rows.buffer(epoch, number, shuffle=shuffle)
            self.rows.read_on(epoch, number, shuffle=shuffle)
            missing = -len(rest[0]) % size  # rows that complete the batch which the last buffer has begun
            if missing:
                begun = buffer[visited[:missing]]
                rest = torch.cat([rest[0], begun[0]]), torch.cat([rest[1], begun[1]])
            if len(rest[0]) == size:
                yield rest
                rest = self.rows.file.form.empty(0)
            order = visited[missing:]
            whole = len(order) // size * size
            for index in self.indices.split(order[:whole]):
                yield buffer[index]
            if whole < len(order):
                rest = buffer[order[whole:]]
            del buffer  # the next one takes its memory
        if len(rest[0]):
            yield rest


class OrderedBatches:
    """All rows in the order of the file, in batches; the next one is read while one is in use.

    Args:
        rows: the rows.
        batch_size: rows per batch.
        share: the batches of one of several processes that share the rows; None for all rows.
    """

    def __init__(
        self, rows: BufferedRows, batch_size: int = EVALUATION_ROWS, share: Sequence[slice] | None = None
    ) -> None:
        self.rows, self.batch_size = rows, batch_size
        self._share = share

    def __len__(self) -> int:
        return ceil(len(self.rows) / self.batch_size) if self._share is None else len(self._share)

    def __iter__(self) -> Iterator[Batch]:
        _draw()
        return self.read()

    def read(self) -> Iterator[Batch]:
        """The batches, without a draw from torch's global generator."""
        first, *others = self._share or self._all()
        ahead = self._read(first)
        for rows in others:
            batch, ahead = ahead.result(), self._read(rows)
            yield self.rows.encoded(batch)
        yield self.rows.encoded(ahead.result())

    def _all(self) -> list[slice]:
        return [slice(start, start + self.batch_size) for start in range(0, len(self.rows), self.batch_size)]

    def _read(self, rows: slice) -> ReadAhead[Batch]:
        return ReadAhead(*self.rows.reading(rows))


def _draw() -> None:
    """Draw what a DataLoader draws when it begins: a module then has the random numbers that it has with one."""
    torch.empty((), dtype=torch.int64).random_()
