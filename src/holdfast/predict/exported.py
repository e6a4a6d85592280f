"""Exports a model of a table as one file that needs no Holdfast: `.pt2` for torch, `.onnx` for other runtimes."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from holdfast.errors import FolderError, HoldfastError, TableError
from holdfast.predict.predictor import TABLE_FILE, Loaded, Predictor
from holdfast.tables.encoding import Encoding

_TOLERANCE = 1e-5

_COARSE = 1e-3
"""Distance of two neighbours in single precision, in deviations of a column, from which a model is not exported."""


def export(loaded: Loaded, output: Path) -> None:
    """Export a model, checked against the model itself before the file appears.

    The file takes one float32 tensor of shape `(rows, columns)` in the order of the table's columns: numbers as they
    are, texts as the numbers of their levels, NaN where missing. It holds the names, levels and units as JSON.

    Args:
        loaded: the model.
        output: a .pt2 or .onnx file.

    Raises:
        FolderError: the output has another name, or a library is missing.
        HoldfastError: the exported model does not give the same numbers.
        TableError: a column needs double precision.
    """
    if not isinstance(loaded.predict, Predictor):
        raise FolderError(f"{loaded.checkpoint} is exported already: give the folder of its run or sweep.")
    if output.suffix not in (".pt2", ".onnx"):
        raise FolderError(f"-o {output}: the name of the file has to end in .pt2 or .onnx.")
    _check_single_precision(loaded.encoding)
    part = output.with_name(f"{output.stem}.part{output.suffix}")
    try:
        write = _write_torch if output.suffix == ".pt2" else _write_onnx
        run = write(loaded.predict, _table(loaded.encoding), _examples(loaded.encoding, 5), part)
        for rows in (1, 7, 100):
            _check(run, loaded.predict, _examples(loaded.encoding, rows))
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)


def _check_single_precision(encoding: Encoding) -> None:
    """Refuse columns such as 1700000037 beside 1700000061: a float32 tensor holds the same number for both."""
    for each in encoding.features:
        with np.errstate(all="ignore"):
            distance = np.spacing(np.float32(abs(each.mean) + each.scale)) / each.scale
        if each.kind == "number" and not distance < _COARSE:
            raise TableError(
                f"column {each.name!r} holds numbers around {each.mean:.6g} that differ by {each.scale:.2g}: an "
                "exported model takes float32, which cannot tell them apart. Subtract a constant from the column, or "
                "choose another unit, and train again."
            )


def _table(encoding: Encoding) -> str:
    """What a user of the file has to know."""
    return json.dumps(encoding.as_plain(), ensure_ascii=False)


def _examples(encoding: Encoding, rows: int) -> Tensor:
    """Rows with every level and missing values."""
    draw = np.random.default_rng(rows)
    columns = []
    for each in encoding.features:
        codes = draw.integers(0, len(each.levels) + 1, rows).astype(float)
        values = codes if each.kind == "text" else each.mean + each.scale * draw.normal(size=rows)
        columns.append(np.where(draw.random(rows) < 0.2, np.nan, values))
    return torch.from_numpy(np.stack(columns, 1)).float()


def _check(run: Any, predictor: Predictor, rows: Tensor) -> None:
    with torch.inference_mode():
        expected = predictor(rows)
    difference = (run(rows).detach() - expected).abs() / expected.abs().clamp(min=float(expected.abs().mean()))
    if not float(difference.max()) <= _TOLERANCE:
        raise HoldfastError(
            f"the exported model differs from the trained one by {float(difference.max()):.2g}, relative: not written"
        )


def _write_torch(predictor: Predictor, table: str, example: Tensor, file: Path) -> Any:
    program = torch.export.export(predictor, (example,), dynamic_shapes=({0: torch.export.Dim("rows")},))
    torch.export.save(program, file, extra_files={TABLE_FILE: table})
    return torch.export.load(file).module()


def _write_onnx(predictor: Predictor, table: str, example: Tensor, file: Path) -> Any:
    try:
        import onnx
        import onnxscript  # noqa: F401  (torch needs it)
    except ImportError:
        raise FolderError("a .onnx file needs the extra onnx of holdfast: pip install onnx onnxscript") from None
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it names every optional library that is missing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own code
        program = torch.onnx.export(
            predictor, (example,), dynamo=True, dynamic_shapes=({0: torch.export.Dim("rows")},), verbose=False,
            input_names=["rows"], output_names=["predictions"],
        )  # fmt: skip
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, {TABLE_FILE: table})
    onnx.save(model, file)
    evaluator = onnx.reference.ReferenceEvaluator(model)

    def run(rows: Tensor) -> Tensor:
        outputs: Any = evaluator.run(None, {"rows": rows.numpy()})
        return torch.from_numpy(outputs[0])

    return run
