"""The rows that the jobs of a stack visit: on the device, in order, and several iterations gathered at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import lightning.pytorch as pl
import torch
from torch import Tensor

from holdfast.arithmetic.gradients import Gradients, on_device
from holdfast.arithmetic.layout import Batch, Indexes
from holdfast.data import BufferedRows, Rows, row_order
from holdfast.data.datamodule import AnyRows
from holdfast.data.disk_batches import OrderedBatches
from holdfast.data.order import EVALUATION_ROWS
from holdfast.record.stopping import CHECK_EVERY
from holdfast.stacked.streams import StackRows

_NUMBERS_GATHERED = 1 << 20  # gathered at a time: enough to be fast, few enough to stay in the cache


class StackBatches:
    """The batches of a stack.

    An epoch is a sequence of buffers, and each stream has an order of its own in each of them. Rows in memory are one
    buffer, which holds those of all data sets, one after the other.

    Args:
        rows: the data sets of the jobs.
        gradients: prepares rows, and splits what is gathered into batches.
        trainer: knows the device.

    Attributes:
        train, val: the prepared rows of each data set, in order, in batches of `EVALUATION_ROWS`.
    """

    train: Sequence[Iterable[Batch]]
    val: Sequence[Iterable[Batch]]

    def __init__(self, rows: StackRows, gradients: Gradients, trainer: pl.Trainer) -> None:
        self._rows, self._gradients, self._trainer = rows, gradients, trainer
        self._streams, self._epoch, self._ends = rows.stream_of[:0], -1, list[int]()
        self._number = -1  # of the buffer in the epoch; -1 before the first
        self._order = torch.empty(0)  # of the rows of the buffer, shape `(streams, rows)`
        self._buffer: Batch = ()
        self._is_prepared = isinstance(rows.train[0], Rows)  # rows on disk are prepared when they are gathered
        self.val = [self._in_order(each) for each in rows.val]
        whole = [self._prepared(each) for each in rows.train if isinstance(each, Rows)]
        self.train = list(map(_split, whole)) or [self._in_order(each) for each in rows.train]
        if whole:
            self._buffer = whole[0] if len(whole) == 1 else tuple(map(torch.cat, zip(*whole, strict=True)))

    def begin_epoch(self, streams: Indexes, epoch: int) -> None:
        """Begin an epoch.

        Args:
            streams: the streams that are trained on.
            epoch: number of the epoch.
        """
        self._streams, self._epoch, self._number = streams, epoch, -1
        self._ends = list(accumulate(self._rows.train[0].sizes(epoch, shuffle=self._rows.streams[0].shuffle)))

    def next(self, done: int, width: int) -> list[Batch]:
        """The batches of the next iterations, gathered together; none goes beyond the next `CHECK_EVERY` iterations.

        Args:
            done: number of iterations of this epoch so far.
            width: number of jobs in a stream.
        """
        rows, size, count = self._ends[-1], self._rows.batch_size, 1
        start, full_batches = done * size, rows // size
        end = self._load(start)
        if done < full_batches:
            numbers = len(self._streams) * size * (sum(part[0].numel() for part in self._buffer) + width)
            complete = min(full_batches, end // size) - done  # batches of which all rows are in the buffer
            count = max(1, min(complete, CHECK_EVERY - done % CHECK_EVERY, _NUMBERS_GATHERED // numbers))
        stop = min(start + count * size, rows)
        gathered = self._gathered(start, min(stop, end), count)
        while end < stop:  # one batch, which goes on in the next buffer
            start, end = end, self._load(end)
            more = self._gathered(start, min(stop, end), count)
            gathered = tuple(torch.cat(parts, 2) for parts in zip(gathered, more, strict=True))
        return self._gradients.batches(gathered, width)

    def _load(self, position: int) -> int:
        """Load the buffer that holds the row at a position of the epoch, unless it is the present one.

        Returns:
            The position at which the buffer ends.
        """
        number, shuffle = bisect_right(self._ends, position), self._rows.streams[0].shuffle
        if number != self._number:
            self._order = torch.empty(0)  # what was there before gives its memory to the next
            if len(self._ends) > 1 or not self._buffer:
                self._buffer = ()
                train = self._rows.train[0]
                rows = train.buffer(self._epoch, number, shuffle=shuffle)
                on_cpu = self._trainer.strategy.root_device.type == "cpu"
                self._buffer = (rows.x, rows.y) if on_cpu else on_device(self._trainer, rows)
                train.read_on(self._epoch, number, shuffle=shuffle)
            self._number = number
            self._order = self._orders()
        return self._ends[number]

    def _orders(self) -> Tensor:
        """The rows of the buffer in the order in which each stream visits them, shape `(streams, rows)`."""
        size = self._ends[self._number] - self._first
        orders = torch.empty(len(self._streams), size, dtype=torch.int64)
        for order, index in zip(orders, self._streams, strict=True):
            stream = self._rows.streams[index]
            rows = row_order(size, stream.seed, self._epoch, self._number) if stream.shuffle else torch.arange(size)
            torch.add(rows, stream.dataset * size, out=order)
        return orders.to(self._buffer[0].device)

    @property
    def _first(self) -> int:
        """The position in the epoch at which the buffer begins."""
        return self._ends[self._number - 1] if self._number else 0

    def _gathered(self, start: int, stop: int, count: int) -> Batch:
        """The rows at some positions of the epoch, for some iterations, shape `(count, streams, rows, ...)`."""
        index = self._order[:, start - self._first : stop - self._first]
        streams = len(index)
        index = index.view(streams, count, -1).transpose(0, 1).reshape(-1)  # (count * streams * rows,)
        gathered: Batch = tuple(part.index_select(0, index) for part in self._buffer)
        if not self._is_prepared:
            gathered = self._prepared(Rows(*gathered))
        return tuple(part.view(count, streams, -1, *part.shape[1:]) for part in gathered)

    def _prepared(self, rows: Rows) -> Batch:
        return self._gradients.prepare(on_device(self._trainer, rows))

    def _in_order(self, rows: AnyRows) -> Iterable[Batch]:
        """All rows in order, in batches."""
        if isinstance(rows, BufferedRows):
            return _Prepared(rows, self._prepared)
        return _split(self._prepared(rows))


def _split(rows: Batch) -> list[Batch]:
    # the batches that a Trainer evaluates: the statistics of a user's module need not be additive
    return list(zip(*(torch.split(part, EVALUATION_ROWS) for part in rows), strict=True))


@dataclass(frozen=True)
class _Prepared:
    """Batches that are read, and prepared, each time they are asked for."""

    rows: BufferedRows
    prepare: Callable[[Rows], Batch]

    def __iter__(self) -> Iterator[Batch]:
        return (self.prepare(Rows(*batch)) for batch in OrderedBatches(self.rows).read())
