"""Single texts of a table: what stands for a missing value, numbers, and dates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.tables.csv_files import import_arrow

MISSING = frozenset({"", "?", "-", "na", "n/a", "nan", "null", "none", "#n/a", "."})
"""What stands for a missing value, in lower case."""

DATE = r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d+)?)?)(?:Z|([+-]\d\d):?(\d\d))?)?"
"""A date, with a time of day and an offset from UTC where it has them."""

_NUMBER = r"^[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|(?i:inf|infinity))$"


def is_number(texts: Any, sign: str) -> NDArray[np.bool_]:
    """Which texts of an Arrow array are numbers with a decimal sign.

    Args:
        texts: without blanks around them.
        sign: "." or ","; with the comma no text may have a point.

    >>> pa = import_arrow()
    >>> is_number(pa.array(["1,5", "2", "2.5", "x"]), ",").tolist()
    [True, True, False, False]
    """
    import pyarrow.compute as pc

    pattern = _NUMBER.replace(r"\.", ",") if sign == "," else _NUMBER
    return np.asarray(pc.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False), dtype=bool)


def as_numbers(texts: Any, sign: str) -> NDArray[np.float64]:
    """Numbers with a decimal sign, as `is_number` finds them.

    >>> as_numbers(import_arrow().array(["1,5", "2"]), ",").tolist()
    [1.5, 2.0]
    """
    import pyarrow.compute as pc

    pa = import_arrow()
    pointed = pc.replace_substring(texts, ",", ".") if sign == "," else texts
    return np.asarray(pointed.cast(pa.float64()).to_numpy(zero_copy_only=False))


def days_in(texts: Sequence[str]) -> NDArray[np.float64]:
    """Dates as days since 1970, in UTC where they have an offset; NaN for a date that there is not.

    >>> days_in(["1970-01-02", "1970-01-01T12:00", "2026-02-30"]).tolist()
    [1.0, 0.5, nan]
    """
    pa = import_arrow()
    try:  # quick, and possible where none has an offset
        array = pa.array(texts, pa.string()).cast(pa.timestamp("us")).cast(pa.int64())
    except pa.ArrowInvalid:
        return np.array([_day(text) for text in texts])
    return np.asarray(array.to_numpy(zero_copy_only=False)) / 86_400e6


def _day(text: str) -> float:
    date, clock, hours, minutes = re.fullmatch(DATE, text).groups()  # type: ignore[union-attr]
    try:
        day = float(np.datetime64(f"{date}T{clock[:15]}" if clock else date, "us").astype(np.int64)) / 86_400e6
    except ValueError:
        return float("nan")
    offset = (abs(int(hours)) * 60 + int(minutes)) / 1440 if hours else 0.0
    return day + offset if hours and hours[0] == "-" else day - offset


def short(text: str) -> str:
    """A text in quotes for a message, cut where it is long."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
