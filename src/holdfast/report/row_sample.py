"""A bounded sample of the rows of a split, for figures and least squares; at random where that is possible."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.fabric.utilities.data import sized_len
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler

from holdfast.data import BatchIndices, Rows
from holdfast.data.datamodule import AnyRows
from holdfast.data.disk_batches import OrderedBatches, ShuffledBatches
from holdfast.data.order import Batch

MAX_ROWS = 10_000
"""Rows of a split that are read."""

_SEED = 0  # a report that is made again samples the same rows


class RowSample(NamedTuple):
    """Rows of one split.

    Attributes:
        x: inputs, shape `(rows, features)`.
        y: targets, shape `(rows, 1)`; of a table `(rows, targets)`, or class codes, shape `(rows,)`.
        note: which rows of the split were read; "" if all.
    """

    x: Tensor
    y: Tensor
    note: str


def sample_rows(loader: Any, limit: int | float | None) -> RowSample | None:
    """Read at most `MAX_ROWS` rows of a loader, without worker processes.

    Rows of a dataset with an index are chosen at random before any of them is read. Of a stream, and of a loader with
    a sampler that is not torch's, the first rows are read.

    Args:
        loader: an iterable of batches, of any type.
        limit: where the first rows are read: number of batches to read, fraction of the batches, or None for all, as
            Lightning's `limit_train_batches`.

    Returns:
        The rows; None if they are not vectors of floats with one float as the target.
    """
    if isinstance(loader, (ShuffledBatches, OrderedBatches)):
        sample = sample_table(loader.rows)
        return sample if _is_regression((sample.x, sample.y)) else None
    if not isinstance(loader, DataLoader):
        return _first_rows(loader, limit)
    dataset = loader.dataset
    if isinstance(dataset, Rows) and isinstance(loader.sampler, BatchIndices):
        index = _random_index(len(dataset))
        return _concatenate([dataset[torch.from_numpy(index)]], _random_note(index, len(dataset)))
    if (rows := _indexed_rows(loader)) is not None:
        index = _random_index(rows)
        batches = DataLoader(dataset, loader.batch_size, sampler=index.tolist(), collate_fn=loader.collate_fn)
        return _concatenate(batches, _random_note(index, rows))
    loader = copy.copy(loader)  # the user's loader keeps its workers
    loader.num_workers = loader.timeout = 0
    return _first_rows(loader, limit)


def sample_table(rows: AnyRows) -> RowSample:
    """Read at most `MAX_ROWS` rows, in memory or on disk; of a table they are encoded."""
    index = _random_index(len(rows))
    return RowSample(*rows[torch.from_numpy(index)], _random_note(index, len(rows)))


def _indexed_rows(loader: DataLoader[Any]) -> int | None:
    """Return the number of rows that an epoch visits, if torch's own samplers visit each once; otherwise None."""
    dataset, sampler = loader.dataset, loader.sampler
    if type(loader) is not DataLoader or type(loader.batch_sampler) is not BatchSampler:
        return None
    if isinstance(dataset, IterableDataset):
        return None
    rows = len(dataset)  # type: ignore[arg-type]
    if type(sampler) is SequentialSampler:  # with drop_last it always leaves out the same rows
        return rows - (rows % loader.batch_size if loader.drop_last and loader.batch_size else 0)
    return rows if type(sampler) is RandomSampler and not sampler.replacement and len(sampler) == rows else None


def _random_index(rows: int) -> NDArray[np.int64]:
    """Return the indices of the rows to read, ascending: all, or a uniform sample."""
    if rows <= MAX_ROWS:
        return np.arange(rows)
    return np.sort(np.random.default_rng(_SEED).choice(rows, MAX_ROWS, replace=False, shuffle=False))


def _random_note(index: NDArray[np.int64], rows: int) -> str:
    return f"{len(index):,} of {rows:,} rows, drawn at random" if len(index) < rows else ""


def _first_rows(loader: Any, limit: int | float | None) -> RowSample | None:
    length = sized_len(loader)
    if isinstance(limit, float):  # a fraction of a stream is unknown, so the stream is read up to MAX_ROWS
        limit = None if length is None else int(limit * length)
    batches: list[Batch] = []
    rows = 0
    for batch in islice(loader, limit):
        if not _is_regression(batch):
            return None
        batches.append(batch)
        rows += max(1, len(batch[0]))  # a stream of empty batches must end too
        if rows >= MAX_ROWS:
            break
    is_cut = rows > MAX_ROWS or (len(batches) != length and (rows >= MAX_ROWS or len(batches) == limit))
    stream = " of a stream" if length is None else ""
    return _concatenate(batches, f"the first {min(rows, MAX_ROWS):,} rows{stream}" if is_cut else "")


def _concatenate(batches: Iterable[Any], note: str) -> RowSample | None:
    """Join batches, reading none after the first that is not for regression."""
    pairs: list[Batch] = []
    for batch in batches:
        if not _is_regression(batch):
            return None
        pairs.append(batch)
    if not pairs:
        return None
    x, y = (torch.cat(parts)[:MAX_ROWS] for parts in zip(*pairs, strict=True))
    return RowSample(x, y, note)


def _is_regression(batch: Any) -> bool:
    """Whether a batch is a pair of float inputs `(rows, features)` and float targets `(rows, 1)`."""
    if not (isinstance(batch, (list, tuple)) and len(batch) == 2):
        return False
    x, y = batch
    are_matrices = all(isinstance(part, Tensor) and part.ndim == 2 and part.is_floating_point() for part in batch)
    return are_matrices and len(x) == len(y) and y.shape[1] == 1
