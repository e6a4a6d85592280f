"""Reads CSV files into Arrow tables of strings, and says in which line something is wrong."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.errors import TableError
from holdfast.tables.chunks import Chunk, chunks
from holdfast.tables.lines import line_of, not_text, open_quote, opened

_DELIMITERS = ",;\t|"
_HEAD = 1 << 16
"""Bytes from which delimiter and header are read."""


class Place(NamedTuple):
    """A place in a file, from which it can be read on.

    Attributes:
        row: number of the row that begins there, from 0.
        byte: of a CSV file, uncompressed; 0 at its beginning.
    """

    row: int = 0
    byte: int = 0


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


def read_csv(file: Path, head: str, delimiter: str, start: Place) -> Iterator[tuple[Any, int]]:
    """The rows of a file as Arrow tables, each with the place at which it ends, in bytes.

    Args:
        file: a CSV file, which may be compressed (.gz).
        head: its beginning, as `head_of` returns it.
        delimiter: between its columns.
        start: where to begin.

    Raises:
        TableError: the file cannot be divided into rows.
    """
    names, first_byte = header_of(file, head, delimiter)
    row, last = start.row, list[Any]()
    with opened(file) as stream, ThreadPoolExecutor(1) as thread:  # parses a chunk while the one before it is used
        pieces = chunks(stream, start.byte or first_byte, delimiter)
        pending = _parsed(thread, pieces, names, delimiter)
        while pending:
            (table, ragged, has_nul), byte = pending[0].result(), pending[1]
            pending = _parsed(thread, pieces, names, delimiter)
            if ragged:
                raise _ragged(file, ragged[0], delimiter, row)
            if has_nul:
                raise TableError(not_text(file))
            last = [column[-1].as_py() for column in table.columns] if len(table) else last
            row += len(table)
            if len(table):
                yield table, byte
    if any("\n" in value for value in last) and (lesson := lesson_of(file, delimiter)):
        raise TableError(lesson)


def _parsed(
    thread: Executor, pieces: Iterator[Chunk], names: Sequence[str], delimiter: str
) -> tuple[Future[tuple[Any, list[Any], bool]], int] | None:
    """The next chunk, which a thread parses, and where it ends; None after the last one."""
    chunk = next(pieces, None)
    return chunk and (thread.submit(_parse, chunk.content, names, delimiter), chunk.end)


def _parse(content: bytes, names: Sequence[str], delimiter: str) -> tuple[Any, list[Any], bool]:
    """The records of a chunk as strings, those with another number of values, and whether there is a NUL byte."""
    import pyarrow.csv as pv

    arrow, ragged = import_arrow(), list[Any]()

    def note(row: Any) -> str:
        ragged.append(row)
        return "skip"

    table = pv.read_csv(
        arrow.BufferReader(content),
        read_options=pv.ReadOptions(use_threads=False, block_size=len(content) + 1, column_names=list(names)),
        parse_options=pv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=note),
        convert_options=pv.ConvertOptions(
            column_types=dict.fromkeys(names, arrow.string()),
            strings_can_be_null=False,
            quoted_strings_can_be_null=False,
        ),
    )
    return table, ragged, b"\0" in content


def _ragged(file: Path, row: Any, delimiter: str, before: int) -> TableError:
    """The error of a record that has too many or too few values; `before` counts the rows before its chunk."""
    if row.text.count('"') % 2 and (lesson := lesson_of(file, delimiter)):
        return TableError(lesson)
    where = f"{file}, line {line_of(file, delimiter, before + row.number)}" if row.number else str(file)
    return TableError(
        f"{where} has {row.actual_columns} values where the header names {row.expected_columns}: {row.text[:60]!r}. "
        "Correct the line; a value with the delimiter in it belongs into quotes."
    )


def head_of(file: Path) -> str:
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


def header_of(file: Path, head: str, delimiter: str) -> tuple[list[str], int]:
    """The names of the columns, and where the first record begins, in bytes.

    Raises:
        TableError: the header is none, or names a column twice.
    """
    if delimiter in '"\r\n' or not delimiter.isascii():
        raise TableError(f"{file} cannot be divided at data.delimiter={delimiter!r}: give another character.")
    text = io.StringIO(head, newline="")
    reader = csv.reader(text, delimiter=delimiter)
    names = [name.strip() for name in next(filter(None, reader))]
    if "\n" in names[-1] and (lesson := lesson_of(file, delimiter)):
        raise TableError(lesson)
    _check_header(file, names, delimiter)
    begin = text.tell()
    if not text.read().strip():
        raise TableError(f"{file} has a header and no rows: there is nothing to train on. Write rows below it.")
    return names, len(head[:begin].encode()) + (len(codecs.BOM_UTF8) if _has_mark(file) else 0)


def _has_mark(file: Path) -> bool:
    """Whether a file begins with the mark that some programs write before UTF-8."""
    with opened(file) as stream:
        return bool(stream.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8)


def delimiter_of(head: str) -> str:
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
    check_names(file, names)


def _is_number(text: str) -> bool:
    try:
        float(text.strip().replace(",", "."))
    except ValueError:
        return False
    return True


def check_names(file: Path, names: Sequence[str]) -> None:
    """Refuse a table of which two columns have the same name.

    Raises:
        TableError: it has such columns.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        shown = ", ".join(repr(name) for name in itertools.islice(twice, 5))
        raise TableError(f"{file} names several columns {shown}: give every column a name of its own.")


def lesson_of(file: Path, delimiter: str) -> str | None:
    """Why a CSV file cannot be divided into rows; None where that is not known."""
    if lesson := not_text(file):
        return lesson
    line = open_quote(file, delimiter)
    return f"{file}, line {line}: a quote is opened and never closed. Close it, or remove it." if line else None
