"""Which column of a stack's tensors belongs to which job."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Batch = tuple[Tensor, ...]
"""Tensors whose first dimensions are the same rows, such as inputs and targets."""

Indexes = NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """The jobs of a stack in rows, one row for each stream, so that a batch is read once for a whole row.

    Where short rows would more than double the number of cells, each job has a row of its own, and `streams` repeats.
    Tensors of a stack end in the dimensions `(streams, width)`; flattened, these are `(columns,)`.

    Attributes:
        jobs: the index of the job in each cell, shape `(streams, width)`; a short row repeats its first job.
        streams: the stream of each row, shape `(streams,)`.
        live: the indexes of the jobs that are still running, each once, shape `(live,)`.
        columns: the column of each of these jobs, shape `(live,)`.
    """

    jobs: Indexes
    streams: Indexes
    live: Indexes
    columns: Indexes

    @classmethod
    def of(cls, live: Indexes, stream_of: Indexes) -> Layout:
        """Lay out jobs.

        Args:
            live: indexes of the jobs, shape `(live,)`.
            stream_of: the stream of every job of the stack, shape `(jobs,)`.

        >>> Layout.of(np.array([0, 1, 2, 4]), stream_of=np.array([7, 8, 7, 9, 7])).jobs.tolist()
        [[0, 2, 4], [1, 1, 1]]
        """
        order = live[np.argsort(stream_of[live], kind="stable")]
        streams, first, counts = np.unique(stream_of[order], return_index=True, return_counts=True)
        width = counts.max()
        if len(streams) * width > 2 * len(live):  # too many cells would repeat a job: one row for each job
            streams, first, counts, width = stream_of[order], np.arange(len(order)), np.ones_like(order), 1
        offset = np.arange(width)
        is_filled = offset < counts[:, np.newaxis]
        jobs = order[first[:, np.newaxis] + np.where(is_filled, offset, 0)]
        return cls(jobs, streams, jobs[is_filled], np.flatnonzero(is_filled))
