"""The commands for models of tables: `predict`, `test` and `export`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.predict.predictor import Loaded


def predict(words: Sequence[str]) -> int:
    """`holdfast predict FOLDER rows.csv`: predict new rows of a table with the best model of a run or a sweep."""
    parser = _parser("predict", predict)
    parser.add_argument("rows", help="CSV or Parquet file, or a glob")
    parser.add_argument("-o", "--output", type=Path, help="a .csv or .parquet file; without it CSV is printed")
    arguments = parser.parse_args(words)
    loaded = _load(arguments.folder)
    from holdfast.predict.predictions import predict as write_predictions

    for line in write_predictions(loaded, arguments.rows, arguments.output):
        print(line, file=sys.stderr)
    return 0


def test(words: Sequence[str]) -> int:
    """`holdfast test FOLDER new.csv`: measure the best model of a run or a sweep on new rows of its table."""
    parser = _parser("test", test)
    parser.add_argument("rows", help="CSV or Parquet file with the target, or a glob")
    arguments = parser.parse_args(words)
    loaded = _load(arguments.folder)
    from holdfast.predict.measure_rows import measure_rows

    metrics, notes = measure_rows(loaded, arguments.folder, arguments.rows)
    for line in notes:
        print(line, file=sys.stderr)
    print(", ".join(f"{name} {value:.6g}" for name, value in metrics.items()))
    return 0


test.__test__ = False  # type: ignore[attr-defined]  # pytest would collect the function for its name


def export(words: Sequence[str]) -> int:
    """`holdfast export FOLDER -o model.pt2`: write the best model of a table, with its preprocessing, as one file."""
    parser = _parser("export", export)
    parser.add_argument("-o", "--output", type=Path, required=True, help="a .pt2 or .onnx file")
    arguments = parser.parse_args(words)
    loaded = _load(arguments.folder)
    from holdfast.predict.exported import export as write_exported

    write_exported(loaded, arguments.output)
    print(arguments.output)
    return 0


def _parser(name: str, command: Any) -> Any:
    import argparse

    parser = argparse.ArgumentParser(prog=f"holdfast {name}", description=command.__doc__)
    parser.add_argument("folder", type=Path, help="such as outputs/sweeps/NAME or outputs/runs/NAME, or a .pt2 file")
    return parser


def _load(folder: Path) -> Loaded:
    from holdfast.single.startup import import_training

    import_training()
    from holdfast.predict.predictor import load_predictor

    return load_predictor(folder)
