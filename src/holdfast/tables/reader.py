"""Reads CSV and Parquet files into Arrow tables, and says in which file and line something is wrong."""

from __future__ import annotations

import csv
import glob
import gzip
import io
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from holdfast.errors import TableError

if TYPE_CHECKING:
    import pyarrow as pa

_DELIMITERS = ",;\t|"
_HEAD = 1 << 16
"""Bytes from which delimiter and header are read."""

_BLOCK = 1 << 23
"""Bytes of a CSV file that are read at once."""

_ROWS = 65_536
"""Rows of a Parquet file that are read at once."""


class Piece(NamedTuple):
    """Some rows of a file.

    Attributes:
        file: the file.
        first: the number of the first row in its file, from 0.
        table: the rows; the columns of a CSV file are strings.
    """

    file: Path
    first: int
    table: pa.Table

    def where(self, row: int) -> str:
        """The place of a row of this piece, for a message; the header of a CSV file is its line 1."""
        number = self.first + row
        return f"{self.file}, row {number + 1}" if is_parquet(self.file) else f"{self.file}, line {number + 2}"


def files_of(path: str, key: str) -> list[Path]:
    """The files that a path, or a glob, names.

    Raises:
        TableError: there are none.
    """
    found = [Path(path)] if Path(path).exists() else sorted(map(Path, glob.glob(path)))  # noqa: PTH207 (absolute too)
    if not found:
        raise TableError(f"{key}={path}: there is no such file. Give the path of a CSV or Parquet file, or a glob.")
    for file in found:
        if file.is_dir():
            raise TableError(f"{file} is a folder: give a file in it, or a glob such as {key}='{file}/*.csv'.")
    return found


def is_parquet(file: Path) -> bool:
    """Whether a file is read as Parquet, by its name."""
    return file.suffix in (".parquet", ".pq")


def read(file: Path, delimiter: str | None = None) -> Iterator[Piece]:
    """Read a file piece by piece.

    Args:
        file: a CSV file, which may be compressed (.gz), or a Parquet file.
        delimiter: between the columns of a CSV file; None finds it in the header.

    Raises:
        TableError: it cannot be read.
    """
    arrow = import_arrow()
    pieces = _read_parquet(file) if is_parquet(file) else _read_csv(file, delimiter)
    first = 0
    try:
        for table in pieces:
            yield Piece(file, first, table)
            first += len(table)
    except arrow.ArrowInvalid as error:
        raise TableError(f"{file} cannot be read: {_first_line(error)}") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise TableError(f"{file} cannot be read: {_first_line(error)}") from None


def import_arrow() -> Any:
    """The library that reads tables.

    Raises:
        TableError: it is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError:
        raise TableError("data=table needs pyarrow: pip install 'holdfast[table]'") from None
    return pa


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _read_parquet(file: Path) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as parquet:
        _check_names(file, parquet.schema_arrow.names)
        if parquet.metadata.num_rows == 0:
            raise TableError(f"{file} has no rows: there is nothing to train on.")
        for batch in parquet.iter_batches(_ROWS):
            yield import_arrow().Table.from_batches([batch])


def _read_csv(file: Path, delimiter: str | None) -> Iterator[Any]:
    import pyarrow.csv as pv

    arrow, head = import_arrow(), _head(file)
    if not head.strip():
        raise TableError(f"{file} is empty: a table has a line with the names of its columns, and rows below it.")
    delimiter = delimiter or _delimiter(head)
    names = [name.strip() for name in next(csv.reader(io.StringIO(head), delimiter=delimiter))]
    _check_header(file, names, delimiter)
    ragged: list[Any] = []

    def note(row: Any) -> str:
        ragged.append(row)
        return "skip"

    reader = pv.open_csv(
        file,
        read_options=pv.ReadOptions(use_threads=False, block_size=_BLOCK, column_names=names, skip_rows=_lines(head)),
        parse_options=pv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=note),
        convert_options=pv.ConvertOptions(
            column_types=dict.fromkeys(names, arrow.string()),
            strings_can_be_null=False,
            quoted_strings_can_be_null=False,
        ),
    )
    rows = 0
    for batch in reader:
        rows += len(batch)
        _check_ragged(file, ragged)
        yield arrow.Table.from_batches([batch])
    _check_ragged(file, ragged)
    if rows == 0:
        raise TableError(f"{file} has a header and no rows: there is nothing to train on.")


def _check_ragged(file: Path, ragged: Sequence[Any]) -> None:
    if not ragged:
        return
    row = ragged[0]
    where = f"{file}, line {row.number}" if row.number else str(file)
    raise TableError(
        f"{where} has {row.actual_columns} values where the header names {row.expected_columns}: {row.text[:60]!r}. "
        "Correct the line; a value with the delimiter in it belongs into quotes."
    )


def _head(file: Path) -> str:
    """The beginning of a CSV file, without its last, incomplete line."""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            content = stream.read(_HEAD)
    except (OSError, EOFError) as error:
        raise TableError(f"{file} cannot be read: {_first_line(error)}") from None
    whole = content if len(content) < _HEAD else content[: content.rfind(b"\n") + 1]
    try:
        return whole.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = whole[: error.start].count(b"\n") + 1
        raise TableError(
            f"{file}, line {line} is not UTF-8 (byte 0x{whole[error.start]:02x}): save it as UTF-8, for example with "
            f"iconv -f latin1 -t utf8 {file.name} > utf8.csv"
        ) from None


def _lines(head: str) -> int:
    """Lines of the header: a quoted name may hold line breaks."""
    reader = csv.reader(io.StringIO(head))
    next(reader)
    return reader.line_num


def _delimiter(head: str) -> str:
    """The character that separates the names of the header; a comma where there is none."""
    first = head.splitlines()[0]
    unquoted = "".join(part for index, part in enumerate(first.split('"')) if index % 2 == 0)
    return max(_DELIMITERS, key=unquoted.count)


def _check_header(file: Path, names: Sequence[str], delimiter: str) -> None:
    if len(names) == 1:
        raise TableError(
            f"{file} has one column, {names[0]!r}, when it is divided at {delimiter!r}: a table has a target and at "
            "least one other column. If another character separates them, give it as data.delimiter."
        )
    if all(_is_number(name) for name in names):
        raise TableError(
            f"{file} has no header: its first line holds numbers ({', '.join(names[:4])}). Write the names of the "
            "columns above them, divided by the same delimiter."
        )
    _check_names(file, names)


def _check_names(file: Path, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        shown = ", ".join(repr(name) for name in itertools.islice(twice, 5))
        raise TableError(f"{file} names several columns {shown}: give every column a name of its own.")


def _is_number(text: str) -> bool:
    try:
        float(text.strip().replace(",", "."))
    except ValueError:
        return False
    return True
