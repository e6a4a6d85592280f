"""Finds what a column of texts holds, piece by piece: the decision is the same however its rows are cut into pieces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from holdfast.errors import TableError
from holdfast.tables.csv_files import import_arrow
from holdfast.tables.parsing import DATE, MISSING, as_numbers, days_in, is_number, short

Form = Literal["empty", "boolean", "number.", "number,", "date", "text", "mixed"]
"""What texts are read as; a number has the decimal sign that follows."""

_MOSTLY = 0.5
"""Share of numbers from which a column with other values is a mistake, and not a column of texts."""

_THOUSANDS = r"^[+-]?\d{1,3}(,\d{3})+(\.\d*)?$"
_LIKE_THOUSANDS = {mark: rf"^[+-]?[1-9]\d{{0,2}}(\{mark}\d{{3}})+$" for mark in ".,"}


class Texts(NamedTuple):
    """Some rows of a column of texts.

    Attributes:
        distinct: the different texts, without the blanks around them.
        rows: index of each row's text among them, shape `(rows,)`.
        missing: which of the different texts stand for a missing value.
    """

    distinct: NDArray[Any]
    rows: NDArray[np.int64]
    missing: NDArray[np.bool_]

    @classmethod
    def of(cls, column: Any) -> Texts:
        """Of an Arrow column of strings."""
        import pyarrow.compute as pc

        trimmed = pc.fill_null(pc.utf8_trim_whitespace(column), "")
        encoded = (trimmed.combine_chunks() if hasattr(trimmed, "combine_chunks") else trimmed).dictionary_encode()
        distinct = np.asarray(encoded.dictionary.to_pylist(), dtype=object)
        missing = np.array([text.lower() in MISSING for text in distinct], dtype=bool)
        return cls(distinct, encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), missing)


@dataclass
class Scan:
    """What the texts of a column have been so far; all counts are of rows that are not missing.

    Attributes:
        present: rows.
        booleans, dates: rows that hold one.
        numbers: rows that are numbers with the decimal sign "." and ",".
        others: the first row that is no number with either sign, and its text.
        comma: the first row with a comma, and its text; `commas` counts them.
        thousands: whether all commas may divide thousands.
        marked, like_thousands: whether a text has the mark "." or ","; whether all that have it look like thousands.
        whole: whether all are written as whole numbers.
        rows: all rows, missing ones included.
    """

    present: int = 0
    booleans: int = 0
    dates: int = 0
    numbers: dict[str, int] = field(default_factory=lambda: {".": 0, ",": 0})
    others: dict[str, tuple[int, str]] = field(default_factory=dict)
    comma: tuple[int, str] | None = None
    commas: int = 0
    thousands: bool = True
    marked: dict[str, bool] = field(default_factory=lambda: {".": False, ",": False})
    like_thousands: dict[str, bool] = field(default_factory=lambda: {".": True, ",": True})
    whole: bool = True
    rows: int = 0

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Scan:
        """From its attributes in plain containers, as JSON returns them."""
        others = {sign: (int(row), str(text)) for sign, (row, text) in plain["others"].items()}
        comma = plain["comma"] and (int(plain["comma"][0]), str(plain["comma"][1]))
        return cls(**{**plain, "others": others, "comma": comma})

    def add_numbers(self, column: Any) -> NDArray[np.float64] | None:
        """Add a piece whose texts are all numbers with a decimal point, which is quick; None where they are not."""
        import pyarrow.compute as pc

        pa = import_arrow()
        try:
            values = column.cast(pa.float64())
        except pa.ArrowInvalid:
            return None
        numbers = np.asarray(values.to_numpy(zero_copy_only=False) if isinstance(values, pa.Array) else values)
        if values.null_count or np.isnan(numbers).any():
            return None
        dots = _dots(column)
        self.present += len(numbers)
        self.numbers["."] += len(numbers)
        self.numbers[","] += len(numbers) - dots
        if dots:
            self._mark(".", column)
            if "," not in self.others and len(numbers):
                row = int(pc.index(pc.match_substring(column, "."), True).as_py())
                self.others[","] = self.rows + row, str(column[row].as_py())
        if self.whole:
            self.whole = not dots and not pc.any(pc.match_substring(column, "e", ignore_case=True)).as_py()
            self.whole = self.whole and bool(np.isfinite(numbers).all())
        self.rows += len(numbers)
        return numbers

    def add(self, texts: Texts) -> None:
        """Add a piece."""
        import pyarrow.compute as pc

        pa = import_arrow()
        counts = np.bincount(texts.rows, minlength=len(texts.distinct)) * ~texts.missing
        array = pa.array(texts.distinct, pa.string())
        self.present += int(counts.sum())
        is_boolean = np.array([text.lower() in ("true", "false") for text in texts.distinct], dtype=bool)
        self.booleans += int(counts[is_boolean].sum())
        self.dates += int(counts[_flags(pc.match_substring_regex(array, f"^(?:{DATE})$"))].sum())
        for sign in ".,":
            numbers = is_number(array, sign)
            self.numbers[sign] += int(counts[numbers].sum())
            self._first(self.others, sign, texts, ~numbers & ~texts.missing)
            has_mark = _flags(pc.match_substring(array, sign)) & ~texts.missing
            if has_mark.any():
                self._mark(sign, array.filter(pa.array(has_mark)))
            if sign == "," and has_mark.any():
                commas: dict[str, tuple[int, str]] = {}
                self._first(commas, ",", texts, has_mark)
                self.comma = self.comma or commas[","]
                self.commas += int(counts[has_mark].sum())
                like = _flags(pc.match_substring_regex(array, _THOUSANDS))
                self.thousands = self.thousands and bool(like[has_mark].all())
        if self.whole:
            present = texts.distinct[~texts.missing]
            self.whole = all(text.lstrip("+-").isdecimal() for text in present)
        self.rows += len(texts.rows)

    def _mark(self, mark: str, marked: Any) -> None:
        import pyarrow.compute as pc

        self.marked[mark] = True
        if self.like_thousands[mark]:
            marked = marked.filter(pc.match_substring(marked, mark))
            like = pc.all(pc.match_substring_regex(marked, _LIKE_THOUSANDS[mark])).as_py()
            self.like_thousands[mark] = bool(like)

    def _first(self, firsts: dict[str, tuple[int, str]], key: str, texts: Texts, flags: NDArray[np.bool_]) -> None:
        if key not in firsts and flags.any():
            row = int(np.argmax(flags[texts.rows]))
            firsts[key] = self.rows + row, str(texts.distinct[texts.rows[row]])

    @property
    def mark(self) -> str:
        """The decimal sign of numbers; with a question mark if it may as well divide thousands, "" if none has one."""
        for mark in ".,":
            if self.marked[mark]:
                return f"{mark}?" if self.like_thousands[mark] else mark
        return ""

    def form(self, decimal: str | None) -> Form:
        """What the texts so far are.

        Args:
            decimal: "." or "," where it is known; None finds it.
        """
        if not self.present:
            return "empty"
        if self.booleans == self.present:
            return "boolean"
        for sign in (decimal,) if decimal else (".", ","):
            if self.numbers[sign] == self.present:
                return "number." if sign == "." else "number,"
        if self._is_mistaken(decimal):
            return "mixed"
        return "date" if self.dates == self.present else "text"

    def _is_mistaken(self, decimal: str | None) -> bool:
        """Whether a column that is none of numbers is none of texts either."""
        if decimal and self.present in self.numbers.values():
            return True
        most = self.numbers[decimal] if decimal else max(self.numbers.values())
        return most / self.present >= _MOSTLY

    def check(self, name: str, where: Callable[[int], str], decimal: str | None, *, thousands: bool) -> None:
        """Refuse a column whose texts are a mistake, or could mean two things.

        Args:
            name: of the column.
            where: the place of a row, for a message.
            decimal: as for `form`.
            thousands: whether commas that may divide thousands are refused.

        Raises:
            TableError: the message names the line.
        """
        self.check_thousands(name, where, refused=thousands)
        if self.form(decimal) != "mixed":
            return
        if decimal and self.present in self.numbers.values():
            row, text = self.others[decimal]
            raise TableError(
                f"{where(row)}: column {name!r} holds {short(text)}, whose decimal sign is not {decimal!r}. Write all "
                "numbers with the sign that data.decimal names, and thousands without a mark."
            )
        row, text = self.first_other(decimal)
        raise TableError(
            f"{where(row)}: column {name!r} holds {short(text)}, and numbers in most other rows. "
            f"Correct it; a feature can also be left out, with data.drop=[{name}]."
        )

    def check_thousands(self, name: str, where: Callable[[int], str], *, refused: bool) -> None:
        """Refuse numbers such as 1,234: the comma may divide thousands, or be the decimal sign.

        Raises:
            TableError: the column holds such numbers, and no others with a comma.
        """
        others_are_numbers = self.numbers["."] == self.present - self.commas
        if refused and self.comma and self.thousands and others_are_numbers:
            row, text = self.comma
            raise TableError(
                f"{where(row)}: column {name!r} holds {text!r}: its comma may divide thousands, or be the decimal "
                "sign. Write the numbers without the comma, or train with data.decimal=','."
            )

    def first_other(self, decimal: str | None) -> tuple[int, str]:
        """The first row that is no number, and its text; with the decimal sign that most numbers have."""
        sign = decimal or ("." if self.numbers["."] >= self.numbers[","] else ",")
        return self.others[sign]


def values_of(texts: Texts, form: Form, name: str, where: Callable[[int], str]) -> NDArray[np.float64]:
    """The values of texts that are no mere texts, NaN where missing, shape `(rows,)`.

    Args:
        texts: some rows.
        form: what they are.
        name: of the column.
        where: the place of a row of them, for a message.

    Raises:
        TableError: a text has the form of a date, and is none.
    """
    values = np.full(len(texts.distinct), np.nan)
    present = texts.distinct[~texts.missing]
    if form == "boolean":
        values[~texts.missing] = [text.lower() == "true" for text in present]
    elif form == "date":
        days = days_in(present.tolist())
        if (wrong := np.isnan(days)).any():
            text = present[int(np.argmax(wrong))]
            row = int(np.argmax(texts.distinct[texts.rows] == text))
            raise TableError(f"{where(row)}: column {name!r} holds {text!r}, which is no date. Correct it.")
        values[~texts.missing] = days
    elif form in ("number.", "number,"):
        values[~texts.missing] = as_numbers(import_arrow().array(present, import_arrow().string()), form[-1])
    return values[texts.rows]


def _dots(column: Any) -> int:
    """The points in an Arrow column of strings."""
    chunks = column.chunks if hasattr(column, "chunks") else [column]
    count = 0
    for chunk in chunks:
        _, offsets, content = chunk.buffers()
        if content is not None and len(chunk):
            ends = np.frombuffer(offsets, dtype=np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
            texts = np.frombuffer(content, dtype=np.uint8)[ends[0] : ends[-1]]
            count += int(np.count_nonzero(texts == ord(".")))
    return count


def _flags(array: Any) -> NDArray[np.bool_]:
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=bool)
