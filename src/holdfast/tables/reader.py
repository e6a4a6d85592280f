"""Reads CSV and Parquet files into Arrow tables, and says in which file and line something is wrong."""

from __future__ import annotations

import glob
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from holdfast.errors import TableError
from holdfast.tables.csv_files import (
    Place,
    check_names,
    delimiter_of,
    head_of,
    header_of,
    import_arrow,
    lesson_of,
    read_csv,
)
from holdfast.tables.lines import line_of

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 65_536
"""Rows of a Parquet file that are read at once; fewer of a table of many columns."""

_VALUES = 1 << 22
"""Values of a Parquet file that are read at once."""


_BUFFER = 1 << 20
"""Bytes of a column of a Parquet file that are read at once."""


class Piece(NamedTuple):
    """Some rows of a file.

    Attributes:
        file: the file.
        first: the number of the first row in its file, from 0.
        table: the rows; the columns of a CSV file are strings.
        delimiter: between the columns of a CSV file; "" for a Parquet file.
        end: where the rows after it begin.
    """

    file: Path
    first: int
    table: pa.Table
    delimiter: str
    end: Place = Place()

    def where(self, row: int) -> str:
        """The place of a row of this piece, for a message."""
        return place_of(self.file, self.delimiter, self.first + row)


def place_of(file: Path, delimiter: str, row: int) -> str:
    """The line at which a row begins, or a row of a Parquet file, for a message.

    Args:
        file: the file.
        delimiter: between its columns.
        row: number of the row, from 0.
    """
    if is_parquet(file):
        return f"{file}, row {row + 1}"
    return f"{file}, line {line_of(file, delimiter, row + 1)}"


def files_of(path: str, key: str) -> list[Path]:
    """The files that a path, or a glob, names.

    Raises:
        TableError: there are none.
    """
    if path.startswith("pkg://"):  # a file within a package, as in Hydra's search paths
        package, _, name = path.removeprefix("pkg://").partition("/")
        path = str(resources.files(package).joinpath(name))
    files = [Path(path)] if Path(path).exists() else sorted(map(Path, glob.glob(path)))  # noqa: PTH207 (absolute too)
    if not files:
        raise TableError(f"{key}={path}: there is no such file. Give the path of a CSV or Parquet file, or a glob.")
    for file in files:
        if file.is_dir():
            raise TableError(f"{file} is a folder: give a file in it, or a glob such as {key}='{file}/*.csv'.")
    return files


def is_parquet(file: Path) -> bool:
    """Whether a file is read as Parquet, by its name."""
    return file.suffix in (".parquet", ".pq")


def read(file: Path, delimiter: str | None = None, start: Place = Place()) -> Iterator[Piece]:  # noqa: B008 (a tuple)
    """Read a file piece by piece.

    Args:
        file: a CSV file, which may be compressed (.gz), or a Parquet file.
        delimiter: between the columns of a CSV file; None finds it in the header.
        start: where to begin; the end of a piece.

    Raises:
        TableError: it cannot be read.
    """
    with explained(file, delimiter):
        is_csv = not is_parquet(file)
        head = head_of(file) if is_csv else ""
        delimiter = (delimiter or delimiter_of(head)) if is_csv else ""
        first = start.row
        for table, byte in read_csv(file, head, delimiter, start) if is_csv else _read_parquet(file, start.row):
            end = Place(first + len(table), byte)
            yield Piece(file, first, table, delimiter, end)
            first = end.row


def columns_in(file: Path, delimiter: str | None = None) -> tuple[dict[str, Any], str]:
    """The columns of a file with their Arrow types, and the delimiter of a CSV file; arguments as for `read`."""
    with explained(file, delimiter):
        if is_parquet(file):
            import pyarrow.parquet as pq

            schema = pq.read_schema(file)
            check_names(file, schema.names)
            return dict(zip(schema.names, schema.types, strict=True)), ""
        head = head_of(file)
        delimiter = delimiter or delimiter_of(head)
        names, _ = header_of(file, head, delimiter)
        return dict.fromkeys(names, import_arrow().string()), delimiter


@contextmanager
def explained(file: Path, delimiter: str | None) -> Iterator[None]:
    """Say what is wrong with a file that cannot be read."""
    arrow = import_arrow()
    try:
        yield
    except gzip.BadGzipFile:
        raise TableError(f"{file} is no gzip file, though its name ends in .gz: give it another name.") from None
    except arrow.ArrowException as error:
        lesson = None if is_parquet(file) else lesson_of(file, delimiter or delimiter_of(head_of(file)))
        raise TableError(lesson or _damaged(file, error)) from None
    except PermissionError:
        raise TableError(f"{file} cannot be read: permission denied. Allow it, for example with chmod +r.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise TableError(_damaged(file, error)) from None


def _damaged(file: Path, error: Exception) -> str:
    reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    return f"{file} cannot be read: {reason}. It may be damaged, or only a part of a file: copy or export it again."


def _read_parquet(file: Path, start: int) -> Iterator[tuple[Any, int]]:
    import pyarrow.parquet as pq

    # read ahead, a file of many groups would take more memory than its rows
    with pq.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False) as parquet:
        check_names(file, parquet.schema_arrow.names)
        if parquet.metadata.num_rows == 0:
            raise TableError(f"{file} has no rows: there is nothing to train on. Write some into it.")
        groups, skipped = list(range(parquet.num_row_groups)), start
        while groups and parquet.metadata.row_group(groups[0]).num_rows <= skipped:
            skipped -= parquet.metadata.row_group(groups.pop(0)).num_rows
        rows = min(_ROWS, max(1024, _VALUES // len(parquet.schema_arrow.names)))
        for batch in parquet.iter_batches(rows, row_groups=groups) if groups else ():
            taken, skipped = batch.slice(skipped), max(0, skipped - len(batch))
            if len(taken):
                yield import_arrow().Table.from_batches([taken]), 0
