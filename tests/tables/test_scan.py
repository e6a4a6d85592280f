"""What a column of texts is taken for: the same however its rows are cut, and numbers are those of Python."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import TableError
from holdfast.tables.parsing import as_numbers, is_number
from holdfast.tables.scan import Scan, Texts, values_of

QUICK = settings(deadline=None, max_examples=150)
WORDS = (
    *(
        "1",
        "-2",
        "+3",
        "4.5",
        "1e5",
        "1E-3",
        ".5",
        "5.",
        "1,5",
        "1,234",
        "1.234",
        "12.345.678",
        "1,234,567",
        "-1,234.5",
    ),
    *(
        "inf",
        "-Infinity",
        "nan",
        "NaN",
        "NA",
        "",
        "?",
        " 7 ",
        "true",
        "FALSE",
        "2026-01-01",
        "2026-02-30T10:00Z",
        "red",
    ),
    *("0x10", "1_000", "1e400", "--1", "1.2.3", "9" * 30, "\N{ARABIC-INDIC DIGIT THREE}", "1e", "e5", "-", "-0", "0,0"),
)
COLUMNS = st.one_of(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=30),
    st.lists(st.sampled_from(["1", "2", "3.5", "1e5", "-4", "inf"]), min_size=1, max_size=30),
    st.lists(st.sampled_from(["1", "2,5", "", "1,234", "2.5"]), min_size=1, max_size=30),
    st.lists(st.sampled_from(["1.234", "-2.345", "1"]), min_size=1, max_size=30),
)


def scanned(texts: Sequence[str], cuts: Sequence[int], *, quick: bool) -> Scan:
    """The scan of a column that is cut into pieces; those of numbers are added in the quick way where allowed."""
    scan = Scan()
    edges = [0, *sorted(min(cut, len(texts)) for cut in cuts), len(texts)]
    for start, stop in itertools.pairwise(edges):
        piece = pa.array(texts[start:stop], pa.string())
        if not (quick and scan.add_numbers(piece) is not None):
            scan.add(Texts.of(piece))
    return scan


def decision(scan: Scan, decimal: str | None) -> list[Any]:
    """All that is decided by a scan."""
    form = scan.form(decimal)
    found: list[Any] = [form, scan.present, scan.rows]
    if form in ("number.", "number,"):
        found += [scan.mark, scan.whole]
    for thousands in (True, False):
        try:
            scan.check("a", lambda row: f"row {row}", decimal, thousands=thousands)
        except TableError as error:
            found.append(str(error))
    if form not in ("empty", "number.", "number,"):
        found.append(scan.first_other(decimal))
    return found


@QUICK
@given(COLUMNS, st.lists(st.integers(0, 30), max_size=5), st.sampled_from([None, ".", ","]))
def test_the_cuts_decide_nothing(texts: list[str], cuts: list[int], decimal: str | None) -> None:
    whole = decision(scanned(texts, [], quick=False), decimal)
    assert decision(scanned(texts, cuts, quick=False), decimal) == whole
    if decimal != ",":
        assert decision(scanned(texts, cuts, quick=True), decimal) == whole
    plain = asdict(scanned(texts, cuts, quick=True))
    assert Scan.of_plain(plain) == scanned(texts, cuts, quick=True)


@QUICK
@given(COLUMNS, st.integers(0, 30))
def test_quick_numbers_are_those_of_texts(texts: list[str], cut: int) -> None:
    piece = pa.array(texts[cut:] or texts, pa.string())
    numbers = Scan().add_numbers(piece)
    if numbers is not None:
        scan, parts = Scan(), Texts.of(piece)
        scan.add(parts)
        assert scan.form(None) == "number."
        assert numbers.tobytes() == values_of(parts, "number.", "a", str).tobytes()


def pythons(text: str) -> bool:
    """Whether Python takes a text for a number, in digits of ASCII, without underscores and blanks, and not for NaN."""
    try:
        return text.isascii() and "_" not in text and text == text.strip() and not np.isnan(float(text))
    except ValueError:
        return False


@settings(deadline=None, max_examples=300)
@given(st.one_of(st.text("0123456789.,eE+-", max_size=9), st.sampled_from(WORDS), st.floats(allow_nan=False).map(repr)))
def test_numbers_are_those_of_python(text: str) -> None:
    assert bool(is_number(pa.array([text]), ".")[0]) == pythons(text)
    if "." not in text:
        assert bool(is_number(pa.array([text]), ",")[0]) == pythons(text.replace(",", "."))


@settings(deadline=None, max_examples=300)
@given(
    st.one_of(
        st.floats(allow_nan=False).map(repr),
        st.from_regex(re.compile(r"-?\d{1,20}(\.\d{0,25})?(e-?\d{1,3})?", re.ASCII), fullmatch=True),
    )
)
def test_numbers_have_the_value_that_they_have_in_python(text: str) -> None:
    expected = np.array([float(text)])
    assert as_numbers(pa.array([text]), ".").tobytes() == expected.tobytes()
    assert as_numbers(pa.array([text.replace(".", ",")]), ",").tobytes() == expected.tobytes()
    quick = Scan().add_numbers(pa.array([text]))
    assert quick is not None
    assert quick.tobytes() == expected.tobytes()


@pytest.mark.parametrize("text", ["inf", "INF", "+inf", "-Infinity", "1e999", "-1e400"])
def test_infinities_are_numbers(text: str) -> None:
    assert is_number(pa.array([text]), ".")[0]
