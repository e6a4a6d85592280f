"""The rows that the jobs of a stack visit: on the device, in order, and several iterations gathered at a time."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from holdfast.arithmetic.gradients import Gradients, on_device
from holdfast.arithmetic.layout import Batch, Indexes
from holdfast.data import row_order
from holdfast.record.stopping import CHECK_EVERY
from holdfast.stacked.streams import StackRows

_NUMBERS_GATHERED = 1 << 20  # gathered at a time: enough to be fast, few enough to stay in the cache


class StackBatches:
    """The batches of a stack.

    Args:
        rows: the data sets of the jobs.
        gradients: prepares rows, and splits what is gathered into batches.
        trainer: knows the device.

    Attributes:
        train, val: the prepared rows of each data set.
    """

    def __init__(self, rows: StackRows, gradients: Gradients, trainer: pl.Trainer) -> None:
        self._rows, self._gradients = rows, gradients

        def prepared(some: Any) -> Batch:
            return gradients.prepare(on_device(trainer, some))

        self.train, self.val = list(map(prepared, rows.train)), list(map(prepared, rows.val))
        parts = zip(*self.train, strict=True)
        self._all = self.train[0] if len(self.train) == 1 else tuple(map(torch.cat, parts))

    def order(self, streams: Indexes, epoch: int) -> Tensor:
        """The indexes of the rows that each stream visits in an epoch, in order, shape `(streams, rows)`."""
        rows = len(self._rows.data.train)
        orders = []
        for index in streams:
            stream = self._rows.streams[index]
            order = row_order(rows, stream.seed, epoch) if stream.shuffle else torch.arange(rows)
            orders.append(order + stream.dataset * rows)
        return torch.stack(orders).to(self._all[0].device)

    def next(self, order: Tensor, done: int, width: int) -> list[Batch]:
        """The batches of the next iterations, gathered together; none goes beyond the next `CHECK_EVERY` iterations.

        Args:
            order: as returned by `order`.
            done: number of iterations of this epoch so far.
            width: number of jobs in a stream.
        """
        (streams, rows), size, count = order.shape, self._rows.batch_size, 1
        full_batches = rows // size
        if done < full_batches:
            numbers = streams * size * (sum(part[0].numel() for part in self._all) + width)
            count = max(1, min(full_batches - done, CHECK_EVERY - done % CHECK_EVERY, _NUMBERS_GATHERED // numbers))
        start, last = done * size, rows - full_batches * size
        size = size if done < full_batches else last
        index = order[:, start : start + count * size]
        index = index.view(streams, count, size).transpose(0, 1).reshape(-1)  # (count * streams * size,)
        gathered = tuple(part.index_select(0, index).view(count, streams, size, *part.shape[1:]) for part in self._all)
        return self._gradients.batches(gathered, width)
