"""A table in memory: read, its columns chosen, its rows split, and its encoding fitted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from holdfast.config.fold import Fold
from holdfast.data import folds
from holdfast.data.order import Rows
from holdfast.data.split import SPLITS, Split
from holdfast.errors import DataError, TableError
from holdfast.store.files import digest
from holdfast.tables import selection, splits
from holdfast.tables.columns import Column, check_marks, column_of, texts_of
from holdfast.tables.encoding import Encoder, Encoding, Target, raw_rows
from holdfast.tables.facts import class_names, classes_of, facts_of
from holdfast.tables.notes import correlated, shared_rows, summary, warnings
from holdfast.tables.reader import Piece, files_of, read
from holdfast.tables.roles import (
    Values,
    check_target,
    choose_features,
    class_target,
    is_classification,
    regression_target,
)


class TableSource:
    """The rows of a table.

    Args:
        keys: the data group of a configuration, with a `path` and a `target`.

    Raises:
        TableError: the table cannot be used; the message names the file, the line or the column.

    Attributes:
        fold: which fold of the training and validation rows is validated on; None for the rows of the splits.
        encoding: of its columns, fitted on the training rows.
        said: what was found out, and should be known before training.
    """

    fold: Fold | None = None

    def __init__(self, keys: Mapping[str, Any]) -> None:
        self._keys, self.said = keys, list[str]()
        self._divide: tuple[Callable[[NDArray[Any], Fold], folds.Parts], NDArray[Any]] | None = None
        self.targets = selection.targets_of(keys)
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
        selection.check_names(keys, names, self._pieces[0].file)
        wanted = selection.features_of(keys, names)
        self._columns = {name: self._column(name) for name in (*wanted, *self.targets)}
        check_marks(self._columns, self._pieces[0].file, keys["decimal"])
        values = {name: self._values(name) for name in self.targets}
        self.is_classification = is_classification(keys["task"], values)
        self.rows = len(self._columns[self.targets[0]].values)
        self.split = self._split()
        self._rows = {split: self.split == number for number, split in enumerate(SPLITS)}
        # in their order, and as often as they are read: a file of training rows may be one of test rows in another job
        self._digests = tuple(digest(piece.file) for piece in self._pieces if piece.first == 0)
        self._wanted, self._values_of = wanted, values
        missing = self._fit()
        counts = [int(rows.sum()) for rows in self._rows.values()]
        used = {name: self._columns[name] for name in (*missing, *self.targets)}
        alone = correlated(self.encoding, used, self._rows["train"])
        noted = warnings(counts, shared_rows(list(used.values()), self.split), alone)
        self.said = [*summary(self.encoding, missing, counts), *self.said, *noted]

    def _fit(self) -> dict[str, int]:
        """Fit the encoding on the training rows; returns of each feature the number of these that lack its value."""
        keys, train = self._keys, self._rows["train"]
        selection.check_counts([int(rows.sum()) for rows in self._rows.values()], SPLITS)
        targets = tuple(self._target(name, self._values_of[name]) for name in self.targets)
        facts = {name: facts_of(self._columns[name], train) for name in self._wanted}
        options = {"chosen": keys["columns"] is not None, "standardise": keys["standardise"]}
        features = tuple(choose_features(facts, self.said, **options))
        self.encoding = Encoding(features, targets, self._digests, keys["decimal"])
        return {each.name: facts[each.name].missing for each in features}

    def folded(self, fold: Fold) -> TableSource:
        """The same table with the training and validation rows of a fold, on which its encoding is fitted anew.

        Raises:
            TableError: a column or files name the split of each row, or there are too few rows.
        """
        if self._divide is None:
            key = selection.divided_by(self._keys)
            raise TableError(
                f"data.{key} names the validation rows, which folds would divide anew: leave one of both out."
            )
        other, pooled = copy(self), self.split != SPLITS.index("test")
        train, val = pooled, self._rows["val"]
        if fold.number is not None:
            divide, values = self._divide
            try:
                parts = divide(values[pooled], fold)
            except DataError as error:
                raise TableError(f"{self._keys['path']}: {error}") from None
            train, val = np.zeros_like(pooled), np.zeros_like(pooled)
            train[pooled], val[pooled] = parts
        other._rows, other.fold, other.said = {**self._rows, "train": train, "val": val}, fold, []
        try:
            other._fit()
        except TableError as error:
            raise TableError(f"{self._keys['path']}, data.fold={fold}: {error} Fewer folds may do too.") from None
        other.said = [*self.said, f"{fold.folds} folds of the {int(pooled.sum()):,} training and validation rows"]
        return other

    def _read(self) -> tuple[list[Piece], NDArray[np.int8] | None]:
        """The pieces of all files, and the split of each row where files name it; -1 where it is to be drawn."""
        pieces, of_row, names_of = list[Piece](), list[NDArray[np.int8]](), {}
        for key, split in zip(selection.FILE_KEYS, (-1, 1, 2), strict=True):
            if self._keys[key] is None:
                continue
            for file in files_of(self._keys[key], f"data.{key}"):
                for piece in read(file, self._keys["delimiter"]):
                    pieces.append(piece)
                    of_row.append(np.full(len(piece.table), split, dtype=np.int8))
                    names_of[file] = piece.table.column_names
        selection.check_same_names(names_of)
        has_files = self._keys["val_path"] is not None or self._keys["test_path"] is not None
        return pieces, np.concatenate(of_row) if has_files else None

    def _column(self, name: str) -> Column:
        return column_of(name, self._pieces, self._keys["decimal"])

    def _where(self, row: int) -> str:
        for piece in self._pieces:
            if row < len(piece.table):
                return piece.where(row)
            row -= len(piece.table)
        raise IndexError(row)

    def _values(self, name: str) -> Values:
        """What is known of a target over all rows."""
        column = self._columns[name]
        rows, missing = len(column.values), column.missing
        values = Values(column.kind, column.whole, rows, int(missing.sum()), 0)
        check_target(name, values, self._where(int(np.argmax(missing))) if missing.any() else "")
        if column.kind == "text":
            return values
        return values._replace(distinct=len(np.unique(column.values)), largest=float(np.abs(column.values).max()))

    def _target(self, name: str, values: Values) -> Target:
        column, train = self._columns[name], self._rows["train"]
        if self.is_classification:
            return class_target(name, values, classes_of(column, train))
        return regression_target(name, facts_of(column, train))

    def _split(self) -> NDArray[np.int8]:
        keys, fractions = self._keys, list(self._keys["fractions"])
        key = selection.divided_by(keys)
        if self._file_split is not None:
            return self._by_files(self._file_split, fractions)
        if key is None:
            strata = self._strata()
            self._divide = folds.at_random, strata
            return splits.at_random(strata, fractions, keys["seed"])
        if key == "group":
            groups = np.concatenate([texts_of(keys["group"], piece) for piece in self._pieces])
            self._check_present("group", np.array([group is None for group in groups]))
            self._divide = folds.by_group, groups
            return splits.by_group(groups, fractions, keys["seed"])
        column = self._column(keys[key])
        if problem := selection.dividing_column_problem(keys, column.kind):
            raise problem
        self._check_present(key, column.missing)
        if key == "split":
            return splits.by_column(keys["split"], column.values)
        self._divide = folds.by_time, column.values
        return splits.by_time(column.values, fractions)

    def _check_present(self, key: str, missing: NDArray[np.bool_]) -> None:
        """Refuse missing values in a column that divides the rows."""
        if missing.any():
            where = self._where(int(np.argmax(missing)))
            raise selection.missing_in_dividing(self._keys, key, where, int(missing.sum()), len(missing))

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
        left = selection.file_fractions(fractions, [number for number in (1, 2) if (given == number).any()])
        split[drawn] = splits.at_random(self._strata()[drawn], left, self._keys["seed"])
        return split

    @property
    def form(self) -> tuple[int, ...]:
        """What jobs of a stack have in common: numbers of training and validation rows, of inputs and of classes."""
        counts = (int(self._rows[split].sum()) for split in ("train", "val"))
        return *counts, len(self.encoding.inputs), len(self.encoding.classes)

    def digest(self) -> str:
        """The sha256 of the files, the targets and the split of each row."""
        parts = [*self.encoding.files, *self.targets, str(self.is_classification)]
        parts += [] if self.fold is None else [str(self.fold)]
        return hashlib.sha256("\n".join(parts).encode() + self.split.tobytes()).hexdigest()

    def rows_of(self, split: Split, buffer_rows: int | None = None) -> Rows:
        """The encoded rows of a split: inputs, and targets as they are trained on; all are in one buffer."""
        rows = self._rows[split]
        features = {each.name: self._columns[each.name].values[rows] for each in self.encoding.features}
        raw = torch.from_numpy(raw_rows(self.encoding.features, features))
        return Rows(Encoder(self.encoding)(raw), self._encoded_targets(rows))

    def _encoded_targets(self, rows: NDArray[np.bool_]) -> torch.Tensor:
        encoding = self.encoding
        if encoding.classes:
            code = {name: number for number, name in enumerate(encoding.classes)}
            return torch.tensor([code[name] for name in class_names(self._columns[self.targets[0]], rows)])
        scaled = [(self._columns[each.name].values[rows] - each.mean) / each.scale for each in encoding.targets]
        return torch.from_numpy(np.stack(scaled, 1)).float()
