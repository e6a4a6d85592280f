"""The rows of the jobs of a stack, and the order in which each job visits them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from holdfast.config.options import source
from holdfast.config.schema import Config
from holdfast.data import BufferedRows, DataModule, Rows
from holdfast.data.datamodule import AnyRows
from holdfast.data.order import batch_rows
from holdfast.single.build import build_data, set_up
from holdfast.usercode.watch import UnstackableError

TRIAL_ROWS = 100
"""Validation rows of a trial."""


class Stream(NamedTuple):
    """An order of rows: jobs of the same stream read the same batches.

    Attributes:
        dataset: index of the data set.
        seed: seed of the order.
        shuffle: whether the rows are shuffled.
    """

    dataset: int
    seed: int
    shuffle: bool


class StackRows:
    """The data sets and streams of the jobs of a stack; equal data sets are held once.

    Args:
        configs: the configuration of each job.
        shipped: whether the data modules ship with Holdfast; then equal settings give equal rows.
        short: keep few rows, for a trial.

    Raises:
        UnstackableError: the rows of the jobs differ in shape, type or batch size.

    Attributes:
        data: the data module of the first job.
        train, val: the rows of each data set.
        dataset_of: the data set of each job, shape `(jobs,)`.
        streams: the different streams.
        stream_of: the stream of each job, shape `(jobs,)`.
        hparams: the hyperparameters of the data module of each job.
    """

    def __init__(self, configs: Sequence[Config], *, shipped: bool, short: bool) -> None:
        self.train: list[AnyRows] = []
        self.val: list[AnyRows] = []
        self.hparams: list[dict[str, Any]] = []
        self._short = short
        self._datasets: dict[str, int] = {}  # the index of each data set, by its source or digest
        modules: dict[str, tuple[DataModule, dict[str, Any], int]] = {}
        streams: dict[Stream, int] = {}
        stream_of, dataset_of = [], []
        for config in configs:
            key = repr(config.data)
            if key not in modules:
                module = build_data(config.data)
                assert isinstance(module, DataModule)
                hparams = dict(module.hparams)
                modules[key] = module, hparams, self._dataset(module, source(config.data) if shipped else "")
            module, hparams, dataset = modules[key]
            stream = Stream(dataset, module.order_seed, module.shuffle)
            stream_of.append(streams.setdefault(stream, len(streams)))
            dataset_of.append(dataset)
            self.hparams.append(hparams)
        self.data = modules[repr(configs[0].data)][0]
        self.streams = list(streams)
        self.stream_of: NDArray[np.int64] = np.array(stream_of)
        self.dataset_of: NDArray[np.int64] = np.array(dataset_of)
        self._check([module for module, _, _ in modules.values()])

    def _dataset(self, module: DataModule, key: str) -> int:
        """The index of the data set of a module; without a key its rows are compared by their digest."""
        if key not in self._datasets:
            set_up(module)
            if self._short:
                shorten(module)
            key = key or _digest(module)
        if key not in self._datasets:
            self._datasets[key] = len(self._datasets)
            self.train.append(module.train)
            self.val.append(module.val)
        return self._datasets[key]

    def _check(self, modules: Sequence[DataModule]) -> None:
        for rows in (self.train, self.val):
            shapes = {part.shapes for part in rows}
            if len(shapes) > 1:
                raise UnstackableError(f"their rows have different shapes: {sorted(map(str, shapes))}")
        if len({module.batch_size for module in modules}) > 1:
            raise UnstackableError("their data modules set different batch sizes")
        if any(isinstance(part, BufferedRows) for rows in (self.train, self.val) for part in rows):
            if len(self.train) > 1:
                raise UnstackableError("their rows differ, and are read from disk, buffer by buffer")
            if len({stream.shuffle for stream in self.streams}) > 1:
                raise UnstackableError("some shuffle their rows, which are read from disk, and others do not")

    @property
    def batch_size(self) -> int:
        """Rows of an iteration."""
        return batch_rows(self.data.train, self.data.batch_size)

    @property
    def iterations(self) -> int:
        """Iterations of an epoch."""
        return -(-len(self.data.train) // self.batch_size)


def shorten(data: DataModule) -> None:
    """Keep the rows that a trial needs: two full training batches and a short one, and `TRIAL_ROWS` to validate on."""
    # copies: a loss that changes its rows in place must not change the user's
    size = batch_rows(data.train, data.batch_size)
    data.train, data.val = data.train.head(2 * size + (size + 1) // 2), data.val.head(TRIAL_ROWS)


def _digest(data: DataModule) -> str:
    digest = hashlib.sha256()
    for rows in (data.train, data.val):
        if isinstance(rows, BufferedRows):
            digest.update(repr(rows.key).encode())
        for part in (rows.x, rows.y) if isinstance(rows, Rows) else ():
            digest.update(f"{part.dtype} {tuple(part.shape)}".encode())
            digest.update(part.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
