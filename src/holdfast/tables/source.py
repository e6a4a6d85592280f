"""A table that is trained on: read, its columns chosen, its rows split, and its encoding fitted."""

from __future__ import annotations

import difflib
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from holdfast.data.order import Rows
from holdfast.data.split import SPLITS, Split
from holdfast.errors import TableError
from holdfast.store.files import digest
from holdfast.tables import splits
from holdfast.tables.columns import Column, check_marks, column_of, texts_of
from holdfast.tables.encoding import Encoder, Encoding, class_names, raw_rows
from holdfast.tables.notes import summary, warnings
from holdfast.tables.reader import Piece, files_of, read
from holdfast.tables.roles import choose_features, choose_targets, is_classification


class TableSource:
    """The rows of a table.

    Args:
        keys: the data group of a configuration, with a `path` and a `target`.

    Raises:
        TableError: the table cannot be used; the message names the file, the line or the column.

    Attributes:
        encoding: of its columns, fitted on the training rows.
        said: what was found out, and should be known before training.
    """

    def __init__(self, keys: Mapping[str, Any]) -> None:
        self._keys, self.said = keys, list[str]()
        self.targets = [keys["target"]] if isinstance(keys["target"], str) else list(keys["target"])
        self._pieces, self._file_split = self._read()
        files = {str(piece.file) for piece in self._pieces}
        try:
            self._use(keys)
        except TableError as error:  # a message about all rows names no file
            named = any(str(error).startswith(file) for file in files)
            raise error if named else TableError(f"{keys['path']}: {error}") from None
        self._pieces.clear()  # the texts of a file take several times the room of its columns

    def _use(self, keys: Mapping[str, Any]) -> None:
        """Find features, targets and splits, and fit the encoding."""
        names = self._pieces[0].table.column_names
        self._check_names(names)
        not_features = {*self.targets, keys["split"], keys["group"], keys["time"], *(keys["drop"] or ())}
        wanted = [name for name in (names if keys["columns"] is None else keys["columns"]) if name not in not_features]
        self._columns = {name: self._column(name) for name in (*wanted, *self.targets)}
        check_marks(self._columns, self._pieces[0].file, keys["decimal"])
        self.is_classification = is_classification(keys["task"], self._columns, self.targets, self._where)
        self.rows = len(self._columns[self.targets[0]].values)
        self.split = self._split()
        self._check_splits()
        train, features = self.split == 0, {name: self._columns[name] for name in wanted}
        options = {"chosen": keys["columns"] is not None, "standardise": keys["standardise"]}
        targets = choose_targets(self._columns, self.targets, self.split, classes=self.is_classification)
        # in their order, and as often as they are read: a file of training rows may be one of test rows in another job
        digests = tuple(digest(piece.file) for piece in self._pieces if piece.first == 0)
        chosen = tuple(choose_features(features, train, self.said, **options))
        self.encoding = Encoding(chosen, tuple(targets), digests, keys["decimal"])
        notes = self.encoding, self._columns, self.split
        self.said = [*summary(*notes), *self.said, *warnings(*notes)]

    def _read(self) -> tuple[list[Piece], NDArray[np.int8] | None]:
        """The pieces of all files, and the split of each row where files name it; -1 where it is to be drawn."""
        pieces, of_row, names_of = list[Piece](), list[NDArray[np.int8]](), {}
        for key, split in (("path", -1), ("val_path", 1), ("test_path", 2)):
            if self._keys[key] is None:
                continue
            for file in files_of(self._keys[key], f"data.{key}"):
                for piece in read(file, self._keys["delimiter"]):
                    pieces.append(piece)
                    of_row.append(np.full(len(piece.table), split, dtype=np.int8))
                    names_of[file] = piece.table.column_names
        first, names = next(iter(names_of.items()))
        for file, others in names_of.items():
            if set(others) != set(names):
                differing = sorted(set(others) ^ set(names))
                shown = ", ".join(map(repr, differing[:5]))
                raise TableError(f"{file} and {first} have different columns: only one has {shown}. Name them alike.")
        has_files = self._keys["val_path"] is not None or self._keys["test_path"] is not None
        return pieces, np.concatenate(of_row) if has_files else None

    def _check_names(self, names: Sequence[str]) -> None:
        given = {
            "target": self.targets,
            **{key: self._keys[key] or () for key in ("columns", "drop")},
            **{key: [self._keys[key]] if self._keys[key] else () for key in ("split", "group", "time")},
        }
        for key, values in given.items():
            for name in values:
                if name not in names:
                    near = difflib.get_close_matches(name, names, 1, 0.5)
                    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(map(repr, names[:12]))}."
                    raise TableError(f"{self._pieces[0].file} has no column {name!r} (data.{key}): {hint}")
        if len(set(self.targets)) < len(self.targets):
            raise TableError(f"data.target names a column twice: {', '.join(self.targets)}. Name it once.")
        for first, second in itertools.product(("target", "columns"), ("drop", "split", "group", "time")):
            if both := set(given[first]) & set(given[second]):
                raise TableError(
                    f"data.{first} and data.{second} both name {min(both)!r}, which can be one of them only: take it "
                    "out of the other."
                )

    def _column(self, name: str) -> Column:
        return column_of(name, self._pieces, self._keys["decimal"])

    def _where(self, row: int) -> str:
        for piece in self._pieces:
            if row < len(piece.table):
                return piece.where(row)
            row -= len(piece.table)
        raise IndexError(row)

    def _split(self) -> NDArray[np.int8]:
        keys, fractions = self._keys, list(self._keys["fractions"])
        chosen = [key for key in ("val_path", "test_path", "split", "group", "time") if keys[key] is not None]
        chosen = chosen[1:] if chosen[:2] == ["val_path", "test_path"] else chosen
        if len(chosen) > 1:
            raise TableError(f"data.{chosen[0]} and data.{chosen[1]} each divide the rows: give one of them.")
        if self._file_split is not None:
            return self._by_files(self._file_split, fractions)
        if keys["split"] is not None:
            column = self._column(keys["split"])
            if column.kind != "text":
                raise TableError(
                    f"data.split={keys['split']} holds no texts: its values have to be {', '.join(SPLITS)}."
                )
            self._check_present("split", column.missing)
            return splits.by_column(keys["split"], column.values)
        if keys["group"] is not None:
            groups = np.concatenate([texts_of(keys["group"], piece) for piece in self._pieces])
            self._check_present("group", np.array([group is None for group in groups]))
            return splits.by_group(groups, fractions, keys["seed"])
        if keys["time"] is not None:
            column = self._column(keys["time"])
            if column.kind not in ("number", "date"):
                raise TableError(
                    f"data.time={keys['time']} holds {column.kind}s: the rows are ordered by it. Give a column of "
                    "numbers, or of dates as 2026-01-31."
                )
            self._check_present("time", column.missing)
            return splits.by_time(column.values, fractions)
        return splits.at_random(self._strata(), fractions, keys["seed"])

    def _check_present(self, key: str, missing: NDArray[np.bool_]) -> None:
        """Refuse missing values in a column that divides the rows."""
        if missing.any():
            raise TableError(
                f"{self._where(int(np.flatnonzero(missing)[0]))}: data.{key}={self._keys[key]} is missing, in "
                f"{int(missing.sum())} of {len(missing)} rows. Fill it in, or remove such rows."
            )

    def _strata(self) -> NDArray[np.int64]:
        """A number for each row's class; the same for all rows of a regression."""
        if not self.is_classification:
            return np.zeros(self.rows, dtype=np.int64)
        target, seen = self._columns[self.targets[0]], dict[str, int]()
        names = class_names(target, np.ones(self.rows, dtype=bool))
        return np.array([seen.setdefault(name, len(seen)) for name in names])

    def _by_files(self, given: NDArray[np.int8], fractions: list[float]) -> NDArray[np.int8]:
        """Rows of further files are validation or test rows; what these lack is drawn from the first file."""
        split, drawn = given.copy(), given < 0
        for number in (1, 2):
            fractions[number] = 0.0 if (given == number).any() else fractions[number]
        fractions = [share / sum(fractions) for share in fractions]
        split[drawn] = splits.at_random(self._strata()[drawn], fractions, self._keys["seed"])
        return split

    def _check_splits(self) -> None:
        counts = [int((self.split == number).sum()) for number in range(3)]
        for name, count in zip(SPLITS, counts, strict=True):
            if count == 0:
                raise TableError(
                    f"no row is in the split {name} ({counts[0]} training, {counts[1]} validation, {counts[2]} test "
                    "rows): give more rows, other data.fractions, or another column that divides them."
                )

    def digest(self) -> str:
        """The sha256 of the files, the targets and the split of each row."""
        parts = [*self.encoding.files, *self.targets, str(self.is_classification)]
        return hashlib.sha256("\n".join(parts).encode() + self.split.tobytes()).hexdigest()

    def rows_of(self, split: Split) -> Rows:
        """The encoded rows of a split: inputs, and targets as they are trained on."""
        rows = self.split == SPLITS.index(split)
        features = {each.name: self._columns[each.name].values[rows] for each in self.encoding.features}
        raw = torch.from_numpy(raw_rows(self.encoding.features, features))
        return Rows(Encoder(self.encoding)(raw), self._encoded_targets(rows))

    def _encoded_targets(self, rows: NDArray[np.bool_]) -> torch.Tensor:
        encoding = self.encoding
        if encoding.classes:
            code = {name: number for number, name in enumerate(encoding.classes)}
            names = class_names(self._columns[self.targets[0]], rows)
            if unknown := set(names) - code.keys():
                raise TableError(f"the class {min(unknown)!r} is not among the training rows.")
            return torch.tensor([code[name] for name in names])
        scaled = [(self._columns[each.name].values[rows] - each.mean) / each.scale for each in encoding.targets]
        return torch.from_numpy(np.stack(scaled, 1)).float()


_sources: dict[tuple[Any, ...], TableSource] = {}
"""The tables that this process has read, by their keys and the state of their files."""

TABLE_KEYS = (
    *("path", "target", "columns", "drop", "split", "val_path", "test_path", "fractions", "group", "time", "task"),
    *("delimiter", "decimal", "seed", "standardise"),
)


def source_of(group: Mapping[str, Any]) -> TableSource:
    """The table of a data group; it is read once in a process, as long as its files stay as they are."""
    keys = {key: group[key] for key in TABLE_KEYS}
    lacking = {"data.path=FILE.csv": keys["path"], "data.target=COLUMN": keys["target"]}
    if missing := [word for word, value in lacking.items() if not value]:  # a sweep may give them to its jobs alone
        raise TableError(f"data=table needs {' and '.join(missing)}: the table, and the column to predict.")
    paths = [(key, keys[key]) for key in ("path", "val_path", "test_path") if keys[key] is not None]
    files = [file for key, path in paths for file in files_of(path, f"data.{key}")]
    stamps = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = (repr(keys), *stamps)
    if key not in _sources:
        _sources[key] = TableSource(keys)
    return _sources[key]
