"""What a finished folder tells: jobs, curves, rows, predictions. Nothing that lies in a folder is executed.

Weights and numbers are read; whatever has to be built, rows and models, is built from a configuration that the caller
trusts, and only if it is the one that the job was trained with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils import vector_to_parameters

from holdfast.config.schema import Config
from holdfast.data import DataModule
from holdfast.errors import FolderError
from holdfast.model import Module
from holdfast.record import events
from holdfast.record.checkpoint import load
from holdfast.report.rows import Sample, sample
from holdfast.single.assemble import build_data, build_module, set_up
from holdfast.single.isolation import isolated
from holdfast.store.folders import RunFolder, SweepFolder
from holdfast.store.result import Result
from holdfast.sweeps import resume
from holdfast.sweeps.rank import Job

ConfigOf = Callable[[int], "Config | None"]
"""The configuration of a job by its number; None where it cannot be known."""

Numbers = NDArray[np.float64]


def jobs_of(folder: SweepFolder) -> list[Job]:
    """The jobs of a sweep as its files tell them.

    Raises:
        FolderError: there is no `sweep.json` that can be read.
    """
    told = resume.read(folder)
    try:
        dropped, jobs = folder.read_dropped(), []
        for number, entry in enumerate(told["jobs"]):
            words = [str(word) for word in entry["overrides"]]
            result = dropped.get(number) or folder.job(number).read()
            if result is None or result.config_hash != entry["config_hash"]:
                told_of = "it left no result: it was not finished"
                result = Result("failed", words, entry["config_hash"], str(told["metric"]), error=told_of)
            jobs.append(Job(number, words, str(entry["data"]), result))
        return jobs
    except (TypeError, KeyError) as error:
        raise FolderError(f"{folder.sweep} cannot be read: {error!r} is not what a sweep writes there.") from error


def curves(folder: RunFolder, tags: Sequence[str]) -> dict[str, tuple[Numbers, Numbers]]:
    """Some curves of a run, each as steps and values; those it does not have are left out."""
    found: dict[str, list[tuple[int, float]]] = {}
    for file in folder.curves():
        for tag, points in events.read(file, frozenset(tags)).items():
            found.setdefault(tag, []).extend(points)
    return {tag: tuple(np.array(points, dtype=np.float64).T) for tag, points in found.items()}


def descent(folder: RunFolder) -> Numbers:
    """The two parameters of a run on their way, shape `(points, 2)`.

    Raises:
        FolderError: the file is not what a run keeps.
    """
    points = np.load(folder.parameter_path, allow_pickle=False)
    if points.ndim != 2 or points.shape[1:] != (2,) or not len(points):
        raise FolderError(f"{folder.parameter_path} holds no way of two parameters.")
    return np.asarray(points, dtype=np.float64)


@dataclass(frozen=True)
class Table:
    """Training and validation rows that some jobs share, as numbers; of many rows, some.

    Attributes:
        config: of one of the jobs.
    """

    config: Config

    @cached_property
    def _samples(self) -> dict[str, Sample] | None:
        """The rows of each split; None if those of one are not for regression."""
        limits = self.config.trainer
        with isolated():
            data = build_data(self.config.data)
            set_up(data)
            train = data.all_train_dataloader() if isinstance(data, DataModule) else data.train_dataloader()
            if (training := sample(train, limits.limit_train_batches)) is None:
                return None
            validation = sample(data.val_dataloader(), limits.limit_val_batches)
            return None if validation is None else {"train": training, "val": validation}

    def _sample(self, split: str) -> Sample:
        assert self._samples is not None, "is_regression() is asked first"
        return self._samples[split]

    def x(self, split: str) -> Tensor:
        """Inputs, shape `(rows, features)`."""
        return self._sample(split).x

    def y(self, split: str) -> Tensor:
        """Targets, shape `(rows, 1)`."""
        return self._sample(split).y

    def note(self, *splits: str) -> str:
        """Which rows of some splits were read, a sentence for each of which some were left out."""
        names = {"train": "Training", "val": "Validation"}
        notes = ((names[split], self._sample(split).note) for split in splits)
        return "".join(f" {name} rows: {note}." for name, note in notes if note)

    def is_regression(self) -> bool:
        """Whether every row is a vector of numbers with one number as its target."""
        return self._samples is not None

    def least_squares(self) -> LeastSquares:
        """The line, or plane, that fits the training rows best."""
        x, y = self.x("train").double(), self.y("train").double()
        design = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        solution = torch.linalg.lstsq(design, y, driver="gelsd").solution[:, 0]
        losses = {}
        for split in ("train", "val"):
            error = self.x(split).double() @ solution[:-1, None] + solution[-1] - self.y(split).double()
            losses[split] = float(error.square().mean())
        bias, note = float(solution[-1]), self.note("train", "val")
        return LeastSquares(solution[:-1].numpy(), bias, losses["train"], losses["val"], note)


@dataclass(frozen=True)
class LeastSquares:
    """The exact solution of linear regression on the training rows.

    Attributes:
        weight: shape `(features,)`.
        bias: of the solution.
        train, val: its mean squared error on training and on validation rows.
        note: which rows were read, as sentences; "" if it was all of them.
    """

    weight: Numbers
    bias: float
    train: float
    val: float
    note: str = ""


def fitted(config: Config, folder: RunFolder) -> torch.nn.Module:
    """The model of a run with its best weights, ready to predict."""
    with isolated():
        module = build_module(config)
        module.load_state_dict(load(folder.weights, folder.recorded_digest(folder.weights)))
        return module.eval()


def predict(module: torch.nn.Module, x: Tensor) -> Numbers:
    """What a model predicts, shape `(rows,)`."""
    dtype = next((value.dtype for value in module.parameters()), x.dtype)
    with isolated(), torch.no_grad():
        return np.asarray(module(x.to(dtype)).double().reshape(len(x)))


def cost(config: Config, table: Table, first: Numbers, second: Numbers) -> tuple[tuple[str, str], Numbers] | None:
    """The loss over all training rows on a grid of two parameters.

    Args:
        config: of a model with two parameters.
        table: the rows.
        first, second: values of the parameters, in their order in the model.

    Returns:
        The names of the parameters, and the loss, shape `(second, first)`; None of any other model.
    """
    with isolated(), torch.no_grad():
        module = build_module(config).double()
        named = [(name.rpartition(".")[2], value) for name, value in module.named_parameters() if value.requires_grad]
        names = [name for name, value in named for _ in range(value.numel())]
        if not isinstance(module, Module) or len(names) != 2:
            return None
        batch = (table.x("train").double(), table.y("train").double())
        made = np.empty((len(second), len(first)))
        for row, column in np.ndindex(*made.shape):
            vector_to_parameters(torch.tensor([first[column], second[row]]), [value for _, value in named])
            made[row, column] = float(module.loss(batch))
        return (names[0], names[1]), made
