"""The last pass over the columns of a table: its rows encoded, and written in blocks, a file for each split.

Test rows are written as they were read, and encoded when they are opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from holdfast.caching.column_reader import ColumnReader
from holdfast.caching.dividing import SplitFile
from holdfast.caching.raw_columns import Matrix, RawColumns
from holdfast.data.blocks import BlockFile, BlockForm, BlockWriter
from holdfast.data.buffered import BufferedRows
from holdfast.data.order import Batch
from holdfast.tables.encoding import Encoder, Encoding
from holdfast.tables.facts import class_name
from holdfast.tables.notes import NEARLY_ONE

_NUMBERS = 1 << 16
"""Numbers that are encoded at once."""

_ROUNDING = 1e-12
"""Relative size of differences that rounding may explain."""

_MOST_HASHES = 1 << 22
"""Rows that are compared with each other; of more, a part that is chosen by their values."""


class Blocks(NamedTuple):
    """A file of blocks: the shape of its rows, and the checksum of each block."""

    form: BlockForm
    checks: list[int]


class Noted(NamedTuple):
    """What was noted while rows were written.

    Attributes:
        shared: rows whose values are those of a row in another split; an estimate where `part` is above 1.
        part: one of so many different rows was compared.
        alone: features, each with a target that it predicts almost perfectly.
    """

    shared: int
    part: int
    alone: list[tuple[str, str]]


class RowEncoder:
    """Encodes the columns of a table on disk.

    Args:
        encoding: of the table.
        readers: of each column, which know its levels.
    """

    def __init__(self, encoding: Encoding, readers: Mapping[str, ColumnReader]) -> None:
        self._encoding, self._encoder = encoding, Encoder(encoding)
        self._level_of = {
            at: _numbers(readers[each.name].levels, each.levels)
            for at, each in enumerate(encoding.features)
            if each.kind == "text"
        }
        target = readers[encoding.targets[0].name]
        self._is_text = target.kind == "text"
        self._class_of = _numbers(target.levels, encoding.classes) if self._is_text else np.empty(0)
        self._kind = target.kind
        self._codes = {name: float(code) for code, name in enumerate(encoding.classes)}

    def raw(self, features: Matrix) -> NDArray[np.float64]:
        """Features as they enter the encoder: texts as the numbers of their levels, shape `(rows, columns)`."""
        raw = np.ascontiguousarray(features.T)
        for column, level_of in self._level_of.items():
            codes = features[column]
            raw[:, column] = np.where(np.isnan(codes), np.nan, level_of[np.nan_to_num(codes).astype(np.int64)])
        return raw

    def targets(self, values: Matrix) -> NDArray[np.float64]:
        """Targets as they were read, of a classification the numbers of the classes; shape `(rows, targets)`."""
        if not self._encoding.classes:
            return np.ascontiguousarray(values.T)
        if self._is_text:
            return np.asarray(self._class_of[values[0].astype(np.int64)][:, None])
        distinct, index = np.unique(values[0], return_inverse=True)
        codes = np.array([self._codes[class_name(value, self._kind)] for value in distinct.tolist()])
        return np.asarray(codes[index.reshape(-1)][:, None])


def _numbers(levels: Sequence[str], kept: Sequence[str]) -> NDArray[np.float64]:
    """The number of each level among those that are kept; one past the last for all others."""
    number_of = {level: float(number) for number, level in enumerate(kept)}
    return np.array([*(number_of.get(level, float(len(kept))) for level in levels), np.nan])


def encoded(encoding: Encoding, encoder: Encoder, raw: NDArray[np.float64], targets: NDArray[np.float64]) -> Batch:
    """Inputs and targets as they are trained on, from what `RowEncoder` returns."""
    x = encoder(torch.from_numpy(raw))
    if encoding.classes:
        return x, torch.from_numpy(targets[:, 0].astype(np.int64))
    means, scales = (np.array([getattr(each, name) for each in encoding.targets]) for name in ("mean", "scale"))
    return x, torch.from_numpy((targets - means) / scales).float()


def write_rows(
    paths: Sequence[Path],
    raw: RawColumns,
    split: SplitFile,
    readers: Mapping[str, ColumnReader],
    encoding: Encoding,
) -> tuple[list[Blocks], Noted]:
    """Write the rows of all splits.

    Args:
        paths: the files of training, validation and test rows.
        raw: the columns.
        split: of each row.
        readers: of each column.
        encoding: of the table.

    Raises:
        StorageError: a file cannot be written.
    """
    names = [*(each.name for each in encoding.features), *(each.name for each in encoding.targets)]
    features, targets = len(encoding.features), 0 if encoding.classes else len(encoding.targets)
    rows, encoder = RowEncoder(encoding, readers), Encoder(encoding)
    shared, alone = _Shared(), _Alone(encoding)
    is_class = bool(encoding.classes)
    with ExitStack() as stack:
        stack.enter_context(_one_thread())
        shapes = [(len(encoding.inputs), targets, is_class)] * 2 + [(2 * features, 2 * len(encoding.targets), False)]
        writers = [stack.enter_context(BlockWriter(path, *shape)) for path, shape in zip(paths, shapes, strict=True)]
        for piece, part in _slices(raw, split, names):
            shared.add(piece, part)
            raw_rows, raw_targets = rows.raw(piece[:features]), rows.targets(piece[features:])
            x, y = (each.numpy() for each in encoded(encoding, encoder, raw_rows[part < 2], raw_targets[part < 2]))
            of_train = part[part < 2] == 0
            alone.add(piece[:, part == 0])
            writers[0].write(x[of_train], y[of_train])
            writers[1].write(x[~of_train], y[~of_train])
            writers[2].write(raw_rows[part == 2].view(np.float32), raw_targets[part == 2].view(np.float32))
        blocks = [Blocks(*writer.finish()) for writer in writers]
    return blocks, Noted(*shared.count(), alone.pairs())


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread: slices are too small for two, which would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _slices(raw: RawColumns, split: SplitFile, names: Sequence[str]) -> Iterator[tuple[Matrix, NDArray[np.int8]]]:
    """Some columns and the splits of their rows, few enough at a time to stay in the processor's cache."""
    for piece, part in zip(raw.read(names), split.read(), strict=True):
        size = max(1, _NUMBERS // len(names))
        for start in range(0, len(part), size):
            yield piece[:, start : start + size], part[start : start + size]


class SealedRows(BufferedRows):
    """Test rows, which are encoded when they are read.

    Args:
        file: the rows as they were read, whose doubles are written as pairs of floats.
        encoding: of the table.
    """

    def __init__(self, file: BlockFile, encoding: Encoding) -> None:
        super().__init__(file, len(file.checks), 0)
        self._encoding, self._encoder = encoding, Encoder(encoding)

    def encoded(self, batch: Batch) -> Batch:
        """Encode rows that were read."""
        raw, targets = (part.view(torch.float64).numpy() for part in batch)
        return encoded(self._encoding, self._encoder, raw, targets)


class _Shared:
    """Counts rows whose values are those of a row in another split, by a number of 64 bits for each row."""

    def __init__(self) -> None:
        self._part = 1
        self._hashes, self._splits, self._kept = list[NDArray[np.uint64]](), list[NDArray[np.int8]](), 0

    def add(self, piece: Matrix, split: NDArray[np.int8]) -> None:
        hashes = np.zeros(piece.shape[1], dtype=np.uint64)
        for column in piece:
            bits = np.where(np.isnan(column), np.nan, column + 0.0).view(np.uint64)  # one NaN, and one zero
            hashes = (hashes ^ bits) * np.uint64(0x9E3779B97F4A7C15)
            hashes ^= hashes >> np.uint64(29)
        self._keep(hashes, split)
        while self._kept > _MOST_HASHES:
            self._part *= 2
            old = list(zip(self._hashes, self._splits, strict=True))
            self._hashes, self._splits, self._kept = [], [], 0
            for some, of_some in old:
                self._keep(some, of_some)

    def _keep(self, hashes: NDArray[np.uint64], split: NDArray[np.int8]) -> None:
        kept = hashes % np.uint64(self._part) == 0
        self._hashes.append(hashes[kept])
        self._splits.append(split[kept])
        self._kept += int(kept.sum())

    def count(self) -> tuple[int, int]:
        """The number of such rows, and one of how many rows was compared."""
        hashes, splits = np.concatenate(self._hashes), np.concatenate(self._splits)
        order = np.argsort(hashes, kind="stable")
        hashes, splits = hashes[order], splits[order]
        begins = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1])) if len(hashes) else np.empty(0, int)
        if not len(begins):
            return 0, self._part
        differ = np.maximum.reduceat(splits, begins) != np.minimum.reduceat(splits, begins)
        counts = np.diff(np.append(begins, len(hashes)))
        return int(counts[differ].sum()) * self._part, self._part


class _Alone:
    """Finds the features whose training rows are almost perfectly correlated with those of a target."""

    def __init__(self, encoding: Encoding) -> None:
        self._features = [at for at, each in enumerate(encoding.features) if each.kind == "number"]
        self._names = [encoding.features[at].name for at in self._features]
        self._targets = () if encoding.classes else encoding.targets
        self._first_target = len(encoding.features)
        self._sums = np.zeros((6, len(self._features), len(self._targets)))
        self._means: NDArray[np.float64] | None = None
        self._largest = np.zeros((len(self._features), 1)), np.zeros(len(self._targets))  # absolute values

    def add(self, piece: Matrix) -> None:
        """Add some training rows: features, then targets."""
        if not self._targets or not self._features or not piece.shape[1]:
            return
        x = piece[self._features]
        y = piece[self._first_target :]
        if self._means is None:  # the first rows lie near enough to the mean to keep the sums precise
            with np.errstate(invalid="ignore"):
                means = np.array([np.mean(row[~np.isnan(row)]) if not np.isnan(row).all() else 0.0 for row in x])
            self._means, self._target_means = means[:, None], y.mean(1, keepdims=True)
        largest_x, largest_y = (np.fmax.reduce(np.abs(part), 1) for part in (x, y))
        self._largest = np.fmax(self._largest[0], largest_x[:, None]), np.fmax(self._largest[1], largest_y)
        present = ~np.isnan(x)
        x, y = np.where(present, x - self._means, 0.0), y - self._target_means
        some = present.astype(np.float64)
        sums = (some @ np.ones_like(y).T, x @ np.ones_like(y).T, some @ y.T, (x * x) @ np.ones_like(y).T)
        self._sums += np.stack([*sums, some @ (y * y).T, x @ y.T])

    def pairs(self) -> list[tuple[str, str]]:
        """The features, each with its target."""
        count, x, y, xx, yy, xy = self._sums
        with np.errstate(all="ignore"):
            variances = (count * xx - x * x) / count**2, (count * yy - y * y) / count**2
            correlation = (count * xy - x * y) / count**2 / np.sqrt(variances[0] * variances[1])
        # of values that are all equal the sums hold nothing but rounding errors
        vary = [part > (_ROUNDING * most) ** 2 for part, most in zip(variances, self._largest, strict=True)]
        found = (np.abs(correlation) > NEARLY_ONE) & (count > 2) & vary[0] & vary[1]
        return [
            (name, target.name)
            for row, name in zip(found, self._names, strict=True)
            for is_alone, target in zip(row, self._targets, strict=True)
            if is_alone
        ]
