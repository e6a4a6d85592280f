"""New rows of a table: matched by the names of their columns, and encoded as the training rows were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from holdfast.errors import TableError
from holdfast.tables.columns import Column, check_marks, numbers_of, texts_of
from holdfast.tables.encoding import Encoding, Feature, raw_rows
from holdfast.tables.reader import Piece, files_of, read


class NewRows:
    """The rows of some files, in their order.

    Args:
        path: a CSV or Parquet file, or a glob.
        encoding: of the table on which the model was trained.

    Attributes:
        unseen: by column the number of texts that are not among its levels; filled while the rows are read.
        extra: columns that are not used.
    """

    def __init__(self, path: str, encoding: Encoding) -> None:
        self._files, self._encoding = files_of(path, "rows"), encoding
        self._numbers: dict[str, Column] = {}
        self.unseen: Counter[str] = Counter()
        self.extra: dict[str, None] = {}

    def pieces(self) -> Iterator[tuple[Piece, Tensor]]:
        """The rows piece by piece, and their raw columns, shape `(rows, columns)`.

        Raises:
            TableError: a column is missing, or holds what it should not.
        """
        features = self._encoding.features
        for file in self._files:
            for piece in read(file):
                names = piece.table.column_names
                if missing := [each.name for each in features if each.name not in names]:
                    raise TableError(
                        f"{file} lacks {', '.join(map(repr, missing[:8]))}: the model was trained with these columns."
                    )
                used = {*(each.name for each in features), *(each.name for each in self._encoding.targets)}
                self.extra |= dict.fromkeys(name for name in names if name not in used)
                columns = {each.name: self._values(each, piece) for each in features}
                check_marks(self._numbers, file, self._encoding.decimal)
                yield piece, torch.from_numpy(raw_rows(features, columns))

    def _values(self, feature: Feature, piece: Piece) -> Any:
        if feature.kind != "text":
            self._numbers[feature.name] = numbers_of(feature.name, piece, feature.kind, self._encoding.decimal)
            return self._numbers[feature.name].values
        values = texts_of(feature.name, piece)
        if count := sum(value is not None and value not in feature.levels for value in values):
            self.unseen[feature.name] += count
        return values

    def notes(self) -> list[str]:
        """What the user should know of the rows that were read."""
        lines = [f"not used: {', '.join(self.extra)}"] if self.extra else []
        if self.unseen:
            shown = ", ".join(f"{name} {count}" for name, count in self.unseen.items())
            lines.append(f"texts without an input of their own, taken as (other): {shown}")
        return lines


def targets_of(encoding: Encoding, piece: Piece) -> Tensor:
    """The targets of some rows, as a model is trained on them.

    Raises:
        TableError: a target is missing, or a class is unknown.
    """
    names = piece.table.column_names
    for target in encoding.targets:
        if target.name not in names:
            raise TableError(f"{piece.file} lacks the target {target.name!r}: without it nothing can be measured.")
    if not encoding.classes:
        columns = [numbers_of(target.name, piece, "any", encoding.decimal).values for target in encoding.targets]
        _check_present(encoding, [np.isnan(values) for values in columns], piece)
        scaled = [(values - each.mean) / each.scale for values, each in zip(columns, encoding.targets, strict=True)]
        return torch.from_numpy(np.stack(scaled, 1)).float()
    return torch.tensor(_codes(encoding, piece))


def _codes(encoding: Encoding, piece: Piece) -> list[int]:
    name, code = encoding.targets[0].name, {each: number for number, each in enumerate(encoding.classes)}
    values = texts_of(name, piece)
    _check_present(encoding, [np.array([value is None for value in values])], piece)
    texts = [_as_class(value, code) for value in values]
    for row, text in enumerate(texts):
        if text not in code:
            names = ", ".join(encoding.classes[:8])
            raise TableError(f"{piece.where(row)}: {name} is {text!r}, which is none of the classes: {names}")
    return [code[text] for text in texts]


def _as_class(text: str, known: Iterable[str]) -> str:
    """A class by its name; numbers and booleans may be written otherwise than in the training rows: 1.0, TRUE."""
    if text in known:
        return text
    if set(known) <= {"true", "false"}:
        return text.lower()
    try:
        return {float(name): name for name in known}.get(float(text), text)
    except ValueError:
        return text


def _check_present(encoding: Encoding, missing: Sequence[Any], piece: Piece) -> None:
    for target, empty in zip(encoding.targets, missing, strict=True):
        if empty.any():
            where = piece.where(int(np.flatnonzero(empty)[0]))
            raise TableError(f"{where}: {target.name} is missing: a row without a target cannot be measured.")
