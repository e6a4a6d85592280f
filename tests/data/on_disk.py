"""Rows on disk for tests: files of blocks, blocks of a few rows, and a data module of such files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from holdfast.data import BufferedRows, DataModule, Rows, blocks, buffered
from holdfast.data.blocks import BlockFile, BlockForm, BlockWriter
from holdfast.data.datamodule import AnyRows
from holdfast.data.split import Split


@contextmanager
def blocks_of(rows: int, least: int = 1) -> Iterator[None]:
    """Make blocks of a few rows, and buffers of a few blocks, so that short files have many of both."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_ROWS", rows)
        patch.setattr(buffered, "BLOCK_ROWS", rows)
        patch.setattr(buffered, "LEAST_BLOCKS", least)
        yield


def written(path: Path, x: Tensor, y: Tensor, *, classes: bool = False, piece: int = 1000) -> BlockFile:
    """Write rows in pieces."""
    with BlockWriter(path, x.shape[1], 1 if classes else y.shape[1], classes) as writer:
        for start in range(0, len(x), piece):
            writer.write(x[start : start + piece].numpy(), y[start : start + piece].numpy())
        form, checks = writer.finish()
    path.with_suffix(".json").write_text(json.dumps([list(form), checks]))
    return BlockFile(path, form, checks)


def numbered(path: Path, rows: int, features: int = 2) -> BlockFile:
    """A file whose x is the number of the row, and whose y is minus that."""
    x = torch.arange(float(rows)).unsqueeze(1).repeat(1, features)
    return written(path, x, -x[:, :1])


class OnDisk(DataModule):
    """The files of `make`, read through buffers, or as a whole where `buffer_rows` is 0."""

    def __init__(
        self,
        folder: str,
        *,
        batch_size: int | Literal["full"] = 1,
        order_seed: int = 0,
        shuffle: bool = True,
        num_workers: int = 0,
        buffer_rows: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, order_seed, shuffle, num_workers)
        self._folder, self._buffer_rows, self._seed = Path(folder), buffer_rows, seed

    def draw(self, split: Split) -> AnyRows:
        path = self._folder / split
        form, checks = json.loads(path.with_suffix(".json").read_text())
        file = BlockFile(path, BlockForm(*form), checks)
        rows = BufferedRows(file, self._buffer_rows or file.form.rows, self._seed)
        return rows if self._buffer_rows else Rows(*rows[:])


def make(folder: Path, rows: int, *, features: int = 3, sort: bool = False) -> dict[str, Any]:
    """Write the three splits of a linear function, and return the group `data` that reads them."""
    folder.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    weight = torch.arange(1.0, features + 1).unsqueeze(1)
    for split, count in (("train", rows), ("val", rows // 3 + 1), ("test", rows // 5 + 1)):
        x = torch.randn(count, features, generator=generator)
        y = x @ weight + 0.5 * torch.randn(count, 1, generator=generator) + 1
        if sort:
            order = y[:, 0].argsort()
            x, y = x[order], y[order]
        written(folder / split, x, y)
    return {"_target_": f"{__name__}.OnDisk", "folder": str(folder)}


def random_pieces(rows: int, seed: int) -> list[int]:
    """Lengths of pieces of some rows, in total."""
    generator, pieces = np.random.default_rng(seed), list[int]()
    while sum(pieces) < rows:
        pieces.append(int(generator.integers(0, rows - sum(pieces) + 1)))
    return pieces
