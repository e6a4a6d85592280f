"""Rows that are passed from Python, as a Parquet file: from there on they are a table like any other."""

from __future__ import annotations

import hashlib
import math
import re
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from holdfast.config.commands import as_value, quoted
from holdfast.errors import DataError, TableError, in_a_line
from holdfast.store.files import make_folder, replacing
from holdfast.tables.csv_files import import_arrow

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from holdfast.tables.encoding import Encoding

_FOLDER = Path("outputs/rows")
"""Where the files lie, named by the digest of their content; runs and sweeps refer to them."""

_OF_ARRAY, _OF_FRAME = "array-", "frame-"
"""Beginnings of their names."""


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
    if not any(counts):
        raise DataError("there are no rows: X and y are empty.")
    indexes: list[Any] = [getattr(part, "index", None) for part in (x, y)]  # a list has a method of this name
    if all(hasattr(index, "equals") for index in indexes) and not indexes[0].equals(indexes[1]):
        lesson = "pair them by y.loc[X.index], or drop both by reset_index(drop=True)"
        raise DataError(
            f"X and y have different indexes, so that it is not clear which rows belong together: {lesson}."
        )
    if counts[0] != counts[1]:
        raise DataError(f"X has {counts[0]} rows and y has {counts[1]}: each row of X needs its target.")
    if shared := inputs.keys() & targets.keys():
        raise DataError(f"X has a column {min(shared)!r} that is named like the target: rename one of them.")
    for name, column in inputs.items():
        if str(column.dtype) == "category" and _numbers(column.cat.categories):
            lesson = "a table would take them for numbers: put a letter before them"
            raise DataError(f"the categories of column {name!r} are numbers or texts of digits: {lesson}.")
    names = _listed(list(targets))
    file = _written({**inputs, **targets}, _OF_FRAME if _has_names(x) else _OF_ARRAY)
    return ["data=table", f"data.path={as_value(file)}", f"data.target={names}"]


def _has_names(values: Any) -> bool:
    """Whether its columns have names: a DataFrame, or a Series."""
    return hasattr(values, "columns") or hasattr(values, "to_frame")


def columns_of(values: Any, prefix: str) -> dict[str, Any]:
    """The columns of a DataFrame, a Series or an array, by name.

    Args:
        values: one of them, or a tensor, or lists of numbers.
        prefix: begins the names of columns that have none; a single one of targets has this name itself.

    Raises:
        DataError: an array has more than two dimensions.
    """
    if hasattr(values, "columns") and hasattr(values, "items"):  # a DataFrame
        names = [str(name) for name, _ in values.items()]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(f"the DataFrame has two columns named {repeated[0]!r}: rename one of them.")
        return dict(zip(names, (column for _, column in values.items()), strict=True))
    if hasattr(values, "to_frame"):  # a Series
        return {str(prefix if values.name is None else values.name): values}
    array = _as_array(values)
    if array.ndim == 1:
        return {prefix if prefix == "y" else f"{prefix}0": array}
    if array.ndim != 2:
        lesson = "rows of a table have one dimension; for images or sequences pass a LightningDataModule"
        raise DataError(f"an array of shape {array.shape} is no table: {lesson}.")
    if array.shape[1] == 1 and prefix == "y":
        return {prefix: array[:, 0]}
    return {f"{prefix}{number}": array[:, number] for number in range(array.shape[1])}


def is_passed(path: str | None) -> bool:
    """Whether a table holds rows that were passed: the name of its file is the digest of its content."""
    return Path(path or "").parent == _FOLDER


def is_of_an_array(path: str | None) -> bool:
    """Whether a table holds the columns of an array that was passed."""
    return is_passed(path) and Path(path or "").name.startswith(_OF_ARRAY)


def raw_columns(x: Any, encoding: Encoding, *, of_array: bool) -> torch.Tensor:
    """Rows as the model of a table takes them, shape `(rows, columns)`, in double precision.

    Args:
        x: a DataFrame, whose columns are matched by name. Or an array: of a model that was trained on an array, with
            its columns, and of any other with those that the model uses, in their order.
        encoding: of the table.
        of_array: whether the model was trained on an array.

    Raises:
        DataError: an array has too few columns, or there are no rows.
        TableError: a column is missing, or holds what it should not.

    Warns:
        UserWarning: texts are not among those of the training rows.
    """
    import torch

    from holdfast.predict.new_rows import NewRows

    columns, names = columns_of(x, "x"), [feature.name for feature in encoding.features]
    if not len(next(iter(columns.values()), ())):
        raise DataError("there are no rows to predict.")
    if not hasattr(x, "columns") and not of_array:
        if len(columns) != len(names):
            raise DataError(
                f"the array has {len(columns)} columns, and the model uses {len(names)}: {', '.join(names)}."
            )
        columns = dict(zip(names, columns.values(), strict=True))
    elif lacking := [name for name in names if name not in columns]:
        raise DataError(f"the rows lack {', '.join(map(repr, lacking[:8]))}: the model was trained with these columns.")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rows.parquet")
        with file.open("wb") as stream:
            _write(_as_arrow({name: columns[name] for name in names}), stream)
        rows = NewRows(str(file), encoding)
        try:
            raw = torch.cat([raw for _, raw in rows.pieces()])
        except TableError as error:
            raise TableError(str(error).replace(f"{file}, ", "").replace(str(file), "the rows")) from None
    for note in rows.notes():
        warnings.warn(note, stacklevel=3)  # at the caller's `predict`
    return raw


def _listed(names: list[str]) -> str:
    """One name, or several, as the value of an override."""
    if strange := [name for name in names if "${" in name or not name]:
        raise DataError(f"the target is named {strange[0]!r}, which no override can say: rename it.")
    texts = [name if re.fullmatch(r"[xy]\d*", name) else quoted(name) for name in names]
    return texts[0] if len(texts) == 1 else f"[{','.join(texts)}]"


def _written(columns: dict[str, Any], kind: str) -> Path:
    table = _as_arrow(columns)
    import pyarrow as pa

    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            _check_texts(name, column.unique().drop_null().to_pylist())
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    file = _FOLDER / f"{kind}{hashlib.sha256(sink.getvalue()).hexdigest()[:32]}.parquet"
    if not file.exists():
        make_folder(_FOLDER)
        with replacing(file) as partial:
            _write(table, partial)
    return file


def _check_texts(name: str, texts: list[str]) -> None:
    """Refuse texts that a table would take for one, though they differ."""
    for takes, count in (
        ("text", len({text.strip() for text in texts})),
        ("number", len(set(_numbers(texts) or texts))),
    ):
        if count < len(texts):
            lesson = f"column {name!r} has different texts that a table takes for the same {takes}: write them alike"
            raise DataError(f"{lesson}, or tell them apart by a letter.")


def _numbers(texts: Iterable[Any]) -> list[float] | None:
    """Numbers or texts as numbers; None where one of them is none."""
    try:
        return [float(str(text).replace("_", "?").replace(",", ".")) for text in texts]
    except ValueError:
        return None


def _write(table: pa.Table, stream: IO[bytes]) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, stream)


def _as_array(values: Any) -> NDArray[Any]:
    """An array, whose masked values are missing."""
    try:
        array = np.ma.asanyarray(values.detach().cpu() if hasattr(values, "detach") else values)
    except (TypeError, ValueError) as error:
        raise DataError(f"rows of a table are one array of numbers or texts: {error}") from None
    if array.dtype.names:
        raise DataError("a structured array is passed as a DataFrame: pandas.DataFrame(array).")
    if array.mask.any():
        array = np.ma.filled(array.astype(object if array.dtype.kind in "OUS" else np.float64), math.nan)
    return np.asarray(array)


def _as_arrow(columns: dict[str, Any]) -> pa.Table:
    """Columns as an Arrow table; what pandas takes for missing is missing."""
    arrow, arrays = import_arrow(), {}
    for name, column in columns.items():
        try:
            arrays[name] = _arrow_column(arrow, column)
        except (arrow.ArrowException, TypeError, ValueError) as error:
            lesson = "a column holds numbers, texts, booleans or dates, and one kind of them"
            raise DataError(f"column {name!r} cannot be one of a table: {lesson} ({in_a_line(error)}).") from None
    return arrow.table(arrays)


def _arrow_column(arrow: Any, column: Any) -> Any:
    if hasattr(column, "array"):  # a Series
        if str(column.dtype) == "category":
            column = column.astype(object)
        return arrow.array(column, from_pandas=True)
    if column.dtype.kind == "c":
        raise TypeError("complex numbers")
    if column.dtype.kind in "OUS":
        return arrow.array([None if isinstance(each, float) and math.isnan(each) else each for each in column.tolist()])
    return arrow.array(np.ascontiguousarray(column))
