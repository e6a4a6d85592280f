"""Texts as numbers: the decimal sign is found, and marks that may divide thousands."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.tables.reader import import_arrow

_THOUSANDS = re.compile(r"^[+-]?\d{1,3}(,\d{3})+(\.\d*)?$")


def numbers_in(texts: NDArray[Any], decimal: str | None) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The texts as numbers, and which of them are numbers.

    Args:
        texts: none is missing.
        decimal: "." or ","; None finds the one with which all are numbers, or else most.

    >>> numbers_in(np.array(["1,5", "2"], dtype=object), None)[0].tolist()
    [1.5, 2.0]
    >>> numbers_in(np.array(["1,5", "2.5", "3,5"], dtype=object), None)[1].tolist()
    [True, False, True]
    """
    import pyarrow.compute as pc

    pa = import_arrow()
    array, signs = pa.array(texts, pa.string()), (decimal,) if decimal else (".", ",")
    for sign in signs:
        if sign == "," and pc.any(pc.match_substring(array, ".")).as_py():
            continue
        changed = pc.replace_substring(array, ",", ".") if sign == "," else array
        try:
            return np.asarray(changed.cast(pa.float64()).to_numpy()), np.ones(len(texts), dtype=bool)
        except pa.ArrowInvalid:
            continue
    by_sign = [[_number(text, sign) for text in texts] for sign in signs]
    parsed = min(by_sign, key=lambda values: values.count(None))
    return np.array([np.nan if value is None else value for value in parsed]), np.array(
        [value is not None for value in parsed], dtype=bool
    )


def _number(text: str, decimal: str) -> float | None:
    if "_" in text or (decimal == "," and "." in text):
        return None
    try:
        return float(text.replace(",", ".") if decimal == "," else text)
    except ValueError:
        return None


def has_fraction(text: str) -> bool:
    """Whether a number is written otherwise than as a whole one."""
    return not text.lstrip("+-").isdecimal()


def thousands(texts: NDArray[Any], missing: NDArray[np.bool_]) -> int | None:
    """The first row of a column of numbers such as 1,234, whose comma may divide thousands; None if there is none."""
    rows = [row for row in np.flatnonzero(~missing) if "," in texts[row]]
    if not rows or not all(_THOUSANDS.match(texts[row]) for row in rows):
        return None
    if any(_number(text.replace(",", ""), ".") is None for text in texts[~missing]):
        return None
    return int(rows[0])


def mark_of(texts: NDArray[Any]) -> str:
    """The decimal sign of numbers; with a question mark if it may as well divide thousands, "" if they have none.

    >>> mark_of(np.array(["1.5", "2"])), mark_of(np.array(["1.500", "2"])), mark_of(np.array(["0,500"]))
    ('.', '.?', ',')
    """
    import pyarrow.compute as pc

    array = import_arrow().array(texts, import_arrow().string())
    for mark in ".,":
        marked = array.filter(pc.match_substring(array, mark))
        if len(marked):
            like = pc.match_substring_regex(marked, rf"^[+-]?[1-9]\d{{0,2}}(\{mark}\d{{3}})+$")
            return f"{mark}?" if pc.all(like).as_py() else mark
    return ""
