"""A trained model of a table, from the folder of a run or a sweep, or from an exported file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from holdfast.config.commands import resume_command
from holdfast.errors import FolderError
from holdfast.record.checkpoint import load
from holdfast.store.folders import RunFolder, SweepFolder
from holdfast.tables.encoding import Encoding
from holdfast.tables.models import OfTable, TableRegression, model_of

TABLE_FILE = "table.json"
"""The name of the encoding within an exported model."""


class Predictor(nn.Module):
    """Raw columns to predictions: the encoding, the network, and the units of the target in one module.

    Args:
        model: a trained model of a table.
    """

    def __init__(self, model: OfTable) -> None:
        super().__init__()
        self.encoder, self.network = model.encoder, model.network
        self.encoding = model.encoding
        targets = model.encoding.targets if isinstance(model, TableRegression) else ()
        for name in ("scale", "mean"):
            values = torch.tensor([getattr(target, name) for target in targets], dtype=torch.float64)
            self.register_buffer(f"target_{name}", values)

    def forward(self, raw: Tensor) -> Tensor:
        """The predictions.

        Args:
            raw: the columns, texts as the numbers of their levels, NaN where missing; shape `(rows, columns)`.

        Returns:
            Of a regression the targets in their units, shape `(rows, targets)`; of a classification the probabilities,
            shape `(rows, classes)`; in double precision.
        """
        output: Tensor = self.network(self.encoder(raw)).double()
        if self.encoding.classes:
            return output.softmax(1)
        scale, mean = self.get_buffer("target_scale"), self.get_buffer("target_mean")
        return output * scale + mean


class Loaded(NamedTuple):
    """A model that predicts.

    Attributes:
        encoding: of its table.
        predict: raw columns to predictions, as `Predictor.forward`.
        model: the model itself; None for an exported file.
        checkpoint: the file of its weights.
    """

    encoding: Encoding
    predict: Callable[[Tensor], Tensor]
    model: OfTable | None
    checkpoint: Path


def load_predictor(path: Path) -> Loaded:
    """Load the model of a run, the winner of a sweep, or an exported file.

    Raises:
        FolderError: there is no such folder or file, it is not finished, or its model is not that of a table.
        CheckpointError: its file is damaged.
    """
    if path.suffix == ".pt2" and path.is_file():
        return _load_exported(path)
    run, sweep = RunFolder(path), SweepFolder(path)
    if sweep.sweep.is_file():
        if not sweep.selection.is_file():
            to_finish = resume_command(path, sweep=True)
            raise FolderError(f"{path} has no winner yet: its sweep is not finished. {to_finish}")
        digests = json.loads(sweep.selection.read_text()).get("sha256")
        if not digests:
            raise FolderError(f"{path} has no single winner: give the folder of one of its jobs, {path}/N")
        return _load_checkpoint(sweep.path / RunFolder.BEST, digests[RunFolder.BEST])
    result = run.read()
    if result is None:
        raise FolderError(f"{path} is no finished run or sweep, and no exported model (.pt2).")
    if result.best is None:
        raise FolderError(f"{path} has no model: its run has the status {result.status}.")
    return _load_checkpoint(run.best, result.sha256[RunFolder.BEST])


def _load_checkpoint(file: Path, sha256: str) -> Loaded:
    content = load(file, sha256)
    hparams = content.get("hyper_parameters", {})
    if "table" not in hparams:
        raise FolderError(
            f"{file} holds no model of Holdfast's that was trained on a table (data=table). A module of your own "
            "predicts from Python: holdfast.load(FOLDER).predict(rows)."
        )
    model = model_of(hparams["table"], hparams["network"])
    model.network.load_state_dict(
        {
            name.removeprefix("network."): value
            for name, value in content["state_dict"].items()
            if name.startswith("network.")
        }
    )
    model.eval()
    return Loaded(model.encoding, Predictor(model).eval(), model, file)


def _load_exported(file: Path) -> Loaded:
    extra = {TABLE_FILE: ""}
    try:
        program = torch.export.load(file, extra_files=extra)
    except Exception as error:  # whatever the archive holds
        raise FolderError(f"{file} cannot be read: {error}") from None
    if not extra[TABLE_FILE]:
        raise FolderError(f"{file} was not written by holdfast export: it holds no {TABLE_FILE}.")
    module = program.module()

    def predict(raw: Tensor) -> Tensor:
        predictions: Tensor = module(raw.float())
        return predictions

    return Loaded(Encoding.from_plain(json.loads(extra[TABLE_FILE])), predict, None, file)
