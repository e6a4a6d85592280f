"""What the keys of a table's data group name: its columns, and what divides its rows."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.errors import TableError

FILE_KEYS = ("path", "val_path", "test_path")
"""Keys that name files."""


def targets_of(keys: Mapping[str, Any]) -> list[str]:
    """The names of the targets."""
    return [keys["target"]] if isinstance(keys["target"], str) else list(keys["target"])


def features_of(keys: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The names of the columns that may be features."""
    not_features = {*targets_of(keys), keys["split"], keys["group"], keys["time"], *(keys["drop"] or ())}
    return [name for name in (names if keys["columns"] is None else keys["columns"]) if name not in not_features]


def check_names(keys: Mapping[str, Any], names: Sequence[str], file: Path) -> None:
    """Check that a file has the columns that the keys name, and that each has one part.

    Raises:
        TableError: it lacks one, or one has two parts.
    """
    targets = targets_of(keys)
    given = {
        "target": targets,
        **{key: keys[key] or () for key in ("columns", "drop")},
        **{key: [keys[key]] if keys[key] else () for key in ("split", "group", "time")},
    }
    for key, values in given.items():
        for name in values:
            if name not in names:
                near = difflib.get_close_matches(name, names, 1, 0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(map(repr, names[:12]))}."
                raise TableError(f"{file} has no column {name!r} (data.{key}): {hint}")
    if len(set(targets)) < len(targets):
        raise TableError(f"data.target names a column twice: {', '.join(targets)}. Name it once.")
    for first, second in itertools.product(("target", "columns"), ("drop", "split", "group", "time")):
        if both := set(given[first]) & set(given[second]):
            raise TableError(
                f"data.{first} and data.{second} both name {min(both)!r}, which can be one of them only: take it "
                "out of the other."
            )


def check_same_names(names_of: Mapping[Path, Sequence[str]]) -> None:
    """Check that all files have the same columns, in any order.

    Raises:
        TableError: they have not.
    """
    first, names = next(iter(names_of.items()))
    for file, others in names_of.items():
        if set(others) != set(names):
            shown = ", ".join(map(repr, sorted(set(others) ^ set(names))[:5]))
            raise TableError(f"{file} and {first} have different columns: only one has {shown}. Name them alike.")


def divided_by(keys: Mapping[str, Any]) -> str | None:
    """The key that divides the rows: "val_path" (or "test_path"), "split", "group" or "time"; None: at random.

    Raises:
        TableError: several do.
    """
    chosen = [key for key in ("val_path", "test_path", "split", "group", "time") if keys[key] is not None]
    chosen = chosen[1:] if chosen[:2] == ["val_path", "test_path"] else chosen
    if len(chosen) > 1:
        raise TableError(f"data.{chosen[0]} and data.{chosen[1]} each divide the rows: give one of them.")
    return chosen[0] if chosen else None


def dividing_column_problem(keys: Mapping[str, Any], kind: str) -> TableError | None:
    """What is wrong with the kind of the column that divides the rows; None if nothing is."""
    if keys["split"] is not None and kind != "text":
        return TableError(f"data.split={keys['split']} holds no texts: its values have to be train, val, test.")
    if keys["time"] is not None and kind not in ("number", "date"):
        return TableError(
            f"data.time={keys['time']} holds {kind}s: the rows are ordered by it. Give a column of "
            "numbers, or of dates as 2026-01-31."
        )
    return None


def missing_in_dividing(keys: Mapping[str, Any], key: str, where: str, missing: int, rows: int) -> TableError:
    """The error of a column that divides the rows, and lacks values."""
    return TableError(
        f"{where}: data.{key}={keys[key]} is missing, in {missing} of {rows} rows. Fill it in, or remove such rows."
    )


def file_fractions(fractions: Sequence[float], given: Sequence[int]) -> list[float]:
    """The fractions of the rows of the first files, where other files hold all rows of some splits.

    Args:
        fractions: of training, validation and test rows.
        given: the numbers of the splits that have files of their own.
    """
    left = [0.0 if number in given else share for number, share in enumerate(fractions)]
    return [share / sum(left) for share in left]


def check_counts(counts: Sequence[int], names: Sequence[str]) -> None:
    """Check that every split has rows.

    Raises:
        TableError: one has none.
    """
    for name, count in zip(names, counts, strict=True):
        if count == 0:
            raise TableError(
                f"no row is in the split {name} ({counts[0]} training, {counts[1]} validation, {counts[2]} test "
                "rows): give more rows, other data.fractions, or another column that divides them."
            )
