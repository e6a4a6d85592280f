"""Where the jobs of a stack lie: those that visit the same batches beside each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Grid:
    """Where the jobs of a stack lie: those of a row visit the same batches.

    Attributes:
        jobs: their numbers, shape `(streams, jobs)`; a short row is filled up with its first job again.
        streams: the stream of each row, shape `(streams,)`.
        live: the jobs, each once.
        at: where each of them lies in the flattened grid.
    """

    jobs: Numbers
    streams: Numbers
    live: Numbers
    at: Numbers

    @classmethod
    def of(cls, live: Numbers, stream_of: Numbers) -> Grid:
        """Lay out some jobs.

        >>> Grid.of(np.array([0, 1, 2, 4]), stream_of=np.array([7, 8, 7, 9, 7])).jobs.tolist()
        [[0, 2, 4], [1, 1, 1]]
        """
        order = live[np.argsort(stream_of[live], kind="stable")]
        streams, first, counts = np.unique(stream_of[order], return_index=True, return_counts=True)
        width = counts.max()
        if len(streams) * width > 2 * len(live):  # rows of too different lengths: each job by itself
            streams, first, counts, width = stream_of[order], np.arange(len(order)), np.ones_like(order), 1
        column = np.arange(width)
        own = column < counts[:, np.newaxis]
        jobs = order[first[:, np.newaxis] + np.where(own, column, 0)]
        return cls(jobs, streams, jobs[own], np.flatnonzero(own))
