"""Rows that are passed from Python, as a Parquet file: from there on they are a table like any other."""

from __future__ import annotations

import hashlib
import math
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from holdfast.config.commands import as_value, quoted
from holdfast.errors import DataError
from holdfast.store.files import make_folder, replacing
from holdfast.tables.csv_files import import_arrow

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from holdfast.tables.encoding import Encoding

_FOLDER = Path("outputs/rows")
"""Where the files lie, named by the digest of their content; runs and sweeps refer to them."""


def overrides(x: Any, y: Any) -> list[str]:
    """Write rows to a file, unless they are there, and return the overrides that train on them.

    Args:
        x: inputs: a DataFrame, or an array of shape `(rows, columns)`, whose columns are named `x0`, `x1`, ...
        y: targets: a Series or an array of shape `(rows,)`, named `y` unless it has a name; or several columns.

    Raises:
        DataError: the shapes do not fit.
        TableError: pyarrow is missing.
    """
    inputs, targets = columns_of(x, "x"), columns_of(y, "y")
    counts = [len(next(iter(part.values()), ())) for part in (inputs, targets)]
    if counts[0] != counts[1] or not counts[0]:
        raise DataError(f"X has {counts[0]} rows and y has {counts[1]}: each row of X needs its target.")
    if shared := inputs.keys() & targets.keys():
        raise DataError(f"X has a column {min(shared)!r} that is named like the target: rename one of them.")
    names = _listed(list(targets))
    return ["data=table", f"data.path={as_value(_written({**inputs, **targets}))}", f"data.target={names}"]


def columns_of(values: Any, prefix: str) -> dict[str, Any]:
    """The columns of a DataFrame, a Series or an array, by name.

    Args:
        values: one of them, or a tensor, or lists of numbers.
        prefix: begins the names of columns that have none; a single one of targets has this name itself.

    Raises:
        DataError: an array has more than two dimensions.
    """
    if hasattr(values, "columns") and hasattr(values, "items"):  # a DataFrame
        return {str(name): column for name, column in values.items()}
    if hasattr(values, "to_frame"):  # a Series
        return {str(prefix if values.name is None else values.name): values}
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    if array.ndim == 1:
        return {prefix if prefix == "y" else f"{prefix}0": array}
    if array.ndim != 2:
        lesson = "rows of a table have one dimension; for images or sequences pass a LightningDataModule"
        raise DataError(f"an array of shape {array.shape} is no table: {lesson}.")
    if array.shape[1] == 1 and prefix == "y":
        return {prefix: array[:, 0]}
    return {f"{prefix}{number}": array[:, number] for number in range(array.shape[1])}


def raw_columns(x: Any, encoding: Encoding) -> torch.Tensor:
    """Rows as the model of a table takes them, shape `(rows, columns)`, in double precision.

    Args:
        x: a DataFrame, whose columns are matched by name. Or an array: with the columns that the model uses, texts as
            the numbers of their levels, or with all columns of the array that it was trained on.
        encoding: of the table.

    Raises:
        DataError: an array has another number of columns.
        TableError: a column is missing, or holds what it should not.
    """
    import torch

    from holdfast.predict.new_rows import NewRows

    columns, names = columns_of(x, "x"), [feature.name for feature in encoding.features]
    if not hasattr(x, "columns") and len(columns) == len(names):
        return torch.as_tensor(np.asarray(x, dtype=np.float64)).reshape(-1, len(names))
    if not hasattr(x, "columns") and not columns.keys() >= set(names):
        raise DataError(f"the array has {len(columns)} columns, and the model uses {len(names)}: {', '.join(names)}.")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rows.parquet")
        with file.open("wb") as stream:
            _write(_as_arrow(columns), stream)
        return torch.cat([raw for _, raw in NewRows(str(file), encoding).pieces()])


def _listed(names: list[str]) -> str:
    """One name, or several, as the value of an override."""
    texts = [as_value(name) if name.isidentifier() else quoted(name) for name in names]
    return texts[0] if len(texts) == 1 else f"[{','.join(texts)}]"


def _written(columns: dict[str, Any]) -> Path:
    table = _as_arrow(columns)
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    file = _FOLDER / f"{hashlib.sha256(sink.getvalue()).hexdigest()[:32]}.parquet"
    if not file.exists():
        make_folder(_FOLDER)
        with replacing(file) as partial:
            _write(table, partial)
    return file


def _write(table: pa.Table, stream: IO[bytes]) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, stream)


def _as_arrow(columns: dict[str, Any]) -> pa.Table:
    """Columns as an Arrow table; what pandas takes for missing is missing."""
    arrow = import_arrow()
    return arrow.table({name: _as_array(arrow, column) for name, column in columns.items()})


def _as_array(arrow: Any, column: Any) -> Any:
    if hasattr(column, "array"):  # a Series: its categories are texts
        values = column.astype(object) if str(column.dtype) == "category" else column
        return arrow.Array.from_pandas(values)
    if column.dtype.kind in "OUS":
        return arrow.array([None if _is_nan(value) else value for value in column.tolist()])
    return arrow.array(np.ascontiguousarray(column))


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
