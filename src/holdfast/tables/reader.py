"""Reads CSV and Parquet files into Arrow tables, and says in which file and line something is wrong."""

from __future__ import annotations

import csv
import glob
import gzip
import io
import itertools
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from holdfast.errors import TableError
from holdfast.tables.lines import line_of, not_text, open_quote, opened

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
        delimiter: between the columns of a CSV file; "" for a Parquet file.
    """

    file: Path
    first: int
    table: pa.Table
    delimiter: str

    def where(self, row: int) -> str:
        """The place of a row of this piece, for a message: the line at which it begins, or a row of a Parquet file."""
        number = self.first + row + 1
        if is_parquet(self.file):
            return f"{self.file}, row {number}"
        return f"{self.file}, line {line_of(self.file, self.delimiter, number)}"


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


def read(file: Path, delimiter: str | None = None) -> Iterator[Piece]:
    """Read a file piece by piece.

    Args:
        file: a CSV file, which may be compressed (.gz), or a Parquet file.
        delimiter: between the columns of a CSV file; None finds it in the header.

    Raises:
        TableError: it cannot be read.
    """
    arrow, is_csv = import_arrow(), not is_parquet(file)
    try:
        head = _head(file) if is_csv else ""
        delimiter = (delimiter or _delimiter(head)) if is_csv else ""
        first = 0
        for table in _read_csv(file, head, delimiter) if is_csv else _read_parquet(file):
            yield Piece(file, first, table, delimiter)
            first += len(table)
    except gzip.BadGzipFile:
        raise TableError(f"{file} is no gzip file, though its name ends in .gz: give it another name.") from None
    except arrow.ArrowException as error:
        raise TableError((is_csv and _lesson(file, delimiter or ",")) or _damaged(file, error)) from None
    except PermissionError:
        raise TableError(f"{file} cannot be read: permission denied. Allow it, for example with chmod +r.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise TableError(_damaged(file, error)) from None


def _lesson(file: Path, delimiter: str) -> str | None:
    """Why a CSV file cannot be divided into rows; None where that is not known."""
    if lesson := not_text(file):
        return lesson
    line = open_quote(file, delimiter)
    return f"{file}, line {line}: a quote is opened and never closed. Close it, or remove it." if line else None


def _damaged(file: Path, error: Exception) -> str:
    reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    return f"{file} cannot be read: {reason}. It may be damaged, or only a part of a file: copy or export it again."


def import_arrow() -> Any:
    """The library that reads tables.

    Raises:
        TableError: it is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError:
        raise TableError("data=table needs pyarrow, the extra table of holdfast: pip install pyarrow") from None
    return pa


def _read_parquet(file: Path) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as parquet:
        _check_names(file, parquet.schema_arrow.names)
        if parquet.metadata.num_rows == 0:
            raise TableError(f"{file} has no rows: there is nothing to train on. Write some into it.")
        for batch in parquet.iter_batches(_ROWS):
            yield import_arrow().Table.from_batches([batch])


def _read_csv(file: Path, head: str, delimiter: str) -> Iterator[Any]:
    import pyarrow.compute as pc
    import pyarrow.csv as pv

    arrow = import_arrow()
    names, lines = _header(file, head, delimiter)
    ragged: list[Any] = []

    def note(row: Any) -> str:
        ragged.append(row)
        return "skip"

    reader = pv.open_csv(
        file,
        read_options=pv.ReadOptions(use_threads=False, block_size=_BLOCK, column_names=names, skip_rows=lines),
        parse_options=pv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=note),
        convert_options=pv.ConvertOptions(
            column_types=dict.fromkeys(names, arrow.string()),
            strings_can_be_null=False,
            quoted_strings_can_be_null=False,
        ),
    )
    last = list[Any]()
    for batch in reader:
        _check_ragged(file, ragged, delimiter, lines)
        if any(pc.any(pc.match_substring(column, "\0")).as_py() for column in batch.columns):
            raise TableError(not_text(file))
        last = [column[-1].as_py() for column in batch.columns] if len(batch) else last
        yield arrow.Table.from_batches([batch])
    _check_ragged(file, ragged, delimiter, lines)
    if any("\n" in value for value in last) and (lesson := _lesson(file, delimiter)):
        raise TableError(lesson)


def _check_ragged(file: Path, ragged: Sequence[Any], delimiter: str, lines: int) -> None:
    if not ragged:
        return
    row = ragged[0]
    if row.text.count('"') % 2 and (lesson := _lesson(file, delimiter)):
        raise TableError(lesson)
    where = f"{file}, line {line_of(file, delimiter, row.number - lines)}" if row.number else str(file)
    raise TableError(
        f"{where} has {row.actual_columns} values where the header names {row.expected_columns}: {row.text[:60]!r}. "
        "Correct the line; a value with the delimiter in it belongs into quotes."
    )


def _head(file: Path) -> str:
    """The beginning of a CSV file: whole lines, its header and a row among them."""
    with opened(file) as stream:
        content = stream.read(_HEAD) + stream.readline() + stream.readline()
    if not content.strip():
        raise TableError(f"{file} is empty: a table has a line with the names of its columns, and rows below it.")
    try:
        head: str = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise TableError(not_text(file)) from None
    if "\0" in head:
        raise TableError(not_text(file))
    return head


def _header(file: Path, head: str, delimiter: str) -> tuple[list[str], int]:
    """The names of the columns, and the lines that they take: a quoted name may hold line breaks.

    Raises:
        TableError: the header is none, or names a column twice.
    """
    if delimiter in '"\r\n' or not delimiter.isascii():
        raise TableError(f"{file} cannot be divided at data.delimiter={delimiter!r}: give another character.")
    text = io.StringIO(head, newline="")
    reader = csv.reader(text, delimiter=delimiter)
    names = [name.strip() for name in next(filter(None, reader))]
    if "\n" in names[-1] and (lesson := _lesson(file, delimiter)):
        raise TableError(lesson)
    _check_header(file, names, delimiter)
    if not text.read().strip():
        raise TableError(f"{file} has a header and no rows: there is nothing to train on. Write rows below it.")
    return names, reader.line_num


def _delimiter(head: str) -> str:
    """The character that separates the names of the header; a comma where there is none."""
    unquoted = "".join(head.split('"')[::2]).strip("\r\n")
    first = re.split(r"[\r\n]", unquoted, maxsplit=1)[0]
    return max(_DELIMITERS, key=first.count)


def _check_header(file: Path, names: Sequence[str], delimiter: str) -> None:
    if len(names) == 1:
        raise TableError(
            f"{file} has one column, {names[0][:60]!r}, when it is divided at {delimiter!r}: a table has a target and "
            "at least one other column. If another character separates them, give it as data.delimiter."
        )
    if any(names) and all(_is_number(name) for name in names if name):
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
