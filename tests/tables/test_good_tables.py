"""Tables as people have them, which are trained on as they are; what is decided for the user is printed."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.conftest import Ran

Holdfast = Callable[..., Ran]

QUICK = ("data=table", "report=false", "logger=none")
NAMES = (
    "a,b",
    'say "x"',
    "two\nlines",
    "Größe",
    "\N{SNOWMAN}\N{ROCKET}",
    "a=b",
    "${lr}",
    "[0]",
    "x/y",
    "it's",
    " ",
    "%s",
)


@pytest.fixture
def train(holdfast: Holdfast, tmp_path: Path) -> Callable[..., Ran]:
    """Write a table, and train on it for an epoch."""

    def run(
        content: str | bytes, *overrides: str, name: str = "t.csv", path: str = "", target: str = "y", epochs: int = 1
    ) -> Ran:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        words = [f"data.path={path or name}", f"data.target={target}", f"epochs={epochs}", *overrides]
        ran = holdfast(*QUICK, *words)
        assert ran.code == 0, ran.out + ran.err
        assert ran.result.status == "completed"
        return ran

    return run


def table_of(ran: Ran) -> dict[str, Any]:
    """The encoding in a checkpoint, with features and targets by their names."""
    table = torch.load(ran.folder.best, weights_only=False)["hyper_parameters"]["table"]
    return {key: {each["name"]: each for each in table[key]} for key in ("features", "targets")}


def features(ran: Ran) -> dict[str, Any]:
    return table_of(ran)["features"]


def lines(names: Sequence[str], row: Callable[[int], Sequence[Any]], count: int = 60, **options: Any) -> str:
    """A CSV file, as Python's own writer writes it."""
    written = io.StringIO()
    writer = csv.writer(written, **{"lineterminator": "\n", **options})
    writer.writerows([names, *(row(i) for i in range(count))])
    return written.getvalue()


SIMPLE = lines(("a", "b", "y"), lambda i: (i % 7 + 0.5, i % 5, i / 2))


@pytest.mark.parametrize("missing", ["", "?", "-", "NA", "n/a", "NaN", "null", "None", " ", "."])
def test_missing_numbers(missing: str, train: Callable[..., Ran]) -> None:
    ran = train(lines(("a", "b", "y"), lambda i: (missing if i % 3 == 0 else 7 * (i % 3), i % 5, i / 2)))
    feature = features(ran)["a"]
    assert (feature["kind"], feature["has_missing"]) == ("number", True)
    assert feature["fill"] in (7, 10.5, 14)
    assert "missing values in training rows, which are filled: a " in ran.out


@pytest.mark.parametrize("missing", ["?", "-", "NA", ""])
def test_missing_texts(missing: str, train: Callable[..., Ran]) -> None:
    ran = train(lines(("a", "b", "y"), lambda i: (("red", "blue", missing)[i % 3], i % 5, i / 2)))
    assert features(ran)["a"]["levels"] == ["blue", "red"]
    assert "a (text, 2 levels)" in ran.out


@pytest.mark.parametrize("first", [100_000_001, 2**24, 2**40])
def test_neighbours_among_large_whole_numbers_differ(first: int, train: Callable[..., Ran]) -> None:
    content = lines(("a", "b", "y"), lambda i: (first + i % 2, i % 5, 3.5 if i % 2 else -1.25), 200)
    ran = train(content, "batch_size=full", "metric=val/loss", epochs=60)
    assert features(ran)["a"]["mean"] == pytest.approx(first + 0.5, abs=0.1)
    assert ran.result.best["val/loss"] < 1e-3


def test_large_whole_numbers_in_parquet(train: Callable[..., Ran]) -> None:
    columns = {"a": [2**40 + i % 2 for i in range(200)], "y": [3.5 if i % 2 else -1.25 for i in range(200)]}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    ran = train(sink.getvalue().to_pybytes(), "batch_size=full", name="t.parquet", epochs=60)
    assert ran.result.best["val/loss"] < 1e-3


def test_large_whole_numbers_as_target(train: Callable[..., Ran]) -> None:
    ran = train(lines(("a", "y"), lambda i: (i % 2, 100_000_001 + i % 2), 200), "data.task=classification", epochs=60)
    assert list(table_of(ran)["targets"]["y"]["classes"]) == ["100000001", "100000002"]
    assert ran.result.best["val/accuracy"] == 1


def test_columns_named_like_keys(train: Callable[..., Ran]) -> None:
    names = ("lr", "data.path", "seed", "epochs", "_target_", "data", "batch_size")
    ran = train(lines(names, lambda i: [(i * k) % 11 + 0.5 for k in range(1, 8)]), target="lr")
    assert list(features(ran)) == list(names[1:])
    ran = train(
        lines(names, lambda i: [(i * k) % 11 + 0.5 for k in range(1, 8)]),
        "data.drop=[data.path,seed]",
        target="_target_",
    )
    assert list(features(ran)) == ["lr", "epochs", "data", "batch_size"]


def test_names_of_all_kinds(train: Callable[..., Ran]) -> None:
    ran = train(lines((*NAMES, "y"), lambda i: [*((i * k) % 13 + 0.5 for k in range(1, len(NAMES) + 1)), i / 2]))
    assert list(features(ran)) == [name.strip() for name in NAMES]


@pytest.mark.parametrize("name", NAMES[:6])
def test_a_target_of_any_name(name: str, train: Callable[..., Ran]) -> None:
    quoted = "'" + name.replace("'", "\\'") + "'"
    ran = train(lines(("b", name), lambda i: (i % 7, i / 2)), target=quoted)
    assert list(table_of(ran)["targets"]) == [name]


def test_dropped_columns_of_any_name(train: Callable[..., Ran]) -> None:
    drop = "data.drop=['a,b','Größe']"
    ran = train(lines(("a,b", "Größe", "c", "y"), lambda i: (i % 3, i % 5, i % 7, i / 2)), drop)
    assert list(features(ran)) == ["c"]


def test_line_breaks_and_delimiters_in_values(train: Callable[..., Ran]) -> None:
    levels = ("one, two", "a\nb", 'say "x"', "c\r\nd", ";", "ünï \N{ROCKET}")
    ran = train(lines(("a", "y"), lambda i: (levels[i % 6], i / 2), 120))
    assert sorted(features(ran)["a"]["levels"]) == sorted(levels)
    assert "72 training, 24 validation, 24 test rows" in ran.out


def test_semicolons_and_decimal_commas(train: Callable[..., Ran]) -> None:
    content = lines(
        ("a", "b", "y"),
        lambda i: (f"{i % 4},{25:03d}", f"{i % 5},5", f"{i / 2:.3f}".replace(".", ",")),
        60,
        delimiter=";",
    )
    ran = train(content)
    assert {name: each["kind"] for name, each in features(ran).items()} == {"a": "number", "b": "number"}
    assert features(ran)["a"]["fill"] in (1.025, 1.525, 2.025)
    assert features(train(content, "data.decimal=','", "data.delimiter=';'")) == features(ran)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_are_found(delimiter: str, train: Callable[..., Ran]) -> None:
    content = lines(("a", 'b "of" two', "y"), lambda i: (i % 7 + 0.5, "xyz"[i % 3], i / 2), delimiter=delimiter)
    assert list(features(train(content))) == ["a", 'b "of" two']


def test_another_delimiter(train: Callable[..., Ran]) -> None:
    assert list(features(train(SIMPLE.replace(",", ":"), "data.delimiter=':'"))) == ["a", "b"]


CHANGED: dict[str, Callable[[str], bytes]] = {
    "byte order mark": lambda text: text.encode("utf-8-sig"),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "CR": lambda text: text.replace("\n", "\r").encode(),
    "byte order mark and CRLF": lambda text: text.replace("\n", "\r\n").encode("utf-8-sig"),
    "no line break at the end": lambda text: text.rstrip("\n").encode(),
    "blank lines": lambda text: ("\n\n" + text.replace("\n", "\n\n")).encode(),
    "everything in quotes": lambda text: "".join(
        ",".join(f'"{cell}"' for cell in line.split(",")) + "\n" for line in text.splitlines()
    ).encode(),
    "blanks around values": lambda text: text.replace(",", " , ").encode(),
}


@pytest.mark.parametrize("change", CHANGED)
def test_how_a_file_is_written_changes_nothing(change: str, train: Callable[..., Ran]) -> None:
    ran, plain = train(CHANGED[change](SIMPLE)), train(SIMPLE)
    assert table_of(ran) == table_of(plain)
    assert ran.result.best == plain.result.best


def test_a_compressed_file(train: Callable[..., Ran]) -> None:
    ran, plain = train(gzip.compress(SIMPLE.encode()), name="t.csv.gz"), train(SIMPLE)
    assert (table_of(ran), ran.result.best) == (table_of(plain), plain.result.best)


def test_a_header_longer_than_what_is_read_of_it_at_once(train: Callable[..., Ran]) -> None:
    names = [f"{'long' * 20}{i}" for i in range(1000)]
    ran = train(lines((*names, "y"), lambda i: [*((i * k) % 1009 for k in range(1, 1001)), i / 2], 30))
    assert len(features(ran)) == 1000


@pytest.mark.parametrize(("yes", "no"), [("true", "false"), ("True", "False"), ("TRUE", "FALSE")])
def test_booleans(yes: str, no: str, train: Callable[..., Ran]) -> None:
    ran = train(lines(("a", "y"), lambda i: ((yes, no, "")[i % 3], (yes, no)[i % 2])))
    assert features(ran)["a"]["kind"] == "boolean"
    assert list(table_of(ran)["targets"]["y"]["classes"]) == ["false", "true"]
    assert "table: y (classes false, true) from 1 column: a" in ran.out


def test_booleans_in_parquet(train: Callable[..., Ran]) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table({"a": [(True, False, None)[i % 3] for i in range(60)], "y": [i % 2 == 0 for i in range(60)]}), sink
    )
    ran = train(sink.getvalue().to_pybytes(), name="t.parquet")
    assert features(ran)["a"]["kind"] == "boolean"
    assert list(table_of(ran)["targets"]["y"]["classes"]) == ["false", "true"]


def test_columns_that_are_left_out(train: Callable[..., Ran]) -> None:
    row = lambda i: (i, 7, "same", f"person {i}", "", i % 5, i / 2)  # noqa: E731
    ran = train(lines(("", "c", "d", "e", "f", "g", "y"), row))
    assert list(features(ran)) == ["g"]
    left_out = "(unnamed) (an index), c (constant), d (constant), e (a different text in every row), f (empty)"
    assert f"left out: {left_out}\n" in ran.out
    assert "table: y (a number) from 1 column: g\n" in ran.out


def test_an_unnamed_column_that_is_no_index(train: Callable[..., Ran]) -> None:
    ran = train(lines(("", "y"), lambda i: (i % 5, i / 2)))
    assert list(features(ran)) == [""]
    assert "from 1 column: (unnamed)" in ran.out


def test_many_levels(train: Callable[..., Ran]) -> None:
    ran = train(lines(("a", "y"), lambda i: (f"level {i % 30:02d}", i / 2), 300))
    assert len(features(ran)["a"]["levels"]) == 20
    assert "a: the 20 commonest of 30 texts; all others are one\n" in ran.out


def test_several_targets(train: Callable[..., Ran]) -> None:
    ran = train(lines(("a", "b", "y"), lambda i: (i % 7, i / 3, i / 2)), target="[y,b]")
    assert list(table_of(ran)["targets"]) == ["y", "b"]
    assert {"val/loss_y", "val/loss_b"} <= ran.result.best.keys()


def test_several_targets_with_names_of_all_kinds(train: Callable[..., Ran]) -> None:
    ran = train(lines(("a", "two\nlines", "x/y ü"), lambda i: (i % 7, i / 3, i / 2)), target="['x/y ü','two\nlines']")
    assert list(table_of(ran)["targets"]) == ["x/y ü", "two\nlines"]


def test_a_glob_of_two_files(train: Callable[..., Ran], tmp_path: Path) -> None:
    header, *rows = SIMPLE.splitlines(keepends=True)
    (tmp_path / "p2.csv").write_text(header + "".join(rows[25:]))
    ran, plain = train(header + "".join(rows[:25]), path="p*.csv", name="p1.csv"), train(SIMPLE)
    assert (table_of(ran), ran.result.best) == (table_of(plain), plain.result.best)


def test_a_glob_of_files_with_columns_in_another_order(train: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "p2.csv").write_text(lines(("y", "b", "a"), lambda i: (i / 2, i % 5, i % 7 + 0.5)))
    (tmp_path / "p1.csv").write_text(SIMPLE)
    assert "table: y (a number) from 2 columns: a, b" in train(SIMPLE, path="p*.csv").out


def test_csv_and_parquet_together(train: Callable[..., Ran], tmp_path: Path) -> None:
    columns = {"a": [i % 7 + 0.5 for i in range(20)], "b": [i % 5 for i in range(20)], "y": [i / 2 for i in range(20)]}
    pq.write_table(pa.table(columns), tmp_path / "v.parquet")
    assert "45 training, 20 validation, 15 test rows" in train(SIMPLE, "data.val_path=v.parquet").out


def test_whole_numbers_and_fractions_in_parquet_files(train: Callable[..., Ran], tmp_path: Path) -> None:
    for name, y in (("p1", [i % 4 for i in range(60)]), ("p2", [i % 4 + 0.5 for i in range(60)])):
        pq.write_table(pa.table({"a": [i % 7 for i in range(60)], "y": y}), tmp_path / f"{name}.parquet")
    assert "table: y (a number)" in train(SIMPLE, path="p*.parquet").out


def test_files_of_their_own_for_validation_and_test(train: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text(lines(("a", "b", "y"), lambda i: (1000 + i, i % 5, i / 2), 10))
    (tmp_path / "w.csv").write_text(lines(("a", "b", "y"), lambda i: (1000 + i, i % 5, i / 2), 7))
    ran = train(SIMPLE, "data.val_path=v.csv", "data.test_path=w.csv")
    assert "60 training, 10 validation, 7 test rows" in ran.out
    assert features(ran)["a"]["mean"] == pytest.approx(sum(i % 7 + 0.5 for i in range(60)) / 60)


def test_a_split_column(train: Callable[..., Ran]) -> None:
    parts = ("train", "Train", "training", "val", "valid", "validation", "TEST")
    ran = train(lines(("part", "a", "y"), lambda i: (parts[i % 7], i % 7, i / 2), 70), "data.split=part")
    assert list(features(ran)) == ["a"]
    assert features(ran)["a"]["mean"] == pytest.approx(1)  # 0, 1 and 2, of the training rows
    assert "30 training, 30 validation, 10 test rows" in ran.out


@pytest.mark.parametrize("group", ["{g}", "patient {g}", "{g}0000000000001", "A{g}"])
def test_groups(group: str, train: Callable[..., Ran]) -> None:
    ran = train(lines(("g", "a", "y"), lambda i: (group.format(g=i // 10), i % 7, i / 2), 300), "data.group=g")
    assert list(features(ran)) == ["a"]
    counts = [int(word) for word in ran.out.split("\n")[1].split() if word.isdigit()]
    assert sum(counts) == 300
    assert all(count % 10 == 0 for count in counts)


def test_groups_of_numbers_and_words(train: Callable[..., Ran]) -> None:
    ran = train(lines(("g", "a", "y"), lambda i: ("A7" if i < 10 else i // 10, i % 7, i / 2), 300), "data.group=g")
    assert list(features(ran)) == ["a"]


@pytest.mark.parametrize(
    "form",
    [
        "2026-{m:02d}-{d:02d}",
        "2026-{m:02d}-{d:02d} 10:30",
        "2026-{m:02d}-{d:02d}T10:30:59",
        "2026-{m:02d}-{d:02d}T10:30:59.123456789",
        "2026-{m:02d}-{d:02d}T10:30:59Z",
        "2026-{m:02d}-{d:02d}T10:30:59+02:00",
        "2026-{m:02d}-{d:02d} 10:30:59.5-0330",
    ],
)
def test_times(form: str, train: Callable[..., Ran]) -> None:
    row = lambda i: (form.format(m=12 - i // 10, d=i % 10 + 1), i, i / 2)  # noqa: E731 (the latest rows come first)
    ran = train(lines(("when", "a", "y"), row, 100), "data.time=when")
    assert "60 training, 20 validation, 20 test rows" in ran.out
    assert features(ran)["a"]["mean"] == pytest.approx(69.5)  # rows 40 to 99 are the earliest


def test_offsets_order_times(train: Callable[..., Ran]) -> None:
    row = lambda i: (f"2026-01-01T{i % 10 + 10}:00:00{'+09:00' if i < 50 else '-09:00'}", i, i / 2)  # noqa: E731
    ran = train(lines(("when", "a", "y"), row, 100), "data.time=when", "data.fractions=[0.5,0.25,0.25]")
    assert features(ran)["a"]["mean"] == pytest.approx(24.5)


def test_times_as_numbers(train: Callable[..., Ran]) -> None:
    ran = train(lines(("when", "a", "y"), lambda i: (100 - i, i, i / 2), 100), "data.time=when")
    assert features(ran)["a"]["mean"] == pytest.approx(69.5)


@pytest.mark.parametrize("kind", [pa.timestamp("ns"), pa.timestamp("us", tz="Europe/Berlin"), pa.date32(), pa.date64()])
def test_times_in_parquet(kind: Any, train: Callable[..., Ran]) -> None:
    day = 1 if kind == pa.date32() else 86_400_000 * (10**6 if kind == pa.timestamp("ns") else 1)
    when = pa.array(
        [(100 - i) * day + (kind == pa.timestamp("ns")) for i in range(100)], pa.int32() if day == 1 else pa.int64()
    )
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"when": when.cast(kind), "a": range(100), "y": [i / 2 for i in range(100)]}), sink)
    ran = train(sink.getvalue().to_pybytes(), "data.time=when", name="t.parquet")
    assert features(ran)["a"]["mean"] == pytest.approx(69.5)


def test_identifiers_with_underscores_are_texts(train: Callable[..., Ran]) -> None:
    ran = train(lines(("a", "y"), lambda i: (f"1_{i % 3}", i / 2)))
    assert features(ran)["a"]["levels"] == ["1_0", "1_1", "1_2"]


def test_a_number_with_a_target_that_varies_only_elsewhere(train: Callable[..., Ran]) -> None:
    ran = train(lines(("a", "b", "y"), lambda i: ("" if i % 2 else i, i % 5, i / 2 if i % 2 else 3)))
    assert features(ran)["a"]["has_missing"]
