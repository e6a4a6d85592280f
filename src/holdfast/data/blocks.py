"""A file of rows in blocks of 4,096: written once, then read block by block, straight into the memory of tensors."""

from __future__ import annotations

import os
import shlex
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holdfast.errors import DataError, StorageError

BLOCK_ROWS = 4096
"""Rows of a block; only the last block of a file may have fewer."""


class BlockForm(NamedTuple):
    """The shape of the rows of a file.

    Attributes:
        rows: number of rows.
        features: columns of x, which is float32 of shape `(rows, features)`.
        targets: columns of y, which is float32 of shape `(rows, targets)`.
        classes: whether y holds class codes instead, int64 of shape `(rows,)`.

    >>> BlockForm(rows=10_000, features=3, targets=1, classes=False).blocks
    3
    """

    rows: int
    features: int
    targets: int
    classes: bool

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-self.rows // BLOCK_ROWS)

    @property
    def row_bytes(self) -> tuple[int, int]:
        """Bytes of x and of y in one row."""
        return 4 * self.features, 8 if self.classes else 4 * self.targets

    @property
    def shapes(self) -> tuple[tuple[torch.dtype, torch.Size], tuple[torch.dtype, torch.Size]]:
        """Type and shape of x and of y."""
        y = (torch.int64, torch.Size([self.rows])) if self.classes else (torch.float32, self._size(self.targets))
        return (torch.float32, self._size(self.features)), y

    def _size(self, columns: int) -> torch.Size:
        return torch.Size([self.rows, columns])

    def rows_of(self, block: int) -> int:
        """Number of rows of a block."""
        return min(BLOCK_ROWS, self.rows - block * BLOCK_ROWS)

    def offset(self, block: int) -> int:
        """Where a block begins, in bytes."""
        return min(block * BLOCK_ROWS, self.rows) * sum(self.row_bytes)

    def empty(self, rows: int) -> tuple[Tensor, Tensor]:
        """Memory for the x and the y of some rows."""
        (x, (_, features)), (y, (_, *targets)) = self.shapes
        return torch.empty(rows, features, dtype=x), torch.empty(rows, *targets, dtype=y)


class BlockWriter:
    """Writes rows to a file of blocks.

    Each block is the bytes of the x of its rows, followed by the bytes of their y.

    Args:
        path: the file; an older one is replaced.
        features, targets, classes: as in `BlockForm`.

    Raises:
        StorageError: the file cannot be written, at any call; such as on a full disk.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, BlockWriter(Path(folder) / "rows", 2, 1, False) as writer:
    ...     writer.write(np.zeros((5, 2), np.float32), np.ones((5, 1), np.float32))
    ...     form, checks = writer.finish()
    >>> form, len(checks)
    (BlockForm(rows=5, features=2, targets=1, classes=False), 1)
    """

    def __init__(self, path: Path, features: int, targets: int, classes: bool) -> None:
        self._path = path
        self._form = BlockForm(0, features, targets, classes)
        self._block = tuple(part.numpy() for part in self._form.empty(BLOCK_ROWS))  # filled before it is written
        self._rows, self._filled, self._checks = 0, 0, list[int]()
        try:
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise _not_written(path, error) from error

    def write(self, x: NDArray[np.float32], y: NDArray[Any]) -> None:
        """Append rows, any number of them.

        Args:
            x: inputs, shape `(rows, features)`.
            y: targets, shape `(rows, targets)`, or class codes, shape `(rows,)`.
        """
        start = 0
        while start < len(x):
            count = min(BLOCK_ROWS - self._filled, len(x) - start)
            for part, rows in zip(self._block, (x, y), strict=True):
                part[self._filled : self._filled + count] = rows[start : start + count]
            self._filled, start = self._filled + count, start + count
            if self._filled == BLOCK_ROWS:
                self._write_block()

    def finish(self) -> tuple[BlockForm, list[int]]:
        """Write the last block, make sure that the disk has all of them, and close the file.

        Returns:
            The shape of the rows, and the CRC-32 of each block.
        """
        if self._filled:
            self._write_block()
        try:
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            raise _not_written(self._path, error) from error
        return self._form._replace(rows=self._rows), self._checks

    def close(self) -> None:
        """Close the file, which is of no use unless `finish` was called."""
        self._file.close()

    def __enter__(self) -> BlockWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write_block(self) -> None:
        parts = [_bytes(part[: self._filled]) for part in self._block]
        try:
            for part in parts:
                left = part
                while left:  # one call may write less, such as at 2 GiB
                    left = left[self._file.write(left) :]
        except OSError as error:
            raise _not_written(self._path, error) from error
        self._checks.append(_check(parts))
        self._rows, self._filled = self._rows + self._filled, 0


class BlockFile:
    """Reads the blocks of a file that `BlockWriter` has written.

    The file is opened anew for each block: so an object can be pickled, and used after a fork and in several threads.

    Args:
        path: the file.
        form: the shape of its rows.
        checks: the CRC-32 of each block.

    Raises:
        DataError: at any reading: the file is gone, was cut off, or a block is damaged.
    """

    def __init__(self, path: Path, form: BlockForm, checks: Sequence[int]) -> None:
        self.path, self.form = Path(path), form
        self.checks: NDArray[np.uint32] = np.asarray(checks, dtype=np.uint32)

    def read(self, blocks: Iterable[int], x: NDArray[np.float32], y: NDArray[Any]) -> None:
        """Read blocks into memory, one after the other, and check them.

        A thread may do this while the process ends: it calls nothing of torch, whose functions end the process with an
        error if they meet its end.

        Args:
            blocks: numbers of the blocks.
            x, y: contiguous arrays for the inputs and the targets of all of their rows.
        """
        start = 0
        for block in blocks:
            stop = start + self.form.rows_of(block)
            parts = [_bytes(x[start:stop]), _bytes(y[start:stop])]
            with self._opened() as file:
                self._fill(file, parts, self.form.offset(block), block)
            if _check(parts) != self.checks[block]:
                raise self._unusable(f"block {block} is damaged")
            start = stop

    def read_rows(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Read single rows, which are not checked: a checksum is one of a whole block.

        Args:
            index: numbers of the rows, shape `(rows,)`.

        Returns:
            Their x and y.
        """
        x, y = self.form.empty(len(index))
        x_size, y_size = self.form.row_bytes
        with self._opened() as file:
            for number, row in enumerate(index.tolist()):
                block, row_in_block = divmod(row, BLOCK_ROWS)
                start = self.form.offset(block)
                after_x = start + self.form.rows_of(block) * x_size
                for part, offset in ((x, start + row_in_block * x_size), (y, after_x + row_in_block * y_size)):
                    self._fill(file, [_bytes(part[number : number + 1].numpy())], offset, block)
        return x, y

    @contextmanager
    def _opened(self) -> Iterator[int]:
        try:
            file = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            raise self._unusable("the file has vanished") from None
        except OSError as error:
            raise self._unusable(f"it cannot be opened: {error.strerror}") from error
        try:
            yield file
        finally:
            os.close(file)

    def _fill(self, file: int, parts: Sequence[memoryview], offset: int, block: int) -> None:
        """Fill memory from the bytes of a file, by one call if the system reads that much at once."""
        views = list(parts)
        while any(map(len, views)):
            try:
                count = os.preadv(file, views, offset)
            except OSError as error:
                raise self._unusable(f"block {block} cannot be read: {error.strerror}") from error
            if count == 0:
                raise self._unusable(f"it was cut off in block {block}")
            offset += count
            for number, view in enumerate(views):
                views[number], count = view[min(count, len(view)) :], max(0, count - len(view))

    def _unusable(self, why: str) -> DataError:
        folder = self.path.parent
        return DataError(
            f"{self.path} cannot be used: {why}. It holds rows that were converted before; to convert them again, "
            f"type holdfast cache clear {folder.name} --dir {shlex.quote(str(folder.parent))}, and start again."
        )


def _bytes(array: NDArray[Any]) -> memoryview:
    """The memory of a contiguous array."""
    return array.reshape(-1).view(np.uint8).data


def _check(parts: Sequence[memoryview]) -> int:
    check = 0
    for part in parts:
        check = zlib.crc32(part, check)
    return check


def _not_written(path: Path, error: OSError) -> StorageError:
    return StorageError(f"{path} cannot be written: {error.strerror}.")
