"""The columns of a table: numbers, booleans, dates or texts, found from all rows; values are only parsed here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from holdfast.errors import TableError
from holdfast.tables.reader import Piece, import_arrow

Kind = Literal["number", "boolean", "date", "text"]

MISSING = frozenset({"", "?", "-", "na", "n/a", "nan", "null", "none", "#n/a", "."})
"""What stands for a missing value, in lower case."""

_DATE = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d+)?)?)(?:Z|([+-]\d\d):?(\d\d))?)?")
_THOUSANDS = re.compile(r"^[+-]?\d{1,3}(,\d{3})+(\.\d*)?$")

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
    """

    kind: Kind
    values: NDArray[Any]
    whole: bool = False

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
    numbers, is_number = _numbers(present, decimal)
    if is_number.all():
        return _finite(name, numbers, missing, pieces, whole=not any(map(_has_fraction, present)))
    if is_number.mean() >= _MOSTLY:
        row = int(np.flatnonzero(~missing)[np.flatnonzero(~is_number)[0]])
        raise TableError(
            f"{_where(pieces, row)}: column {name!r} holds {_short(texts[row])}, and numbers in most other rows. "
            f"Correct it; a feature can also be left out, with data.drop=[{name}]."
        )
    if all(map(_DATE.fullmatch, present)):
        return Column("date", _days(name, texts, missing, pieces))
    return Column("text", _none_where(missing, texts))


def numbers_of(name: str, piece: Piece, decimal: str | None) -> NDArray[np.float64]:
    """The values of a column that is known to hold numbers or booleans, NaN where missing.

    Raises:
        TableError: a value is no number; the message names the line.
    """
    part = piece.table.column(name)
    if not _is_text(part.type):
        return _typed(name, [piece], [part]).values
    texts, missing = _stripped(part)
    numbers = np.full(len(texts), np.nan)
    present = np.array([{"true": "1", "false": "0"}.get(text.lower(), text) for text in texts[~missing]], dtype=object)
    parsed, is_number = _numbers(present, decimal)
    if not is_number.all():
        row = int(np.flatnonzero(~missing)[np.flatnonzero(~is_number)[0]])
        raise TableError(f"{piece.where(row)}: column {name!r} holds {_short(texts[row])}, which is not a number.")
    numbers[~missing] = parsed
    return _finite(name, numbers[~missing], missing, [piece], whole=False).values


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
    rows = [row for row in np.flatnonzero(~missing) if "," in texts[row]]
    if not rows or not all(_THOUSANDS.match(texts[row]) for row in rows):
        return
    if all(_number(text.replace(",", ""), ".") is not None for text in texts[~missing]):
        raise TableError(
            f"{_where(pieces, int(rows[0]))}: column {name!r} holds {texts[rows[0]]!r}: its comma may divide "
            "thousands, or be the decimal sign. Write the numbers without the comma, or give data.decimal=','."
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
    found = values.to_numpy().astype(np.float64)
    return np.asarray(found)


def _stripped(values: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The texts without the blanks around them, and where one is missing."""
    import pyarrow.compute as pc

    texts = pc.fill_null(pc.utf8_trim_whitespace(values.cast(import_arrow().string())), "")
    missing = pc.is_in(pc.utf8_lower(texts), value_set=import_arrow().array(sorted(MISSING)))
    return np.asarray(texts.to_pylist(), dtype=object), np.asarray(missing.to_pylist(), dtype=bool)


def _numbers(texts: NDArray[Any], decimal: str | None) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The texts as numbers, and which of them are numbers."""
    import pyarrow.compute as pc

    pa = import_arrow()
    array = pa.array(texts, pa.string())
    for sign in (decimal,) if decimal else (".", ","):
        changed = pc.replace_substring(array, ",", ".") if sign == "," else array
        try:
            return np.asarray(changed.cast(pa.float64()).to_numpy()), np.ones(len(texts), dtype=bool)
        except pa.ArrowInvalid:
            continue
    parsed = [_number(text, decimal or ".") for text in texts]
    return np.array([np.nan if value is None else value for value in parsed]), np.array(
        [value is not None for value in parsed], dtype=bool
    )


def _number(text: str, decimal: str) -> float | None:
    try:
        return None if "_" in text else float(text.replace(",", ".") if decimal == "," else text)
    except ValueError:
        return None


def _has_fraction(text: str) -> bool:
    return not text.lstrip("+-").isdecimal()


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
