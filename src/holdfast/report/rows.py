"""The rows of a split that figures show: a bounded number, drawn fairly where that is possible."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.fabric.utilities.data import sized_len
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler

from holdfast.data import BatchIndices, Rows

MOST_ROWS = 10_000
"""Most rows of a split that are read."""

_SEED = 0  # the same rows are drawn each time that a report is

Batch = tuple[Tensor, Tensor]


class Sample(NamedTuple):
    """Rows of one split.

    Attributes:
        x: inputs, shape `(rows, features)`.
        y: targets, shape `(rows, 1)`.
        note: which rows of the split these are; "" if they are all of them.
    """

    x: Tensor
    y: Tensor
    note: str


def sample(loader: Any, limit: int | float | None) -> Sample | None:
    """Read rows of a loader; None if they are not vectors of numbers, each with one number as its target.

    Where a dataset has an index, rows are drawn at random before any of them is read. A stream, and a loader with an
    order that is not torch's own, is read from its front. No worker process is started.

    Args:
        loader: of batches; of any type.
        limit: batches that an epoch takes of what is read from its front, as Lightning's `limit_train_batches`: a
            number, a share of those there are, or None for all.
    """
    if not isinstance(loader, DataLoader):
        return _front(loader, limit)
    dataset = loader.dataset
    if isinstance(dataset, Rows) and isinstance(loader.sampler, BatchIndices):
        index = _draw(len(dataset))
        return _gather([dataset[torch.from_numpy(index)]], _note(index, len(dataset)))
    if (rows := _indexed_rows(loader)) is not None:
        index = _draw(rows)
        batches = DataLoader(dataset, loader.batch_size, sampler=index.tolist(), collate_fn=loader.collate_fn)
        return _gather(batches, _note(index, rows))
    loader = copy.copy(loader)  # the user's stays as it is
    loader.num_workers = loader.timeout = 0
    return _front(loader, limit)


def _indexed_rows(loader: DataLoader[Any]) -> int | None:
    """Rows of a dataset that a loader visits once in an epoch; None where it may do something else."""
    dataset, sampler, batches = loader.dataset, loader.sampler, loader.batch_sampler
    plain = type(loader) is DataLoader and type(batches) is BatchSampler
    if not plain or isinstance(dataset, IterableDataset):
        return None
    rows = len(dataset)  # type: ignore[arg-type]
    if type(sampler) is SequentialSampler:  # it always drops the same last rows
        return rows - (rows % loader.batch_size if loader.drop_last and loader.batch_size else 0)
    return rows if type(sampler) is RandomSampler and not sampler.replacement and len(sampler) == rows else None


def _draw(rows: int) -> Any:
    """The numbers of the rows to read, in order: all of them, or some drawn uniformly."""
    if rows <= MOST_ROWS:
        return np.arange(rows)
    return np.sort(np.random.default_rng(_SEED).choice(rows, MOST_ROWS, replace=False, shuffle=False))


def _note(index: Any, rows: int) -> str:
    return f"{len(index):,} of {rows:,} rows, drawn at random" if len(index) < rows else ""


def _front(loader: Any, limit: int | float | None) -> Sample | None:
    """The first rows of a loader."""
    length = sized_len(loader)
    most = int(limit * length) if isinstance(limit, float) and length is not None else limit
    most = None if isinstance(most, float) else most  # a share of a stream is not known
    batches: list[Batch] = []
    rows = 0
    for batch in islice(loader, most):
        if not _is_regression(batch):
            return None
        batches.append(batch)
        rows += max(1, len(batch[0]))  # batches without rows may have no end either
        if rows >= MOST_ROWS:
            break
    cut = rows > MOST_ROWS or (len(batches) != length and (rows >= MOST_ROWS or len(batches) == most))
    stream = " of a stream" if length is None else ""
    return _gather(batches, f"the first {min(rows, MOST_ROWS):,} rows{stream}" if cut else "")


def _gather(batches: Iterable[Any], note: str) -> Sample | None:
    """Batches as one sample; what follows a batch of another form is not read."""
    parts: list[Batch] = []
    for batch in batches:
        if not _is_regression(batch):
            return None
        parts.append(batch)
    if not parts:
        return None
    x, y = (torch.cat(part)[:MOST_ROWS] for part in zip(*parts, strict=True))
    return Sample(x, y, note)


def _is_regression(batch: Any) -> bool:
    """Whether a batch is a pair of inputs and targets, each of shape `(rows, columns)`, with one column of targets."""
    if not (isinstance(batch, (list, tuple)) and len(batch) == 2):
        return False
    x, y = batch
    vectors = all(isinstance(part, Tensor) and part.ndim == 2 and part.is_floating_point() for part in batch)
    return vectors and len(x) == len(y) and y.shape[1] == 1
