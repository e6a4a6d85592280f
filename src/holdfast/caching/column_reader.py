"""Reads one column of a table piece by piece as doubles, and finds what it holds on the way."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.errors import TableError
from holdfast.tables.columns import KIND_OF, Kind, check_finite, is_text, strings, typed_column
from holdfast.tables.scan import Form, Scan, Texts, values_of

MOST_LEVELS = 100_000
"""Different texts of a column that are kept; a column of more is no feature and no target."""

MOST_GROUPS = 1_000_000
"""Different texts of the column that groups the rows."""


def number_of(text: str) -> float:
    """A number that stands for a text beyond the most that are kept: practically never the same for two texts.

    >>> number_of("a") == number_of("a") != number_of("b")
    True
    """
    bits = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
    number: float = struct.unpack(">d", struct.pack(">Q", bits >> 3 | 1 << 62))[0]  # finite, from 2 on
    return number


Where = Callable[[int], str]
"""The place of a row of the whole table, for a message."""


@dataclass
class ColumnReader:
    """One column.

    Attributes:
        name: of the column.
        decimal: the decimal sign, if the user named it.
        thousands: whether commas that may divide thousands are refused.
        is_group: whether it groups the rows; then its values are texts, whatever they hold.
        form: as what its texts are written; "empty" as long as all are missing.
        kind: of a column whose file knows its type.
        whole: whether its file says that all are whole numbers.
        scan: what its texts have been so far.
        levels: its different texts, in the order in which they occurred.
        left_out: rows with texts beyond the most that are kept.
        is_stale: whether values were written in another form than later ones turned out to have.
        is_known: whether the form is known from an earlier pass.
        problems: what is wrong with the first value that cannot be used, by the form that the texts had until then.
    """

    name: str
    decimal: str | None = None
    thousands: bool = True
    is_group: bool = False
    form: Form = "empty"
    kind: Kind = "number"
    whole: bool = False
    scan: Scan = field(default_factory=Scan)
    levels: list[str] = field(default_factory=list)
    left_out: int = 0
    is_stale: bool = False
    is_known: bool = False
    problems: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._codes = {level: code for code, level in enumerate(self.levels)}
        if isinstance(self.scan, Mapping):
            self.scan = Scan.of_plain(self.scan)

    def add(self, part: Any, file: Path, where: Where) -> NDArray[np.float64]:
        """The values of a piece: texts as codes, in the order of their first occurrence; NaN where missing.

        Args:
            part: the Arrow column, in its final type.
            file: of the piece.
            where: the place of a row of the piece.

        Raises:
            TableError: the file has a type for the column, and a value cannot be used.
        """
        if self.is_group:
            return self._coded(Texts.of(strings(self.name, part, file)))
        if not is_text(part.type):
            column = typed_column(self.name, part, file, where)
            self.kind, self.whole = column.kind, column.whole
            return np.asarray(column.values)
        numbers = self.scan.add_numbers(part) if self.decimal != "," and self.form in ("empty", "number.") else None
        texts = Texts.of(part) if numbers is None else None
        if texts is not None:
            self.scan.add(texts)
        self._decide()
        if numbers is None and texts is not None:
            numbers = self._coded(texts) if self.form == "text" else self._parsed(texts, where)
        assert numbers is not None
        try:
            if self.form in {"number.", "number,"}:
                check_finite(self.name, numbers, where)
        except TableError as error:
            self.problems.setdefault(self.form, str(error))
        return numbers

    def _decide(self) -> None:
        """Take the form of all texts so far; values that were written in another one are to be written again."""
        form = self.scan.form(self.decimal)
        form = "text" if form == "mixed" else form
        if form != self.form and not self.is_known:
            self.is_stale = self.is_stale or self.form != "empty"
            self.form = form

    def _parsed(self, texts: Texts, where: Where) -> NDArray[np.float64]:
        try:
            return values_of(texts, self.form, self.name, where)
        except TableError as error:
            self.problems.setdefault(self.form, str(error))
            return np.full(len(texts.rows), np.nan)

    def _coded(self, texts: Texts) -> NDArray[np.float64]:
        most, codes = MOST_GROUPS if self.is_group else MOST_LEVELS, np.full(len(texts.distinct), np.nan)
        is_left_out = np.zeros(len(codes), dtype=bool)
        for index in np.flatnonzero(~texts.missing):
            text = texts.distinct[index]
            code = self._codes.get(text)
            if code is None and len(self.levels) < most:
                code = self._codes[text] = len(self.levels)
                self.levels.append(text)
            is_left_out[index] = code is None
            codes[index] = number_of(text) if code is None else code
        self.left_out += int(is_left_out[texts.rows].sum())
        return np.asarray(codes[texts.rows])

    def again(self) -> ColumnReader:
        """The reader of a second pass, which knows as what the column is to be written."""
        return ColumnReader(self.name, self.decimal, self.thousands, self.is_group, self.form, is_known=True)

    def finish(self, where: Where) -> None:
        """Check the column after its last piece.

        Raises:
            TableError: numbers and other values are mixed, commas may divide thousands, or a value cannot be used.
        """
        if not self.is_group:
            self.scan.check(self.name, where, self.decimal, thousands=self.thousands)
        elif self.left_out:
            raise TableError(
                f"data.group={self.name} has more than {MOST_GROUPS:,} different values, which are not kept in memory: "
                "write the split of each row into a column, and give it as data.split."
            )
        if self.form in self.problems:
            raise TableError(self.problems[self.form])
        if self.scan.present:
            self.kind = KIND_OF[self.form]
            self.whole = self.scan.whole and self.form == "number."

    @property
    def mark(self) -> str:
        """The decimal sign, as `Scan.mark`; "" where it holds no numbers."""
        return self.scan.mark if self.form in ("number.", "number,") else ""

    def as_plain(self) -> dict[str, Any]:
        """In plain containers."""
        return asdict(self)
