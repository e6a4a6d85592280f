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

_DATE = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?$"
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
    if not all(_is_text(part.type) for part in parts):
        return _typed(name, pieces, parts)
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
    numbers, is_number = _numbers(present, decimal)
    if is_number.all():
        return _finite(name, numbers, missing, pieces, whole=not any(map(_has_fraction, present)))
    if is_number.mean() >= _MOSTLY:
        row = int(np.flatnonzero(~missing)[np.flatnonzero(~is_number)[0]])
        raise TableError(
            f"{_where(pieces, row)}: column {name!r} holds {texts[row]!r}, and numbers in most other rows. Correct it, "
            f"or leave the column out: data.drop=[{name}]"
        )
    if all(re.match(_DATE, text) for text in present):
        return Column("date", _days(texts, missing))
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
        raise TableError(f"{piece.where(row)}: column {name!r} holds {texts[row]!r}, which is not a number.")
    numbers[~missing] = parsed
    return _finite(name, numbers[~missing], missing, [piece], whole=False).values


def texts_of(name: str, piece: Piece) -> NDArray[Any]:
    """The values of a column as texts, None where missing."""
    part = piece.table.column(name)
    texts, missing = _stripped(part.cast(import_arrow().string()))
    return _none_where(missing, texts)


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
    kind = parts[0].type
    whole = pa.concat_tables([pa.table({name: part}) for part in parts], promote_options="permissive").column(name)
    types = pa.types
    if types.is_boolean(kind):
        return Column("boolean", _floats(whole.cast(pa.int8())))
    if types.is_timestamp(kind) or types.is_date(kind):
        return Column("date", _floats(whole.cast(pa.timestamp("us")).cast(pa.int64())) / 86_400e6)
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
        return float(text.replace(",", ".") if decimal == "," else text)
    except ValueError:
        return None


def _has_fraction(text: str) -> bool:
    return not text.lstrip("+-").isdecimal()


def _finite(
    name: str, present: NDArray[np.float64], missing: NDArray[np.bool_], pieces: Sequence[Piece], *, whole: bool
) -> Column:
    values = np.full(len(missing), np.nan)
    values[~missing] = present
    if np.isinf(values).any():
        where = _where(pieces, int(np.flatnonzero(np.isinf(values))[0]))
        raise TableError(
            f"{where}: column {name!r} holds an infinite number. Replace it; an empty value counts as missing."
        )
    return Column("number", values, whole)


def _days(texts: NDArray[Any], missing: NDArray[np.bool_]) -> NDArray[np.float64]:
    days = np.full(len(texts), np.nan)
    plain = [text.replace(" ", "T", 1).removesuffix("Z")[:26] for text in texts[~missing]]
    days[~missing] = np.array(plain, dtype="datetime64[us]").astype(np.int64) / 86_400e6
    return days


def _where(pieces: Iterable[Piece], row: int) -> str:
    """The place of a row of the whole table."""
    for piece in pieces:
        if row < len(piece.table):
            return piece.where(row)
        row -= len(piece.table)
    return str(Path())
