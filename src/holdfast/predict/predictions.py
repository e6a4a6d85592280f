"""Writes predictions: to standard output, or to a CSV or Parquet file."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
import torch

from holdfast.errors import FolderError, TableError
from holdfast.predict.new_rows import NewRows
from holdfast.predict.predictor import Loaded
from holdfast.tables.csv_files import import_arrow
from holdfast.tables.encoding import Encoding


class Writer(Protocol):
    """Takes columns of predictions."""

    def write(self, columns: dict[str, Any]) -> None:
        """Write some rows."""


def predict(loaded: Loaded, path: str, output: Path | None) -> list[str]:
    """Predict the rows of some files; returns what the user should know.

    Args:
        loaded: the model.
        path: of the rows.
        output: a .csv or .parquet file; None writes CSV to standard output.

    Raises:
        TableError: the rows cannot be used.
        FolderError: the output has another name.
    """
    rows = NewRows(path, loaded.encoding)
    with _writer(output) as writer, torch.inference_mode():
        for piece, raw in rows.pieces():
            predicted = loaded.predict(raw).numpy()
            if (bad := ~np.isfinite(predicted).all(1)).any():
                raise TableError(
                    f"{piece.where(int(np.flatnonzero(bad)[0]))}: the prediction is not finite, since a number lies "
                    "too far from those of the training rows. Correct it; an empty value counts as missing."
                )
            writer.write(_columns(loaded.encoding, predicted))
    return rows.notes()


def _columns(encoding: Encoding, predicted: Any) -> dict[str, Any]:
    """The predictions by column."""
    if not encoding.classes:
        names = [f"prediction_{target.name}" for target in encoding.targets]
        return dict(zip(names if len(names) > 1 else ["prediction"], predicted.T, strict=True))
    best = np.array(encoding.classes, dtype=object)[predicted.argmax(1)]
    shares = {f"probability_{name}": predicted[:, number] for number, name in enumerate(encoding.classes)}
    return {"prediction": best, **shares}


@contextmanager
def _writer(output: Path | None) -> Iterator[Writer]:
    """Writes to a file, which appears when it is complete, or to standard output."""
    if output is None:
        yield _Csv(sys.stdout)
        return
    if output.suffix not in (".csv", ".parquet"):
        raise FolderError(f"-o {output}: the name of the output has to end in .csv or .parquet.")
    part = output.with_name(f"{output.name}.part")
    try:
        if output.suffix == ".csv":
            with part.open("w", encoding="utf-8", newline="") as stream:
                yield _Csv(stream)
        else:
            parquet = _Parquet(part)
            yield parquet
            parquet.close()
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)


class _Csv:
    def __init__(self, stream: TextIO) -> None:
        self._writer, self._has_header = csv.writer(stream, lineterminator="\n"), False

    def write(self, columns: dict[str, Any]) -> None:
        if not self._has_header:
            self._writer.writerow(columns)
            self._has_header = True
        self._writer.writerows(zip(*(values.tolist() for values in columns.values()), strict=True))


class _Parquet:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._writer: Any = None

    def write(self, columns: dict[str, Any]) -> None:
        import pyarrow.parquet as pq

        table = import_arrow().table(columns)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
