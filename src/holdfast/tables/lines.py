"""Finds the line of a CSV file that a message names: the file is read once more, only where something is wrong."""

from __future__ import annotations

import csv
import gzip
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

_OTHER_FORMATS = {
    b"PAR1": "a Parquet file: give it a name that ends in .parquet",
    b"\x1f\x8b": "a gzip file: give it a name that ends in .gz",
    b"PK\x03\x04": "an Excel or zip file: export it as CSV",
}
"""What the first bytes of a file say that it is."""

_WITHOUT_NUL = "tr -d '\\000'"


def opened(file: Path, mode: str = "rb", **options: Any) -> IO[Any]:
    """Open a CSV file, which may be compressed (.gz)."""
    if file.suffix == ".gz":
        return cast("IO[Any]", gzip.open(file, mode, **options))
    return file.open(mode, **options)


def line_of(file: Path, delimiter: str, record: int) -> int:
    """The line at which a record begins.

    Args:
        file: a CSV file.
        delimiter: between its columns.
        record: number of the record; the header is record 0.
    """
    for index, (line, _) in enumerate(_records(file, delimiter)):
        if index == record:
            return line
    return record + 1


def open_quote(file: Path, delimiter: str) -> int | None:
    """The line of a quote that is never closed; None where there is none."""
    line, text = 0, ""
    for line, text in _records(file, delimiter):  # noqa: B007 (the last record is wanted)
        pass
    return line if text.count('"') % 2 else None


def _records(file: Path, delimiter: str) -> Iterator[tuple[int, str]]:
    """The first line and the text of each record; a value in quotes may hold line breaks, and blank lines are none."""
    taken, begin, limit = list[str](), 1, csv.field_size_limit(sys.maxsize)
    try:
        with opened(file, "rt", encoding="utf-8-sig", errors="replace", newline="") as stream:
            reader = csv.reader(_kept(stream, taken), delimiter=delimiter)
            for values in reader:
                if values:
                    yield begin, "".join(taken)
                taken.clear()
                begin = reader.line_num + 1
    finally:
        csv.field_size_limit(limit)


def _kept(lines: IO[str], taken: list[str]) -> Iterator[str]:
    """Lines, each added to a list."""
    for line in lines:
        taken.append(line)
        yield line


def not_text(file: Path) -> str | None:
    """Why a file is no text in UTF-8, and what to do; None where it is."""
    with opened(file) as stream:
        for number, line in enumerate(stream, 1):
            other = next((what for magic, what in _OTHER_FORMATS.items() if line.startswith(magic)), None)
            if number == 1 and other:
                return f"{file} is {other}."
            if number == 1 and (line[:2] in (b"\xff\xfe", b"\xfe\xff") or line.count(0) * 3 > len(line)):
                return f"{file} is UTF-16, not UTF-8: {_saved(file, 'iconv -f utf-16 -t utf8')}"
            if b"\0" in line:
                return f"{file}, line {number} holds a NUL byte, which is no text: {_saved(file, _WITHOUT_NUL)}"
            try:
                line.decode()
            except UnicodeDecodeError as error:
                byte = f"0x{line[error.start]:02x}"
                return f"{file}, line {number} is not UTF-8 (byte {byte}): {_saved(file, 'iconv -f latin1 -t utf8')}"
    return None


def _saved(file: Path, command: str) -> str:
    """The advice to change a file with a command of the shell."""
    name = shlex.quote(str(file))
    line = f"gunzip -c {name} | {command}" if file.suffix == ".gz" else f"{command} < {name}"
    return f"save it as UTF-8, for example with {line} > utf8.csv"
