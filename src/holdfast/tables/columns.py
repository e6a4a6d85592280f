"""The columns of a table: numbers, booleans, dates or texts, found from all rows; values are only parsed here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from holdfast.errors import TableError
from holdfast.tables.csv_files import import_arrow
from holdfast.tables.parsing import short
from holdfast.tables.reader import Piece
from holdfast.tables.scan import Form, Scan, Texts, values_of

Kind = Literal["number", "boolean", "date", "text"]

KIND_OF: dict[Form, Kind] = {
    "empty": "number",
    "boolean": "boolean",
    "number.": "number",
    "number,": "number",
    "date": "date",
    "text": "text",
}

_LARGEST = 1e100
"""Largest number: the square of a larger one may be infinite."""


class Column(NamedTuple):
    """One column.

    Attributes:
        kind: what its values are.
        values: numbers, booleans as 0 and 1, and dates as days since 1970, are floats, NaN where missing; texts are
            objects, None where missing; shape `(rows,)`.
        whole: whether all are whole numbers, written without a fraction.
        mark: of numbers in a CSV file, as `holdfast.tables.scan.Scan.mark` returns it.
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
    kind = common_type(name, pieces[0].file, [part.type for part in parts])
    whole = pa.chunked_array([chunk for part in parts for chunk in part.cast(kind, safe=False).chunks], kind)

    def where(row: int) -> str:
        return _where(pieces, row)

    if not is_text(kind):
        return typed_column(name, whole, pieces[0].file, where)
    scan = Scan()
    if decimal != "," and (numbers := scan.add_numbers(whole)) is not None:
        check_finite(name, numbers, where)
        return Column("number", numbers, scan.whole, scan.mark)
    texts = Texts.of(whole)
    scan.add(texts)
    scan.check(name, where, decimal, thousands=decimal is None and pieces[0].delimiter != ";")
    form = scan.form(decimal)
    if form == "text":
        return Column("text", _none_where_missing(texts))
    values = values_of(texts, form, name, where)
    check_finite(name, values, where)
    return Column(KIND_OF[form], values, scan.whole and form == "number.", scan.mark if "number" in form else "")


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
    if not is_text(part.type):
        column = typed_column(name, part, piece.file, piece.where)
        if column.kind == "date" or (column.kind == "boolean" and kind == "number"):
            raise TableError(f"{piece.file}: column {name!r} holds values of type {part.type}, which are not {what}.")
    else:
        scan, texts = Scan(), Texts.of(part.cast(import_arrow().string()))
        if kind != "number":
            codes = {"true": "1", "false": "0"}
            distinct = np.array([codes.get(text.lower(), text) for text in texts.distinct], dtype=object)
            texts = texts._replace(distinct=distinct)
        scan.add(texts)
        scan.check_thousands(name, piece.where, refused=decimal != "," and piece.delimiter != ";")
        form = scan.form(None)
        if form not in ("empty", "number.", "number,"):
            row, text = scan.first_other(None)
            raise TableError(f"{piece.where(row)}: column {name!r} holds {short(text)}, which is not {what}.")
        column = Column("number", values_of(texts, form, name, piece.where), mark=scan.mark)
        check_finite(name, column.values, piece.where)
    if kind == "boolean" and (other := ~np.isin(column.values, (0, 1)) & ~column.missing).any():
        row = int(np.flatnonzero(other)[0])
        raise TableError(f"{piece.where(row)}: column {name!r} holds {column.values[row]:g}, which is not {what}.")
    return column


def texts_of(name: str, piece: Piece) -> NDArray[Any]:
    """The values of a column as texts, None where missing.

    Raises:
        TableError: they are lists or structures.
    """
    return _none_where_missing(Texts.of(strings(name, piece.table.column(name), piece.file)))


def strings(name: str, part: Any, file: Path) -> Any:
    """An Arrow column as strings.

    Raises:
        TableError: it holds lists or structures.
    """
    pa = import_arrow()
    if pa.types.is_nested(part.type):
        raise _unusable(name, file, part.type)
    return part.cast(pa.string())


def check_marks(columns: Mapping[str, Column], file: Path, decimal: str | None) -> None:
    """Refuse columns with marks that may mean two things, as `check_decimal_marks`."""
    check_decimal_marks({name: column.mark for name, column in columns.items()}, file, decimal)


def check_decimal_marks(marks: Mapping[str, str], file: Path, decimal: str | None) -> None:
    """Refuse 1.234 beside 5,5, and 1,234 beside 5.5: its mark may divide thousands.

    Args:
        marks: of the columns of a file.
        file: its path.
        decimal: a decimal sign that is known beforehand; None where none is.

    Raises:
        TableError: there is such a column.
    """
    name_of = {mark: f"column {name!r}" for name, mark in marks.items()}
    if decimal:
        name_of[decimal] = f"data.decimal={decimal}"
    for mark, sign in ((".", ","), (",", ".")):
        if (name := name_of.get(f"{mark}?")) and sign in name_of and mark not in name_of:
            raise TableError(
                f"{file}: {name} has {mark!r} before three digits each time, and {name_of[sign]} has the decimal sign "
                f"{sign!r}: it may divide thousands. Write the numbers without it."
            )


def _none_where_missing(texts: Texts) -> NDArray[Any]:
    distinct = texts.distinct.copy()
    distinct[texts.missing] = None
    return np.asarray(distinct[texts.rows])


def is_text(kind: Any) -> bool:
    """Whether an Arrow type is one of texts."""
    types = import_arrow().types
    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind))


def common_type(name: str, file: Path, kinds: Sequence[Any]) -> Any:
    """The Arrow type as which a column is read, whose pieces may have several.

    Args:
        name: of the column.
        file: the first file.
        kinds: the type of each piece.

    Raises:
        TableError: there is none, or it is none that can be used.
    """
    pa = import_arrow()
    distinct = list(dict.fromkeys(kinds))
    if nested := [kind for kind in distinct if pa.types.is_nested(kind)]:
        raise _unusable(name, file, nested[0])
    if any(map(is_text, distinct)):
        return pa.string()
    try:
        common = pa.unify_schemas(
            [pa.schema([pa.field(name, kind)]) for kind in distinct], promote_options="permissive"
        ).types[0]
    except pa.ArrowException:
        raise TableError(
            f"{file} and other files: column {name!r} holds values of several types ({', '.join(map(str, distinct))}). "
            f"Write it with one type, or leave it out: data.drop=[{name}]"
        ) from None
    typed_column(name, pa.array([], common), file, str)  # refuses a type that cannot be used
    return common


def typed_column(name: str, values: Any, file: Path, where: Callable[[int], str]) -> Column:
    """A column whose file knows its type.

    Raises:
        TableError: the type is none that can be used, or a value is infinite.
    """
    pa, kind = import_arrow(), values.type
    types = pa.types
    if types.is_boolean(kind):
        return Column("boolean", _floats(values.cast(pa.int8())))
    if types.is_timestamp(kind) or types.is_date(kind):
        return Column("date", _floats(values.cast(pa.timestamp("us"), safe=False).cast(pa.int64())) / 86_400e6)
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        numbers = _floats(values.cast(pa.float64(), safe=False))
        check_finite(name, numbers, where)
        return Column("number", numbers, bool(types.is_integer(kind)))
    raise _unusable(name, file, kind)


def _unusable(name: str, file: Path, kind: Any) -> TableError:
    return TableError(
        f"{file}: column {name!r} holds values of type {kind}, which are no numbers, booleans, dates or "
        f"texts. Leave it out: data.drop=[{name}]"
    )


def _floats(values: Any) -> NDArray[np.float64]:
    return np.asarray(values.to_numpy(zero_copy_only=False).astype(np.float64))


def check_finite(name: str, values: NDArray[np.float64], where: Callable[[int], str]) -> None:
    """Refuse numbers that are infinite, or whose square may be.

    Raises:
        TableError: there is one; the message names its place.
    """
    with np.errstate(invalid="ignore"):
        huge = np.abs(values) > _LARGEST
    if huge.any():
        raise TableError(
            f"{where(int(np.argmax(huge)))}: column {name!r} holds a number that is infinite or beyond {_LARGEST:g}. "
            "Replace it; an empty value counts as missing."
        )


def _where(pieces: Sequence[Piece], row: int) -> str:
    """The place of a row of the whole table."""
    for piece in pieces:
        if row < len(piece.table):
            return piece.where(row)
        row -= len(piece.table)
    raise IndexError(row)
