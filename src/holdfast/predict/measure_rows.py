"""Measures a model on new rows."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from holdfast.errors import FolderError
from holdfast.model.module import measure
from holdfast.predict.new_rows import NewRows, targets_of
from holdfast.predict.predictor import Loaded
from holdfast.store.files import digest
from holdfast.store.folders import RunFolder, SweepFolder
from holdfast.store.test_ledger import TestLedger
from holdfast.tables.reader import files_of


def measure_rows(loaded: Loaded, folder: Path, path: str) -> tuple[dict[str, float], list[str]]:
    """The metrics of a model on the rows of some files, and what the user should know.

    Where these are the files on which the model was trained, their test rows are opened by that, which is counted.

    Args:
        loaded: the model.
        folder: of its run or sweep.
        path: of the rows.

    Raises:
        TableError: the rows cannot be used.
        FolderError: the model is an exported file, which does not know its loss.
    """
    model = loaded.model
    if model is None:
        raise FolderError(f"{folder} is an exported model: give the folder of its run or sweep.")
    rows, notes = NewRows(path, loaded.encoding), list[str]()
    if {digest(file) for file in files_of(path, "rows")} & set(loaded.encoding.files):
        count = _count_opening(folder, digest(loaded.checkpoint))
        notes.append(f"{path} is a file of the table itself: its test rows are opened now, {count}x in all")
    with torch.inference_mode():
        sums = [
            model.statistics((model.encoder(raw), targets_of(loaded.encoding, piece))) for piece, raw in rows.pieces()
        ]
    return measure(model, sums, "test"), [*notes, *rows.notes()]


def _count_opening(folder: Path, weights: str) -> int:
    """Write down that the test rows are opened; returns how often they were by now."""
    sweep = SweepFolder(folder)
    if not sweep.sweep.is_file():
        ledger = TestLedger(RunFolder(folder).path / "test.json")
        ledger.open(weights)
        return ledger.count()
    selection = json.loads(sweep.selection.read_text())
    ledger = TestLedger(sweep.path / "test.json")
    ledger.open(weights, data=selection["data"], winner=selection["winner"])
    return ledger.count(selection["data"])
