"""Tables that cannot be trained on: one message names the file, the line or the column, and nothing is left behind."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from holdfast.tables import chunks
from tests.conftest import command_line

Content = str | bytes | Callable[[], str | bytes]

TABLE = "data.path=t.csv"


class Bad(NamedTuple):
    """A table, and what is said of it.

    Attributes:
        files: by name; a function makes the large ones.
        overrides: beside `data=table`; the table is `t.csv`, and its target `y`, where none are given.
        parts: all that the message has to hold.
    """

    files: Mapping[str, Content]
    overrides: Sequence[str]
    parts: Sequence[str]


def rows(count: int = 60, pattern: str = "{third},{fifth},{half}", first: int = 0) -> str:
    """Lines of a table whose target is the last column."""
    lines = (
        pattern.format(
            i=i, half=i / 2, third=i % 3 + 0.5, fifth=i % 5, parity=i % 2, letter="abc"[i % 3], day=f"{i % 28 + 1:02d}"
        )
        for i in range(first, first + count)
    )
    return "".join(f"{line}\n" for line in lines)


def parquet(**columns: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


def noise(count: int) -> str:
    draw = random.Random(0).random
    return "".join(f"{draw()},{draw()},{draw()}\n" for _ in range(count))


H = "a,b,y\n"
GOOD = H + rows()
NUMBERS: dict[str, Any] = {"a": [i % 3 + 0.5 for i in range(60)], "y": [i / 2 for i in range(60)]}


def csv(content: Content, *parts: str, overrides: Sequence[str] = ()) -> Bad:
    return Bad({"t.csv": content}, overrides, ("t.csv", *parts))


def keys(*overrides: str, parts: Sequence[str]) -> Bad:
    return Bad({"t.csv": GOOD}, overrides, parts)


def split(pattern: str, *overrides: str, parts: Sequence[str]) -> Bad:
    return Bad({"t.csv": H + rows(60, pattern)}, overrides, ("t.csv", *parts))


FILES = {
    "no such file": Bad({}, (), ("data.path=t.csv: there is no such file",)),
    "a glob of no file": Bad({"t.csv": GOOD}, ("data.path=x*.csv",), ("data.path=x*.csv: there is no such file",)),
    "a folder": Bad({"f/t.csv": GOOD}, ("data.path=f",), ("f is a folder", "data.path='f/*.csv'")),
    "no validation file": keys("data.val_path=nix.csv", parts=("data.val_path=nix.csv: there is no such file",)),
    "no test file": keys("data.test_path=nix.csv", parts=("data.test_path=nix.csv: there is no such file",)),
    "empty": csv("", "is empty", "a line with the names of its columns"),
    "blank lines only": csv("\n\n \n", "is empty"),
    "header only": csv(H, "a header and no rows"),
    "header without a line break": csv("a,b,y", "a header and no rows"),
    "header and blank lines": csv(H + "\n\n", "a header and no rows"),
    "no header": csv(rows(), "no header: its first line holds numbers (0.5, 0, 0.0)", "Write the names"),
    "no header, a value missing": csv("1,2,\n" + rows(), "no header"),
    "a name twice": csv("a,a,y\n" + rows(), "names several columns 'a'", "a name of its own"),
    "a line too short": csv(H + rows(5) + "1,2\n" + rows(), "line 7 has 2 values where the header names 3: '1,2'"),
    "a line too long": csv(H + rows(5) + "1,2,3,4\n" + rows(), "line 7 has 4 values", "belongs into quotes"),
    "a line too short below a quoted line break": csv('a,b,"y\nz"\n' + rows(5) + "\n1,2\n", "line 9 has 2 values"),
    "all lines too short": csv(H + "1,2\n" * 50, "line 2 has 2 values"),
    "a quote that is not closed": csv(H + rows(5) + '1,2,"3\n' + rows(), "line 7: a quote is opened and never closed"),
    "a quote that is not closed, in a text": csv(
        H + rows(5, "{letter},{fifth},{half}") + '"b,1,3\n' + rows(9), "line 7"
    ),
    "a quote of the header that is not closed": csv('a,b,"y\n' + rows(), "line 1: a quote is opened and never closed"),
    "NUL in a number": csv(H + rows(3) + "1,\0,3\n" + rows(), "line 5 holds a NUL byte", "tr -d"),
    "NUL in a text": csv(H + rows(20, "{letter},{fifth},{half}") + "b\0,1,3\n", "line 22 holds a NUL byte"),
    "NUL in the header": csv("a,b\0,y\n" + rows(), "line 1 holds a NUL byte"),
    "Latin-1 header": csv(f"größe,b,y\n{rows()}".encode("latin-1"), "line 1 is not UTF-8 (byte 0xf6)", "iconv -f lat"),
    "Latin-1 far below": csv(f"{H}{rows(9000)}ü,1,2\n".encode("latin-1"), "line 9002 is not UTF-8", "iconv -f latin1"),
    "UTF-16": csv(GOOD.encode("utf-16"), "is UTF-16", "iconv -f utf-16 -t utf8"),
    "UTF-16 without a mark": csv(GOOD.encode("utf-16-le"), "is UTF-16"),
    "one column by another delimiter": csv(GOOD.replace(",", ":"), "has one column, 'a:b:y'", "data.delimiter"),
    "one column by the given delimiter": csv(GOOD, "has one column, 'a,b,y'", overrides=["data.delimiter=';'"]),
    "a delimiter that is no character of a table": csv(GOOD, "data.delimiter='\"'", overrides=["data.delimiter='\"'"]),
    "the target alone": csv("y\n" + rows(60, "{half}"), "has one column, 'y'"),
    "a Parquet file as CSV": csv(lambda: parquet(**NUMBERS), "is a Parquet file", ".parquet"),
    "a gzip file as CSV": csv(gzip.compress(GOOD.encode()), "is a gzip file", ".gz"),
    "no gzip": Bad({"t.csv.gz": GOOD}, ("data.path=t.csv.gz",), ("t.csv.gz is no gzip file", "another name")),
    "gzip cut off": Bad(
        {"t.csv.gz": gzip.compress(GOOD.encode())[:-20]},
        ("data.path=t.csv.gz",),
        ("t.csv.gz cannot be read", "only a part of a file", "copy or export it again"),
    ),
    "gzip cut off far below": Bad(
        {"t.csv.gz": lambda: gzip.compress((H + noise(9000)).encode(), 1)[:-2000]},
        ("data.path=t.csv.gz",),
        ("t.csv.gz cannot be read", "only a part of a file"),
    ),
    "Latin-1 in gzip": Bad(
        {"t.csv.gz": gzip.compress((GOOD + "ü,1,2\n").encode("latin-1"))},
        ("data.path=t.csv.gz",),
        ("t.csv.gz, line 62 is not UTF-8", "gunzip -c t.csv.gz | iconv -f latin1 -t utf8 > utf8.csv"),
    ),
    "different columns in a glob": Bad(
        {"t1.csv": GOOD, "t2.csv": "a,c,y\n" + rows()},
        ("data.path=t*.csv",),
        ("t2.csv and t1.csv have different columns: only one has 'b', 'c'",),
    ),
    "several types in Parquet files": Bad(
        {
            "t1.parquet": lambda: parquet(**NUMBERS),
            "t2.parquet": lambda: parquet(a=[i % 2 == 0 for i in range(60)], y=NUMBERS["y"]),
        },
        ("data.path=t*.parquet",),
        ("t1.parquet and other files: column 'a' holds values of several types (double, bool)", "data.drop=[a]"),
    ),
    "different columns in the validation file": Bad(
        {"t.csv": GOOD, "v.csv": "a,y\n" + rows(60, "{third},{half}")},
        ("data.val_path=v.csv",),
        ("v.csv and t.csv have different columns: only one has 'b'",),
    ),
}

PARQUET = {
    "nested column": (
        {"a": [[1, 2]] * 60, "y": NUMBERS["y"]},
        ("column 'a' holds values of type list", "data.drop=[a]"),
    ),
    "no rows": ({"a": pa.array([], pa.float64()), "y": pa.array([], pa.float64())}, ("has no rows",)),
    "the target alone in Parquet": ({"y": NUMBERS["y"]}, ("no column is left to predict from",)),
    "a missing target in Parquet": ({**NUMBERS, "y": [1.5, None, *NUMBERS["y"][2:]]}, (", row 2: data.target=y is",)),
    "an infinity in Parquet": (
        {**NUMBERS, "a": [float("inf"), *NUMBERS["a"][1:]]},
        (", row 1: column 'a'", "infinite"),
    ),
    "dates in Parquet": ({**NUMBERS, "a": pa.array(range(60), pa.date32())}, ("column 'a' holds dates", "data.time=a")),
}
FILES |= {
    name: Bad(
        {"t.parquet": lambda columns=columns: parquet(**columns)}, ("data.path=t.parquet",), ("t.parquet", *parts)
    )
    for name, (columns, parts) in PARQUET.items()
}
FILES |= {
    f"Parquet {name}": Bad(
        {"t.parquet": lambda change=change: change(parquet(**NUMBERS))},
        ("data.path=t.parquet",),
        ("t.parquet cannot be read", "copy or export it again"),
    )
    for name, change in {
        "cut off": lambda content: content[:-30],
        "overwritten": lambda content: content[:4] + bytes(200) + content[204:],
        "empty": lambda content: b"",
        "that is none": lambda content: b"a,y",
    }.items()
}

COLUMNS = {
    "a word among numbers": csv(
        H + rows(4998) + "abc,1,2\n" + rows(10), "line 5000: column 'a' holds 'abc'", "numbers in most", "data.drop=[a]"
    ),
    "a word among numbers, below lines of two lines": csv(
        H + rows(50, '"{letter}\nx",{fifth},{half}') + "b,abc,2\n", "line 102: column 'b' holds 'abc'"
    ),
    "a comma in numbers": csv(
        H + rows(50, '"1,{i:03d}",{fifth},{half}'), "line 2: column 'a' holds '1,000'", "data.decimal"
    ),
    "an infinite feature": csv(H + rows(5) + "inf,2,3\n" + rows(), "line 7: column 'a'", "infinite", "Replace it"),
    "an infinite target": csv(H + rows(5) + "1,2,-Infinity\n" + rows(), "line 7: column 'y'", "infinite"),
    "a number whose square is infinite": csv(H + rows(5) + "1e200,2,3\n" + rows(), "line 7: column 'a'", "1e+100"),
    "a date as feature": csv(H + rows(60, "2020-01-{day},{fifth},{half}"), "column 'a' holds dates", "data.drop=[a]"),
    "no date": csv(H + rows(60, "2020-02-{day},{fifth},{half}") + "2020-02-30,1,1\n", "line 62", "'2020-02-30'"),
    "too many levels": csv(
        lambda: H + 2 * "".join(f"t{i},{i % 5},{i / 7}\n" for i in range(100_000)), "column 'a' holds", "data.drop=[a]"
    ),
    "all columns dropped": csv(
        H + rows(60, "1,,{half}"), "no column is left", "left out: a (constant), b (empty)", "other columns"
    ),
    "all columns dropped by hand": csv(GOOD, "no column is left", "data.drop", overrides=["data.drop=[a,b]"]),
    "no columns chosen": csv(GOOD, "no column is left", "data.columns", overrides=["data.columns=[]"]),
    "the target as the only feature": csv(GOOD, "no column is left", overrides=["data.columns=[y]"]),
}

TARGETS = {
    "the target missing in some rows": csv(
        H + rows(5) + "1,2,\n" + rows(5) + "1,2,NA\n", "line 7: data.target=y is missing, in 2 of 12 rows", "remove"
    ),
    "the target missing in all rows": csv(H + rows(60, "{third},{fifth},"), "data.target=y is an empty column"),
    "one class": csv(H + rows(60, "{third},{fifth},yes"), "data.target=y has one class", "'yes'", "nothing to learn"),
    "a constant target": csv(H + rows(60, "{third},{fifth},3.5"), "data.target=y is 3.5 in every", "nothing to learn"),
    "a date as target": csv(H + rows(60, "{third},{fifth},2020-01-{day}"), "data.target=y is a date", "give a column"),
    "whole numbers": csv(
        H + rows(60, "{third},{i},{fifth}"),
        "data.target=y has 5 different whole numbers: these may be classes or amounts",
        "data.task=classification",
        "data.task=regression",
    ),
    "a text for a regression": csv(
        H + rows(60, "{third},{fifth},{letter}"),
        "data.target=y holds texts, which are classes",
        overrides=["data.task=regression"],
    ),
    "a text among two targets": csv(
        H + rows(60, "{third},{letter},{half}"), "data.target=b holds texts", overrides=["data.target=[b,y]"]
    ),
    "two targets for a classification": csv(
        GOOD, "data.task=classification has one target", overrides=["data.target=[b,y]", "data.task=classification"]
    ),
    "a target twice": csv(GOOD, "data.target names a column twice: y, y", overrides=["data.target=[y,y]"]),
    "a class of the validation rows alone": Bad(
        {"t.csv": H + rows(60, "{third},{fifth},{letter}"), "v.csv": H + "1,2,d\n" * 3},
        ("data.val_path=v.csv",),
        ("t.csv", "a class is among the validation or test rows, and not", "data.fractions"),
    ),
    "a class of the test rows alone": Bad(
        {"t.csv": H + rows(60, "{third},{fifth},{letter}"), "v.csv": H + "1,2,d\n" * 3},
        ("data.test_path=v.csv",),
        ("t.csv", "a class is among the validation or test rows, and not"),
    ),
}

SPLITS = {
    "two rows": csv(H + rows(2), "no row is in the split", "give more rows"),
    "other words in the split column": split(
        "{parity},{fifth},{half}".replace("{parity}", "foo"),
        "data.split=a",
        parts=("data.split=a: the column holds 'foo'", "train, val, test"),
    ),
    "numbers in the split column": keys(
        "data.split=a", parts=("t.csv: data.split=a holds no texts", "train, val, test")
    ),
    "blank cells in the split column": Bad(
        {"t.csv": H + "".join(f"{('train', 'val', 'test', '')[i % 4]},{i % 5},{i / 2}\n" for i in range(60))},
        ("data.split=a",),
        ("t.csv, line 5: data.split=a is missing, in 15 of 60 rows",),
    ),
    "a split column without test rows": Bad(
        {"t.csv": H + "".join(f"{('train', 'val')[i % 2]},{i % 5},{i / 2}\n" for i in range(60))},
        ("data.split=a",),
        ("t.csv: no row is in the split test (30 training, 30 validation, 0 test rows)",),
    ),
    "two groups": split("g{parity},{fifth},{half}", "data.group=a", parts=("no row is in the split", "give more rows")),
    "rows without a group": Bad(
        {"t.csv": H + rows(5) + ",1,2\n" + rows()},
        ("data.group=a",),
        ("t.csv, line 7: data.group=a is missing, in 1 of 66 rows",),
    ),
    "lists as groups": Bad(
        {"t.parquet": lambda: parquet(g=[[1]] * 60, **NUMBERS)},
        ("data.path=t.parquet", "data.group=g"),
        ("t.parquet: column 'g' holds values of type list",),
    ),
    "words as times": split("{letter},{fifth},{half}", "data.time=a", parts=("data.time=a holds texts", "2026-01-31")),
    "truths as times": Bad(
        {"t.csv": H + "".join(f"{i % 2 == 0},{i % 5},{i / 2}\n" for i in range(60))},
        ("data.time=a",),
        ("t.csv: data.time=a holds booleans",),
    ),
    "rows without a time": Bad(
        {"t.csv": H + rows(5) + ",1,2\n" + rows()},
        ("data.time=a",),
        ("t.csv, line 7: data.time=a is missing, in 1 of 66 rows",),
    ),
    "the same time in all rows": split("7,{fifth},{half}", "data.time=a", parts=("no row is in the split",)),
    "a split and a group": keys(
        "data.split=a", "data.group=b", parts=("t.csv: data.split and data.group each divide",)
    ),
    "a group and a time": keys("data.group=a", "data.time=b", parts=("t.csv: data.group and data.time each divide",)),
    "a validation file and a group": Bad(
        {"t.csv": GOOD, "v.csv": GOOD},
        ("data.val_path=v.csv", "data.group=a"),
        ("t.csv: data.val_path and data.group each divide the rows: give one of them",),
    ),
    "the target as group": keys("data.group=y", parts=("t.csv: data.target and data.group both name 'y'", "take it")),
    "the target as split": keys("data.split=y", parts=("t.csv: data.target and data.split both name 'y'", "take it")),
    "the target as time": keys("data.time=y", parts=("t.csv: data.target and data.time both name 'y'", "take it")),
    "the target dropped": keys("data.drop=[y]", parts=("t.csv: data.target and data.drop both name 'y'", "take it")),
    "a column chosen and dropped": keys(
        "data.columns=[a,b]", "data.drop=[b]", parts=("t.csv: data.columns and data.drop both name 'b'",)
    ),
}

NAMES = {
    f"no such column in data.{key}": Bad(
        {"t.csv": "height,weight,y\n" + rows()},
        (f"data.{key}={'[heigth]' if key in ('drop', 'columns') else 'heigth'}",),
        (f"t.csv has no column 'heigth' (data.{key})", "did you mean 'height'?"),
    )
    for key in ("target", "drop", "columns", "group", "split", "time")
}
NAMES["no similar column"] = keys("data.target=price", parts=("t.csv has no column 'price'", "it has 'a', 'b', 'y'"))

CONFIGURATION = {
    "no path": Bad({}, ("data.path=null",), ("data=table needs data.path=FILE.csv", "the table")),
    "no target": keys("data.target=null", parts=("data=table needs data.target=COLUMN", "the column to predict")),
    "no targets": keys("data.target=[]", parts=("data=table needs data.target=COLUMN",)),
    "two fractions": keys("data.fractions=[0.5,0.5]", parts=("data.fractions", "three positive numbers that sum to 1")),
    "fractions of 1.5": keys("data.fractions=[0.5,0.5,0.5]", parts=("data.fractions", "sum to 1")),
    "a fraction of 0": keys("data.fractions=[0.5,0.5,0]", parts=("data.fractions", "three positive numbers")),
    "features": keys("data.features=2", parts=("data.features=2", "follows from the table: leave it out")),
    "a delimiter of two characters": keys("data.delimiter=';;'", parts=("data.delimiter=;;", "must be one character")),
    "another decimal sign": keys("data.decimal=x", parts=("data.decimal=x", "must be . or ,")),
    "another task": keys("data.task=foo", parts=("data.task=foo", "auto, regression or classification")),
}

BAD = FILES | COLUMNS | TARGETS | SPLITS | NAMES | CONFIGURATION


def refused(bad: Bad, folder: Path) -> str:
    """Run a bad table in a folder; the message."""
    for name, content in bad.files.items():
        made = content() if callable(content) else content
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(made.encode() if isinstance(made, str) else made)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    defaults = [TABLE, "data.target=y"]
    given = {override.partition("=")[0] for override in bad.overrides}
    code, text = command_line(
        "data=table", *(each for each in defaults if each.partition("=")[0] not in given), *bad.overrides
    )
    assert code == 2, text
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert {path.name for path in folder.iterdir()} == {Path(name).parts[0] for name in bad.files}
    return text.strip()


@pytest.mark.parametrize("name", BAD)
def test_one_message_says_what_to_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = refused(BAD[name], tmp_path)
    assert not [part for part in BAD[name].parts if part not in text], text
    assert "Traceback" not in text
    assert len(text) < 500
    if name not in CONFIGURATION:
        assert len(text.splitlines()) == 1


def test_there_are_enough() -> None:
    assert len(BAD) >= 40


def test_a_word_in_a_second_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(chunks, "CHUNK", 1 << 16)
    text = refused(csv(H + rows(20_000) + "abc,1,2\n" + rows(10)), tmp_path)
    assert text.startswith("t.csv, line 20002: column 'a' holds 'abc'")


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("1,2", "line 20002 has 2 values"),
        ("ü,1,2", "line 20002 is not UTF-8"),
        ("\0,1,2", "line 20002 holds a NUL byte"),
    ],
)
def test_a_bad_line_in_a_second_block(line: str, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(chunks, "CHUNK", 1 << 16)
    assert part in refused(csv(f"{H}{rows(20_000)}{line}\n{rows(10)}".encode("latin-1")), tmp_path)


def test_a_quote_that_swallows_more_than_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(chunks, "CHUNK", 1 << 16)
    text = refused(csv(H + rows(5) + '1,2,"3\n' + rows(20_000)), tmp_path)
    assert text == "t.csv, line 7: a quote is opened and never closed. Close it, or remove it."


def test_the_line_is_that_of_the_file_in_which_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bad = Bad({"t1.csv": GOOD, "t2.csv": H + rows(3) + "abc,1,2\n" + rows()}, ("data.path=t*.csv",), ())
    assert refused(bad, tmp_path).startswith("t2.csv, line 5: column 'a' holds 'abc'")


def test_a_sweep_is_refused_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text(H + rows(5) + "1,2\n")
    code, text = command_line("-m", "data=table", TABLE, "data.target=y", "lr=0.1,0.2")
    assert (code, text.strip().startswith("t.csv, line 7 has 2 values")) == (2, True), text
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
