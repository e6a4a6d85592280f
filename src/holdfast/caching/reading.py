"""The first pass over the files of a table: every column that is used, as doubles; it goes on where it was stopped."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.caching.checked_json import write_checked
from holdfast.caching.column_reader import ColumnReader
from holdfast.caching.raw_columns import RawColumns
from holdfast.tables.csv_files import Place
from holdfast.tables.reader import Piece, place_of, read

_THREADS = 2
"""Columns that are read at the same time."""

_SECONDS = 2.0
"""Time between two records of how far the pass has come."""

OnPiece = Callable[[int, int], None]
"""Called after every piece with its bytes, or 0 where they are not known, and its rows."""


@dataclass
class Reading:
    """How far the files of a table are read.

    Attributes:
        readers: of each column.
        file: number of the file that is being read.
        place: where in it.
        pieces: rows of each piece that was read.
        begins: the first row of each file that was begun, in the whole table.
    """

    readers: list[ColumnReader]
    file: int = 0
    place: Place = Place()
    pieces: list[int] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Reading:
        """From what `as_plain` returned."""
        readers = [ColumnReader(**reader) for reader in plain["readers"]]
        return cls(readers, plain["file"], Place(*plain["place"]), plain["pieces"], plain["begins"])

    def as_plain(self) -> dict[str, Any]:
        """In plain containers."""
        readers = [reader.as_plain() for reader in self.readers]
        return {**vars(self), "readers": readers, "place": list(self.place)}


class Files:
    """The files of a table.

    Args:
        paths: in the order in which they are read.
        delimiters: of each CSV file; "" of a Parquet file.
        types: the Arrow type as which a column is read; without one it is read as it is.
    """

    def __init__(self, paths: Sequence[Path], delimiters: Sequence[str], types: Mapping[str, Any]) -> None:
        self.paths, self._delimiters, self._types = paths, delimiters, types

    def read(self, reading: Reading, raw: RawColumns, record: Path, on_piece: OnPiece) -> None:
        """Read from where a reading has come to the end.

        Args:
            reading: is brought to the end.
            raw: the values are appended to it.
            record: the reading is written to this file every few seconds.
            on_piece: called after every piece.

        Raises:
            TableError: a file cannot be read, or a value cannot be used.
            StorageError: the values cannot be written.
        """
        written = time.monotonic()
        with ThreadPoolExecutor(_THREADS) as threads:
            for piece in self._pieces(reading):
                raw.append(self._values(piece, reading, threads))
                on_piece(piece.end.byte - reading.place.byte, len(piece.table))
                reading.place = piece.end
                reading.pieces.append(len(piece.table))
                if time.monotonic() - written > _SECONDS:
                    write_checked(record, reading.as_plain())
                    written = time.monotonic()
        write_checked(record, reading.as_plain())

    def _pieces(self, reading: Reading) -> Iterator[Piece]:
        """The pieces from where a reading has come to, file by file."""
        while reading.file < len(self.paths):
            if len(reading.begins) == reading.file:
                reading.begins.append(sum(reading.pieces))
            yield from read(self.paths[reading.file], self._delimiters[reading.file] or None, reading.place)
            reading.file, reading.place = reading.file + 1, Place()

    def _values(self, piece: Piece, reading: Reading, threads: Executor) -> Any:
        values = np.empty((len(reading.readers), len(piece.table)))

        def read_column(column: int) -> None:
            reader = reading.readers[column]
            part = piece.table.column(reader.name)
            if reader.name in self._types:
                part = part.cast(self._types[reader.name], safe=False).combine_chunks()
            values[column] = reader.add(part, piece.file, piece.where)

        for _ in threads.map(read_column, range(len(values))):  # raises what a column has raised
            pass
        return values

    def where(self, reading: Reading, row: int) -> str:
        """The place of a row of the whole table, for a message."""
        number = bisect_right(reading.begins, row) - 1
        return place_of(self.paths[number], self._delimiters[number], row - reading.begins[number])
