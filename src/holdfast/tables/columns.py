"""The columns of a table: numbers, booleans, dates or texts, found from all rows; values are only parsed here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from holdfast.errors import TableError
from holdfast.tables.parsing import has_fraction, mark_of, numbers_in, thousands
from holdfast.tables.reader import Piece, import_arrow

Kind = Literal["number", "boolean", "date", "text"]

MISSING = frozenset({"", "?", "-", "na", "n/a", "nan", "null", "none", "#n/a", "."})
"""What stands for a missing value, in lower case."""

_DATE = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d+)?)?)(?:Z|([+-]\d\d):?(\d\d))?)?")

_LARGEST = 1e100
"""Largest number: the square of a larger one may be infinite."""

_MOSTLY = 0.5
"""Share of numbers from which a column with other values is a mistake, and not a column of texts."""


class Column(NamedTuple):
    """One column.

    Attributes:
        kind: what its values are.
        values: numbers, booleans as 0 and 1, and dates as days since 1970, are floats, NaN where missing; texts are
            objects, None where missing; shape `(rows,)`.
        whole: whether all are whole numbers, written without a fraction.
        mark: of numbers in a CSV file, as `holdfast.tables.parsing.mark_of` returns it.
    """

    kind: Kind
    values: NDArray[Any]
    whole: bool = False
    mark: str = ""

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Where a value is missing."""
        if self.kind == "text":
            return np.array([value is None for value in self.values], dtype=bool)
        return np.asarray(np.isnan(self.values))


def column_of(name: str, pieces: Sequence[Piece], decimal: str | None) -> Column:
    """Find what a column is.

    Args:
        name: of the column.
        pieces: of the table.
        decimal: "." or ","; None finds it.

    Raises:
        TableError: numbers and other values are mixed, or a value is infinite; the message names the line.
    """
    pa = import_arrow()
    parts = [piece.table.column(name) for piece in pieces]
    has_texts = any(_is_text(part.type) for part in parts)
    if typed := [part for part in parts if not has_texts or pa.types.is_nested(part.type)]:
        return _typed(name, pieces, typed)
    values = pa.chunked_array([chunk for part in parts for chunk in part.cast(pa.string()).chunks], pa.string())
    texts, missing = _stripped(values)
    present = texts[~missing]
    if not len(present):
        return Column("number", np.full(len(texts), np.nan))
    lowered = {text.lower() for text in set(present[:1000])}
    if lowered <= {"true", "false"} and {text.lower() for text in set(present)} <= {"true", "false"}:
        parsed = np.full(len(texts), np.nan)
        parsed[~missing] = [text.lower() == "true" for text in present]
        return Column("boolean", parsed)
    if decimal is None and pieces[0].delimiter != ";":
        _check_thousands(name, texts, missing, pieces)
    numbers, is_number = numbers_in(present, decimal)
    if is_number.all():
        column = _finite(name, numbers, missing, pieces, whole=not any(map(has_fraction, present)))
        return column._replace(mark=mark_of(present))
    if decimal and numbers_in(present, None)[1].all():
        row = int(np.flatnonzero(~missing)[np.flatnonzero(~is_number)[0]])
        raise TableError(
            f"{_where(pieces, row)}: column {name!r} holds {_short(texts[row])}, whose decimal sign is not "
            f"{decimal!r}. Write all numbers with the sign that data.decimal names, and thousands without a mark."
        )
    if is_number.mean() >= _MOSTLY:
        row = int(np.flatnonzero(~missing)[np.flatnonzero(~is_number)[0]])
        raise TableError(
            f"{_where(pieces, row)}: column {name!r} holds {_short(texts[row])}, and numbers in most other rows. "
            f"Correct it; a feature can also be left out, with data.drop=[{name}]."
        )
    if all(map(_DATE.fullmatch, present)):
        return Column("date", _days(name, texts, missing, pieces))
    return Column("text", _none_where(missing, texts))


def numbers_of(name: str, piece: Piece, kind: str, decimal: str | None = None) -> Column:
    """A column of new rows that is known to hold numbers or booleans.

    Args:
        name: of the column.
        piece: of the table.
        kind: "number" or "boolean", also written as 0 and 1; "any" takes either.
        decimal: the sign with which the training rows were written, if the user named it; new rows may have another.

    Raises:
        TableError: a value is something else; the message names the line.
    """
    part, what = piece.table.column(name), "true or false" if kind == "boolean" else "a number"
    if not _is_text(part.type):
        column = _typed(name, [piece], [part])
        if column.kind == "date" or (column.kind == "boolean" and kind == "number"):
            raise TableError(f"{piece.file}: column {name!r} holds values of type {part.type}, which are not {what}.")
    else:
        texts, missing = _stripped(part)
        if decimal != "," and piece.delimiter != ";":
            _check_thousands(name, texts, missing, [piece])
        codes = {} if kind == "number" else {"true": "1", "false": "0"}
        present = np.array([codes.get(text.lower(), text) for text in texts[~missing]], dtype=object)
        parsed, is_number = numbers_in(present, None)
        if not is_number.all():
            row = int(np.flatnonzero(~missing)[np.flatnonzero(~is_number)[0]])
            raise TableError(f"{piece.where(row)}: column {name!r} holds {_short(texts[row])}, which is not {what}.")
        column = _finite(name, parsed, missing, [piece], whole=False)._replace(mark=mark_of(present))
    if kind == "boolean" and (other := ~np.isin(column.values, (0, 1)) & ~column.missing).any():
        row = int(np.flatnonzero(other)[0])
        raise TableError(f"{piece.where(row)}: column {name!r} holds {column.values[row]:g}, which is not {what}.")
    return column


def texts_of(name: str, piece: Piece) -> NDArray[Any]:
    """The values of a column as texts, None where missing.

    Raises:
        TableError: they are lists or structures.
    """
    part, pa = piece.table.column(name), import_arrow()
    if pa.types.is_nested(part.type):
        _typed(name, [piece], [part])
    texts, missing = _stripped(part.cast(pa.string()))
    return _none_where(missing, texts)


def _check_thousands(name: str, texts: NDArray[Any], missing: NDArray[np.bool_], pieces: Sequence[Piece]) -> None:
    """Refuse numbers such as 1,234: the comma may divide thousands, or be the decimal sign."""
    if (row := thousands(texts, missing)) is not None:
        raise TableError(
            f"{_where(pieces, row)}: column {name!r} holds {texts[row]!r}: its comma may divide thousands, or be the "
            "decimal sign. Write the numbers without the comma, or train with data.decimal=','."
        )


def check_marks(columns: Mapping[str, Column], file: Path, decimal: str | None) -> None:
    """Refuse 1.234 beside 5,5, and 1,234 beside 5.5: its mark may divide thousands.

    Args:
        columns: of a file.
        file: its path.
        decimal: a decimal sign that is known beforehand; None where none is.

    Raises:
        TableError: there is such a column.
    """
    name_of = {column.mark: f"column {name!r}" for name, column in columns.items()}
    if decimal:
        name_of[decimal] = f"data.decimal={decimal}"
    for mark, sign in ((".", ","), (",", ".")):
        if (name := name_of.get(f"{mark}?")) and sign in name_of and mark not in name_of:
            raise TableError(
                f"{file}: {name} has {mark!r} before three digits each time, and {name_of[sign]} has the decimal sign "
                f"{sign!r}: it may divide thousands. Write the numbers without it."
            )


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _none_where(missing: NDArray[np.bool_], texts: NDArray[Any]) -> NDArray[Any]:
    values = texts.copy()
    values[missing] = None
    return values


def _is_text(kind: Any) -> bool:
    types = import_arrow().types
    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind))


def _typed(name: str, pieces: Sequence[Piece], parts: Sequence[Any]) -> Column:
    """A column whose file knows its type."""
    pa = import_arrow()
    try:
        whole = pa.concat_tables([pa.table({name: part}) for part in parts], promote_options="permissive").column(name)
    except pa.ArrowException:
        kinds = ", ".join(dict.fromkeys(str(part.type) for part in parts))
        raise TableError(
            f"{pieces[0].file} and other files: column {name!r} holds values of several types ({kinds}). Write it with "
            f"one type, or leave it out: data.drop=[{name}]"
        ) from None
    types, kind = pa.types, whole.type
    if types.is_boolean(kind):
        return Column("boolean", _floats(whole.cast(pa.int8())))
    if types.is_timestamp(kind) or types.is_date(kind):
        return Column("date", _floats(whole.cast(pa.timestamp("us"), safe=False).cast(pa.int64())) / 86_400e6)
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        values = _floats(whole.cast(pa.float64(), safe=False))
        missing = np.isnan(values)
        return _finite(name, values[~missing], missing, pieces, whole=bool(types.is_integer(kind)))
    raise TableError(
        f"{pieces[0].file}: column {name!r} holds values of type {kind}, which are no numbers, booleans, dates or "
        f"texts. Leave it out: data.drop=[{name}]"
    )


def _floats(values: Any) -> NDArray[np.float64]:
    return np.asarray(values.to_numpy().astype(np.float64))


def _stripped(values: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The texts without the blanks around them, and where one is missing."""
    import pyarrow.compute as pc

    texts = pc.fill_null(pc.utf8_trim_whitespace(values.cast(import_arrow().string())), "")
    missing = pc.is_in(pc.utf8_lower(texts), value_set=import_arrow().array(sorted(MISSING)))
    return np.asarray(texts.to_pylist(), dtype=object), np.asarray(missing.to_pylist(), dtype=bool)


def _finite(
    name: str, present: NDArray[np.float64], missing: NDArray[np.bool_], pieces: Sequence[Piece], *, whole: bool
) -> Column:
    values = np.full(len(missing), np.nan)
    values[~missing] = present
    if (huge := np.abs(values) > _LARGEST).any():
        where = _where(pieces, int(np.flatnonzero(huge)[0]))
        raise TableError(
            f"{where}: column {name!r} holds a number that is infinite or beyond {_LARGEST:g}. Replace it; an empty "
            "value counts as missing."
        )
    return Column("number", values, whole)


def _days(name: str, texts: NDArray[Any], missing: NDArray[np.bool_], pieces: Sequence[Piece]) -> NDArray[np.float64]:
    days = np.full(len(texts), np.nan)
    for row in np.flatnonzero(~missing):
        try:
            days[row] = _day(texts[row])
        except ValueError:
            where = _where(pieces, int(row))
            raise TableError(f"{where}: column {name!r} holds {texts[row]!r}, which is no date. Correct it.") from None
    return days


def _day(text: str) -> float:
    """A date as days since 1970, in UTC where it has an offset."""
    date, clock, hours, minutes = _DATE.fullmatch(text).groups()  # type: ignore[union-attr]
    day = float(np.datetime64(f"{date}T{clock[:15]}" if clock else date, "us").astype(np.int64)) / 86_400e6
    offset = (abs(int(hours)) * 60 + int(minutes)) / 1440 if hours else 0.0
    return day + offset if hours and hours[0] == "-" else day - offset


def _where(pieces: Iterable[Piece], row: int) -> str:
    """The place of a row of the whole table."""
    for piece in pieces:
        if row < len(piece.table):
            return piece.where(row)
        row -= len(piece.table)
    return str(Path())
