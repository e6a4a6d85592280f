"""Rows, predictions, least squares and the cost surface of jobs, computed again for the report.

Weights and numbers are read from folders. Rows and models are built from a configuration that the caller trusts, and
only if the job was trained with that configuration: nothing in a folder is executed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import vector_to_parameters

from holdfast.config.schema import Config
from holdfast.data import DataModule
from holdfast.model import Module
from holdfast.report.read import Numbers
from holdfast.report.row_sample import RowSample, sample_rows, sample_table
from holdfast.report.units import Units, units_of
from holdfast.runtime.isolation import isolated
from holdfast.single.build import build_data, build_module, is_table, set_up


@dataclass(frozen=True)
class ExactSolution:
    """The exact solution of linear regression on the training rows, `f(x) = x w + b`.

    Attributes:
        weight: w, shape `(features, targets)`, of the inputs and targets that jobs are trained on.
        bias: b, shape `(targets,)`.
        train, val: mean squared error on the training and the validation rows, in the units of the table; the mean
            over several targets.
        note: which rows were read, as sentences; "" if all.
    """

    weight: Numbers
    bias: Numbers
    train: float
    val: float
    note: str = ""


@dataclass(frozen=True)
class SampledRows:
    """The training and validation rows that some jobs share, as they are trained on; at most a sample.

    They are float inputs with one float target, or the encoded rows of a table.

    Attributes:
        train, val: the rows of each split.
        units: their names and units.
    """

    train: RowSample
    val: RowSample
    units: Units = field(default_factory=Units)

    @property
    def is_line(self) -> bool:
        """Whether a line can be fitted to them: they have one input and one target."""
        return self.val.x.shape[1] == 1 == self.val.y.shape[1]

    def note(self, *splits: str) -> str:
        """Return a sentence for each of the splits of which not all rows were read."""
        samples = {"train": ("Training", self.train), "val": ("Validation", self.val)}
        notes = ((name, sample.note) for name, sample in map(samples.__getitem__, splits))
        return "".join(f" {name} rows: {note}." for name, note in notes if note)

    def least_squares(self) -> ExactSolution:
        """Solve linear regression on the training rows, in float64.

        >>> x = torch.tensor([[0.0], [1.0], [2.0]])
        >>> rows = RowSample(x, 2 * x + 1, "")
        >>> exact = SampledRows(rows, rows).least_squares()
        >>> round(float(exact.weight[0, 0]), 6), round(float(exact.bias[0]), 6)
        (2.0, 1.0)
        """
        x, y = self.train.x.double(), self.train.y.double()
        design = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        solution = torch.linalg.lstsq(design, y, driver="gelsd").solution
        weight, bias = solution[:-1], solution[-1]
        scale = torch.from_numpy(self.units.y_scale)
        train, val = (
            float(((rows.x.double() @ weight + bias - rows.y.double()) * scale).square().mean())
            for rows in (self.train, self.val)
        )
        return ExactSolution(weight.numpy(), bias.numpy(), train, val, self.note("train", "val"))


def read_rows(config: Config) -> SampledRows | None:
    """Make the rows of a configuration; None if they are neither a table nor for regression with one target."""
    trainer = config.trainer
    with isolated():
        data = build_data(config.data)
        set_up(data)
        if is_table(config) and isinstance(data, DataModule):
            return SampledRows(sample_table(data.train), sample_table(data.val), units_of(config))
        loader = data.all_train_dataloader() if isinstance(data, DataModule) else data.train_dataloader()
        if (train := sample_rows(loader, trainer.limit_train_batches)) is None:
            return None
        val = sample_rows(data.val_dataloader(), trainer.limit_val_batches)
        return None if val is None else SampledRows(train, val)


def predict(module: nn.Module, x: Tensor) -> Numbers:
    """Return the outputs for x of shape `(rows, features)`, shape `(rows, outputs)`."""
    dtype = next((value.dtype for value in module.parameters()), x.dtype)
    with isolated(), torch.no_grad():
        return np.asarray(module(x.to(dtype)).double().reshape(len(x), -1))


def cost_surface(
    config: Config, rows: SampledRows, first: Numbers, second: Numbers
) -> tuple[tuple[str, str], Numbers] | None:
    """Compute the loss over the training rows on a grid of two parameters.

    Args:
        config: the configuration of a job.
        rows: its rows.
        first, second: values of the two parameters, in their order in the model.

    Returns:
        The names of the parameters, and the loss, shape `(second, first)`; None if the model has not two parameters.
    """
    with isolated(), torch.no_grad():
        module = build_module(config, initial=False).double()
        trained = {name: value for name, value in module.named_parameters() if value.requires_grad}
        names = [name.rpartition(".")[2] for name, value in trained.items() for _ in range(value.numel())]
        if not isinstance(module, Module) or len(names) != 2:
            return None
        batch = (rows.train.x.double(), rows.train.y.double())
        cost = np.empty((len(second), len(first)))
        for row, column in np.ndindex(*cost.shape):
            vector_to_parameters(torch.tensor([first[column], second[row]]), trained.values())
            cost[row, column] = float(module.loss(batch))
        return (names[0], names[1]), cost
