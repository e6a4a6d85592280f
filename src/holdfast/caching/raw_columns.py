"""The columns of a table as doubles in a file, piece by piece: read several times while a table is converted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from holdfast.errors import StorageError

Matrix = NDArray[np.float64]
"""Values of some columns, shape `(columns, rows)`; NaN where missing."""


class RawColumns:
    """A file of pieces, each the columns of some rows one after the other.

    Args:
        path: the file.
        names: of the columns.
        pieces: rows of each piece that the file holds; what follows them is cut off, and written anew.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     raw = RawColumns(Path(folder) / "raw", ["a", "b"])
    ...     raw.append(np.array([[1.0, 2.0], [3.0, 4.0]]))
    ...     [piece.tolist() for piece in raw.read(["b"])]
    [[[3.0, 4.0]]]
    """

    def __init__(self, path: Path, names: Sequence[str], pieces: Sequence[int] = ()) -> None:
        self._path, self.names, self.pieces = path, list(names), list(pieces)
        try:
            with path.open("ab") as file:
                file.truncate(self._size)
        except OSError as error:
            raise _not_written(path, error) from error

    @property
    def rows(self) -> int:
        """Rows of all pieces."""
        return sum(self.pieces)

    @property
    def _size(self) -> int:
        return 8 * len(self.names) * self.rows

    def append(self, values: Matrix) -> None:
        """Add a piece.

        Raises:
            StorageError: it cannot be written.
        """
        try:
            with self._path.open("ab") as file:
                file.write(np.ascontiguousarray(values).data)
        except OSError as error:
            raise _not_written(self._path, error) from error
        self.pieces.append(values.shape[1])

    def read(self, names: Sequence[str]) -> Iterator[Matrix]:
        """Some columns, in the order of their names, piece by piece."""
        columns = [self.names.index(name) for name in names]
        whole = columns == list(range(len(self.names)))
        with self._path.open("rb") as file:
            start = 0
            for rows in self.pieces:
                piece = np.empty((len(columns), rows))
                if whole:
                    _fill(file.fileno(), piece, start)
                else:
                    for row, column in zip(piece, columns, strict=True):
                        _fill(file.fileno(), row, start + 8 * rows * column)
                yield piece
                start += 8 * rows * len(self.names)

    def remove(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)


def _fill(file: int, values: Matrix, start: int) -> None:
    view = memoryview(values.data).cast("B")
    while view:
        read = os.preadv(file, [view], start)
        if not read:
            raise StorageError("the file in which a table is converted was cut off: start again.")
        view, start = view[read:], start + read


def _not_written(path: Path, error: OSError) -> StorageError:
    return StorageError(f"{path} cannot be written: {error.strerror or error}.")
