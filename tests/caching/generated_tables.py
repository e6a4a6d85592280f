"""Tables at random: files of many kinds of columns, and the keys of `data=table` that read them."""

from __future__ import annotations

import datetime
import gzip
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Draw = np.random.Generator
Texts = list[str]

KEYS: dict[str, Any] = {
    **dict.fromkeys(("path", "target", "columns", "split", "val_path", "test_path", "group", "time")),
    "drop": [],
    "fractions": [0.6, 0.2, 0.2],
    "task": "auto",
    "delimiter": None,
    "decimal": None,
    "seed": 0,
    "standardise": True,
}
"""The keys of a table, as in `conf/data/table.yaml`."""

MISSING = ("", "?", "-", "NA", "n/a", "NaN", "null", "None", " ", ".", "nan", "#N/A")
DAY = datetime.datetime(2026, 1, 1)


def _some(draw: Draw, values: Sequence[Any], rows: int) -> list[Any]:
    return [values[at] for at in draw.integers(0, len(values), rows)]


def _numbers(draw: Draw, rows: int) -> Texts:
    form = draw.choice(["{:.2f}", "{!r}", "{:.3e}", "{:+.1f}", "{:.0f}.", "{:g}"])
    scale = float(draw.choice([1e-3, 1.0, 100.0, 1e9]))
    return [str(form).format(float(each) * scale) for each in draw.normal(draw.normal(), 1, rows)]


def _frequent(draw: Draw, rows: int) -> Texts:
    """Numbers of which most are the same."""
    often = str(draw.choice(["0.1", "-1", "0", "-0.0", "1e-310", "7.25"]))
    return [often if draw.random() < 0.8 else f"{draw.normal():.3f}" for _ in range(rows)]


def _whole(draw: Draw, rows: int) -> Texts:
    start = int(draw.choice([-5, 0, 10**6, 2**53 - 3, 2**60]))
    return [str(start + int(each)) for each in draw.integers(0, draw.integers(3, 60), rows)]


def _booleans(draw: Draw, rows: int) -> Texts:
    return _some(draw, ("true", "false", "True", "FALSE"), rows)


def _levels(count: int) -> Callable[[Draw, int], Texts]:
    return lambda draw, rows: [f"level {each:02d}" for each in draw.integers(0, count, rows)]


def _strange(draw: Draw, rows: int) -> Texts:
    """Texts with delimiters, quotes, and line breaks in them."""
    words = ("one, two", "a\nb", 'say "x"', "c\r\nd", ";", "x;y", '"', "ünï \N{ROCKET}", " padded ", "na na", "1", "\n")
    return _some(draw, words, rows)


def _changing(first: Sequence[str], later: Sequence[str]) -> Callable[[Draw, int], Texts]:
    """A column whose first rows are other than its last ones."""

    def make(draw: Draw, rows: int) -> Texts:
        cut = int(rows * draw.uniform(0.1, 0.95))
        return _some(draw, first, cut) + _some(draw, later, rows - cut)

    return make


def _index(draw: Draw, rows: int) -> Texts:
    step = int(draw.choice([1, 1, 7, 10**7]))
    numbers = (np.arange(rows) * step + draw.integers(0, 3)).tolist()
    if draw.random() < 0.4:
        draw.shuffle(numbers)
    if draw.random() < 0.2:
        numbers[-1] = numbers[0]
    return [str(each) for each in numbers]


def _days(draw: Draw, rows: int) -> Texts:
    return [(DAY + datetime.timedelta(days=int(each))).strftime("%Y-%m-%d") for each in draw.integers(0, 99, rows)]


def _moments(draw: Draw, rows: int) -> Texts:
    offset = str(draw.choice(["", "Z", "+02:00", "-0330"]))
    times = [DAY + datetime.timedelta(minutes=int(each)) for each in draw.integers(0, 99_999, rows)]
    return [f"{each:%Y-%m-%d %H:%M}{offset}" for each in times]


def _constant(draw: Draw, rows: int) -> Texts:
    return [str(draw.choice(["7", "0.1", "same", "true"]))] * rows


NUMBERS = ("1", "2", "3.5", "-4")
FEATURES: dict[str, Callable[[Draw, int], Texts]] = {
    "numbers": _numbers,
    "frequent": _frequent,
    "whole": _whole,
    "booleans": _booleans,
    "few levels": _levels(4),
    "many levels": _levels(30),
    "strange": _strange,
    "constant": _constant,
    "empty": lambda draw, rows: [""] * rows,
    "all differ": lambda draw, rows: [f"person {each}" for each in draw.permutation(rows)],
    "1000 levels": _levels(1500),
    "missing, then numbers": _changing(("", "NA"), NUMBERS),
    "missing, then texts": _changing(("", "?"), ("a", "b", "3")),
    "whole, then fractions": _changing(("1", "2"), NUMBERS),
    "numbers, then few words": _changing(NUMBERS, ("1", "2", "3", "word")),
    "numbers, then words": _changing(NUMBERS, ("red", "blue")),
    "booleans, then words": _changing(("true", "false"), ("true", "maybe")),
    "booleans, then numbers": _changing(("true", "false"), ("0", "1")),
    "dates, then words": _changing(("2026-01-01", "2026-01-02"), ("today", "2026-01-03")),
    "no dates, then words": _changing(("2026-02-30", "2026-02-31"), ("today", "2026-01-03")),
    "words, then numbers": _changing(("red", "blue"), NUMBERS),
    "huge, then words": _changing(("12e345", "7e110"), ("red", "blue", "x")),
    "an infinity": _changing(NUMBERS, ("1", "2", "5", "inf")),
    "digits of other scripts": _changing(("1", "2"), ("1", "\N{ARABIC-INDIC DIGIT THREE}")),
    "dates": _days,
}
WEIGHTS = {"numbers": 8, "whole": 4, "frequent": 3, "booleans": 3, "few levels": 4, "many levels": 3, "strange": 4}


def _fractions(draw: Draw, rows: int) -> Texts:
    return [f"{each:.3f}" for each in draw.normal(3, 2, rows)]


TARGETS: dict[str, tuple[Callable[[Draw, int], Texts], str]] = {
    "numbers": (_fractions, "auto"),
    "also numbers": (_numbers, "auto"),
    "many whole numbers": (lambda draw, rows: [str(each) for each in draw.integers(-100, 500, rows)], "auto"),
    "amounts": (lambda draw, rows: _some(draw, ("1", "2", "3"), rows), "regression"),
    "class numbers": (
        lambda draw, rows: _some(draw, ("0.1", ".10", "0.2", "-0", "0", "1", "1.0", "1e0"), rows),
        "classification",
    ),
    "whole classes": (lambda draw, rows: _some(draw, ("3", "1", "-2"), rows), "classification"),
    "unclear": (lambda draw, rows: _some(draw, ("1", "2", "3"), rows), "auto"),
    "words": (lambda draw, rows: _some(draw, ("yes", "no", "perhaps, or not"), rows), "auto"),
    "truths": (_booleans, "auto"),
    "numbers and words": (lambda draw, rows: _some(draw, ("1", "a", "b"), rows), "auto"),
    "rare": (lambda draw, rows: ["x" if draw.random() < 0.02 else "y" for _ in range(rows)], "auto"),
    "missing": (
        lambda draw, rows: [
            "" if draw.random() < 0.01 else "3.5" if draw.random() < 0.5 else "2.5" for _ in range(rows)
        ],
        "auto",
    ),
    "constant": (lambda draw, rows: ["3.5"] * rows, "auto"),
    "a date": (_days, "auto"),
    "late words": (_changing(("1", "2"), ("a", "1", "b")), "auto"),
}
TARGET_WEIGHTS = {"numbers": 12, "also numbers": 4, "amounts": 3, "class numbers": 4, "words": 4, "truths": 3}


def chosen(draw: Draw, names: Sequence[str], weights: dict[str, int]) -> str:
    """A name, with a probability in proportion to its weight, 1 by default."""
    share = np.array([float(weights.get(name, 1)) for name in names])
    return str(draw.choice(names, p=share / share.sum()))


def with_missing(draw: Draw, texts: Texts, share: float) -> Texts:
    """Texts of which a share is replaced by what stands for a missing value."""
    return [str(draw.choice(MISSING)) if draw.random() < share else text for text in texts]


def csv_bytes(draw: Draw, columns: dict[str, Texts], delimiter: str, end: str) -> bytes:
    """A CSV file, as programs write it."""
    quotes_all = draw.random() < 0.2

    def cell(text: str) -> str:
        quoted = quotes_all or any(mark in text for mark in (delimiter, '"', "\n", "\r"))
        return '"' + text.replace('"', '""') + '"' if quoted else text

    lines = [delimiter.join(map(cell, row)) + end for row in (list(columns), *zip(*columns.values(), strict=True))]
    text = "".join(line + end if draw.random() < 0.01 else line for line in lines)
    if draw.random() < 0.2:
        text = text.rstrip("\r\n")
    return text.encode("utf-8-sig" if draw.random() < 0.2 else "utf-8")


def csv_table(folder: Path, draw: Draw) -> dict[str, Any]:
    """Write the files of a table as CSV; returns its keys."""
    rows = int(draw.choice([2, 5, 40, 90, 200, 400], p=[0.02, 0.03, 0.15, 0.3, 0.3, 0.2]))
    columns, keys = dict[str, Texts](), {**KEYS, "seed": int(draw.integers(0, 3))}
    for number in range(int(draw.integers(1, 6))):
        texts = FEATURES[chosen(draw, list(FEATURES), WEIGHTS)](draw, rows)
        share = float(draw.choice([0.0, 0.0, 0.1, 0.6]))
        columns[f"c{number}"] = with_missing(draw, texts, share)
    if draw.random() < 0.25:
        columns[str(draw.choice(["", "index", "Unnamed: 0"]))] = _index(draw, rows)
    target = chosen(draw, list(TARGETS), TARGET_WEIGHTS)
    columns["y"], keys["task"] = TARGETS[target][0](draw, rows), TARGETS[target][1]
    keys["target"] = "y"
    if draw.random() < 0.15:
        columns["z"] = _fractions(draw, rows)
        keys["target"] = ["z", "y"] if draw.random() < 0.5 else ["y", "z"]
    if draw.random() < 0.1 and "numbers" in target:
        columns["copy"] = list(columns["y"])
    _divide(draw, columns, keys, rows)
    order = list(draw.permutation(list(columns)))
    columns = {str(name): columns[name] for name in order}
    if draw.random() < 0.15:  # rows that occur several times
        index = draw.integers(0, max(1, rows // 3), rows)
        columns = {name: [texts[at] for at in index] for name, texts in columns.items()}
    delimiter = str(draw.choice([",", ",", ";", "\t", "|"]))
    if delimiter == ";" and draw.random() < 0.6:
        columns = {name: [_comma(text) for text in texts] for name, texts in columns.items()}
        keys["decimal"] = "," if draw.random() < 0.3 else None
    elif draw.random() < 0.1:
        keys["decimal"] = str(draw.choice([".", ","]))
    end = str(draw.choice(["\n", "\n", "\r\n", "\r"]))
    zipped = ".gz" if draw.random() < 0.15 else ""
    _write(
        folder,
        draw,
        columns,
        keys,
        content=lambda part: csv_bytes(draw, part, delimiter, end),
        suffix=f".csv{zipped}",
    )
    names = [name for name in columns if name.startswith("c")]
    if draw.random() < 0.1:
        keys["columns"] = [str(name) for name in draw.permutation(names)][: int(draw.integers(1, len(names) + 1))]
    elif draw.random() < 0.1:
        keys["drop"] = names[:1]
    keys["standardise"] = bool(draw.random() < 0.85)
    return keys


def _comma(text: str) -> str:
    try:
        float(text)
    except ValueError:
        return text
    return text.replace(".", ",") if text != "." else text


def _divide(draw: Draw, columns: dict[str, Texts], keys: dict[str, Any], rows: int) -> None:
    """Choose what divides the rows."""
    how = str(draw.choice(["fractions", "split", "files", "group", "time"], p=[0.4, 0.15, 0.15, 0.15, 0.15]))
    if how in ("fractions", "group", "time"):
        keys["fractions"] = [[0.6, 0.2, 0.2], [0.5, 0.25, 0.25], [0.34, 0.33, 0.33]][draw.integers(0, 3)]
    if how == "split":
        names = (
            "train",
            "train",
            "Train",
            "training",
            "val",
            "VALID",
            "test",
            "Test",
            *(["foo"] if draw.random() < 0.1 else []),
        )
        columns["part"], keys["split"] = _some(draw, names, rows), "part"
    elif how == "group":
        make = [
            _levels(12),
            lambda d, r: _some(d, ("1", "1.0", "2", "3", "01", "4", "5", "6", "7"), r),
            _moments,
            _whole,
        ]
        columns["g"], keys["group"] = make[draw.integers(0, len(make))](draw, rows), "g"
    elif how == "time":
        make = [
            _days,
            _moments,
            _whole,
            _numbers,
            _frequent,
            _changing(("2026-01-01",), ("2026-01-02T10:00", "2026-01-02 10:30+02:00")),
        ]
        columns["t"], keys["time"] = make[draw.integers(0, len(make))](draw, rows), "t"
    if how in ("split", "group", "time") and draw.random() < 0.05:
        name = keys[how]
        columns[name] = with_missing(draw, columns[name], 0.02)
    if how == "files":
        keys["val_path"] = "wanted"


def _write(
    folder: Path,
    draw: Draw,
    columns: dict[str, Any],
    keys: dict[str, Any],
    *,
    content: Callable[[dict[str, Any]], bytes],
    suffix: str,
) -> None:
    """Write a table as one file, or cut into several; files for validation and test rows where one is wanted."""
    rows = len(columns["y"])
    names = ["t"]
    if keys["val_path"]:
        names = [["t", "v"], ["t", "w"], ["t", "v", "w"]][draw.integers(0, 3)]
        for key, name in (("val_path", "v"), ("test_path", "w")):
            keys[key] = f"{name}{suffix}" if name in names else None
    elif draw.random() < 0.2:
        names = ["t1", "t2", "t3"]
    edges = np.linspace(0, rows, len(names) + 1).astype(int)
    for name, start, stop in zip(names, edges[:-1], edges[1:], strict=True):
        part = {column: values[start:stop] for column, values in columns.items()}
        if len(names) > 1 and draw.random() < 0.3:
            part = {str(column): part[column] for column in draw.permutation(list(part))}
        whole = content(part)
        (folder / f"{name}{suffix}").write_bytes(gzip.compress(whole) if suffix.endswith(".gz") else whole)
    keys["path"] = f"t{suffix}" if names[0] == "t" else f"t*{suffix}"


def _whole_of(kind: pa.DataType) -> Callable[[Draw, int], pa.Array]:
    return lambda draw, rows: _holed(draw, draw.integers(0, draw.integers(2, 100), rows).tolist(), kind)


def _floats_of(kind: pa.DataType, nan: float = 0.0) -> Callable[[Draw, int], pa.Array]:
    def make(draw: Draw, rows: int) -> pa.Array:
        values = np.where(draw.random(rows) < nan, np.nan, draw.normal(5, 3, rows))
        return _holed(draw, values.tolist(), kind)

    return make


def _texts_of(kind: pa.DataType) -> Callable[[Draw, int], pa.Array]:
    def make(draw: Draw, rows: int) -> pa.Array:
        texts = [_levels(4), _strange, _numbers, _booleans, _whole][draw.integers(0, 5)]
        return _holed(draw, texts(draw, rows), pa.string()).cast(kind)

    return make


def _holed(draw: Draw, values: list[Any], kind: pa.DataType) -> pa.Array:
    """An array of which a share is null."""
    share = float(draw.choice([0, 0, 0.1, 0.5]))
    return pa.array([None if draw.random() < share else value for value in values], kind)


TYPED: dict[str, Callable[[Draw, int], pa.Array]] = {
    "int8": _whole_of(pa.int8()),
    "int64": _whole_of(pa.int64()),
    "uint16": _whole_of(pa.uint16()),
    "uint64": _whole_of(pa.uint64()),
    "float32": _floats_of(pa.float32()),
    "float64": _floats_of(pa.float64()),
    "not a number": _floats_of(pa.float64(), nan=0.2),
    "half": lambda draw, rows: pa.array(draw.normal(size=rows).astype(np.float16)),
    "boolean": lambda draw, rows: _holed(draw, (draw.random(rows) < 0.5).tolist(), pa.bool_()),
    "string": _texts_of(pa.string()),
    "large string": _texts_of(pa.large_string()),
    "dictionary": _texts_of(pa.dictionary(pa.int32(), pa.string())),
    "decimal": lambda draw, rows: _holed(
        draw, [Decimal(int(each)) / 100 for each in draw.integers(0, 999, rows)], pa.decimal128(10, 2)
    ),
    "null": lambda draw, rows: pa.nulls(rows),
    "constant": lambda draw, rows: pa.array([float(draw.choice([7.0, 0.1]))] * rows),
    "late": lambda draw, rows: pa.array([None] * (rows // 2) + _some(draw, (0.1, 2.5), rows - rows // 2), pa.float64()),
    "day": lambda draw, rows: pa.array(draw.integers(0, 99, rows).tolist(), pa.date32()),
    "clock": lambda draw, rows: pa.array(draw.integers(0, 99, rows).tolist(), pa.time32("s")),
    "list": lambda draw, rows: pa.array([[1, 2]] * rows),
}
TYPED_WEIGHTS = {**dict.fromkeys(TYPED, 9), "float64": 30, "int64": 20, "day": 1, "clock": 1, "list": 1, "null": 4}


def parquet_table(folder: Path, draw: Draw) -> dict[str, Any]:
    """Write the files of a table as Parquet; returns its keys."""
    rows = int(draw.choice([40, 90, 200, 400]))
    keys = {**KEYS, "seed": int(draw.integers(0, 3)), "target": "y"}
    columns = {
        f"c{number}": TYPED[chosen(draw, list(TYPED), TYPED_WEIGHTS)](draw, rows)
        for number in range(int(draw.integers(1, 5)))
    }
    targets: list[tuple[Callable[[], pa.Array], str]] = [
        (lambda: pa.array(draw.normal(size=rows)), "auto"),
        (lambda: pa.array(draw.normal(size=rows).astype(np.float32)), "auto"),
        (lambda: pa.array(draw.integers(0, 3, rows)), "classification"),
        (lambda: pa.array(draw.integers(0, 3, rows)), "regression"),
        (lambda: pa.array(draw.random(rows) < 0.5), "auto"),
        (lambda: pa.array(_some(draw, ("no", "yes"), rows)).dictionary_encode(), "auto"),
        (lambda: pa.array(_some(draw, (0.1, 0.5, -0.0, 0.0), rows)), "classification"),
        (lambda: pa.array([Decimal(int(each)) / 100 for each in draw.integers(0, 999, rows)]), "auto"),
    ]
    make, keys["task"] = targets[draw.integers(0, len(targets))]
    columns["y"] = make()
    if draw.random() < 0.2:
        columns["index"] = pa.array(_some(draw, range(rows), rows) if draw.random() < 0.3 else draw.permutation(rows))
    how = str(draw.choice(["fractions", "split", "files", "group", "time"]))
    if how == "split":
        columns["part"], keys["split"] = (
            pa.array(_some(draw, ("train", "val", "test"), rows)).dictionary_encode(),
            "part",
        )
    elif how == "group":
        numbers = draw.integers(0, 12, rows)
        groups = [
            numbers,
            numbers.astype(float),
            numbers.astype("datetime64[s]"),
            numbers.astype(str),
            numbers % 8 == 0,
        ]
        columns["g"], keys["group"] = pa.array(groups[draw.integers(0, len(groups))]), "g"
    elif how == "time":
        moments = draw.integers(0, 10**6, rows)
        types = [
            pa.timestamp("s"),
            pa.timestamp("us"),
            pa.timestamp("ns"),
            pa.timestamp("ms", "Europe/Berlin"),
            pa.int64(),
        ]
        columns["t"] = pa.array(moments.tolist(), types[draw.integers(0, len(types))])
        if draw.random() < 0.2:
            columns["t"] = pa.array(moments.astype(np.int32)).cast(pa.date32())
        keys["time"] = "t"
    elif how == "files":
        keys["val_path"] = "wanted"
    size = int(draw.integers(3, 200))
    mixes = draw.random() < 0.3

    def content(part: dict[str, Any]) -> bytes:
        arrays = dict(part)
        if mixes:
            arrays = {name: _other_type(draw, array) for name, array in arrays.items()}
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(arrays), sink, row_group_size=size)
        return bytes(sink.getvalue().to_pybytes())

    _write(folder, draw, columns, keys, content=content, suffix=".parquet")
    return keys


def _other_type(draw: Draw, array: pa.Array) -> pa.Array:
    """The same values in another type that holds them, where there is one."""
    kind = array.type
    others: list[Any] = [kind]
    if pa.types.is_integer(kind):
        others += [pa.int64(), pa.float64(), pa.int32(), pa.string()]
    elif pa.types.is_floating(kind) and kind != pa.float16():
        others += [pa.float64()]
    elif pa.types.is_string(kind):
        others += [pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
    elif pa.types.is_timestamp(kind) and kind.tz is None:
        others += [pa.timestamp("us"), pa.timestamp("ns")]
    return array.cast(others[draw.integers(0, len(others))], safe=False)


def table(folder: Path, seed: int) -> dict[str, Any]:
    """Write a table into a folder; returns its keys, with paths relative to the folder."""
    draw = np.random.default_rng([seed, 18])
    return parquet_table(folder, draw) if draw.random() < 0.3 else csv_table(folder, draw)
