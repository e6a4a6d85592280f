"""The names and the units of what figures show: those of the user's table, where one was trained on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from holdfast.caching.sources import source_of
from holdfast.config.schema import Config
from holdfast.report.read import Numbers
from holdfast.report.style import literal
from holdfast.single.build import is_table
from holdfast.tables.encoding import Encoding


@dataclass(frozen=True)
class Units:
    """Names of inputs and targets, and the numbers that turn what was trained on into the units of the table.

    An input x and a target y of the table were trained on as (x - mean) / scale and (y - mean) / scale. Without
    arguments: rows without names, which were trained on as they are.

    Attributes:
        inputs: names of the inputs; () if they have none.
        targets: names of the targets.
        classes: of a classification; () for a regression.
        x_mean, x_scale: shape `(inputs,)`, or one for all.
        y_mean, y_scale: shape `(targets,)`; 0 and 1 for a classification.
    """

    inputs: tuple[str, ...] = ()
    targets: tuple[str, ...] = ("y",)
    classes: tuple[str, ...] = ()
    x_mean: Numbers = field(default_factory=lambda: np.zeros(1))
    x_scale: Numbers = field(default_factory=lambda: np.ones(1))
    y_mean: Numbers = field(default_factory=lambda: np.zeros(1))
    y_scale: Numbers = field(default_factory=lambda: np.ones(1))

    @classmethod
    def of_table(cls, encoding: Encoding) -> Units:
        """The units of a table; an input that is 0 or 1, such as that of a text, stays as it is."""
        numbers = [each for each in encoding.features if each.kind != "text"]
        rest = len(encoding.inputs) - len(numbers)
        return cls(
            tuple(encoding.inputs),
            tuple(each.name for each in encoding.targets),
            encoding.classes,
            np.array([*(each.mean for each in numbers), *[0.0] * rest]),
            np.array([*(each.scale for each in numbers), *[1.0] * rest]),
            np.array([each.mean for each in encoding.targets]),
            np.array([each.scale for each in encoding.targets]),
        )

    @property
    def names(self) -> tuple[str, str]:
        """The names of the first input and of the first target."""
        return (self.inputs or ("x",))[0], self.targets[0]

    @property
    def loss(self) -> str:
        """The loss in words, with its unit."""
        if self.classes:
            return "cross entropy"
        if len(self.targets) > 1:
            return "mean squared error, mean over the targets"
        return f"mean squared error, {'' if self.inputs else 'units of '}{literal(self.targets[0])}²"

    @property
    def batch_loss(self) -> tuple[float, str]:
        """What the loss of a batch is multiplied with to be in the unit of the metrics, and the label of the product.

        That of several targets is a mean over standardised targets, which have no common unit.
        """
        if len(self.targets) > 1:
            return 1.0, "batch loss, targets standardised"
        return float(self.y_scale[0]) ** 2, "training loss of the batch"

    def x(self, values: ArrayLike) -> Numbers:
        """Inputs of shape `(rows, inputs)` in the units of the table."""
        return np.asarray(values, dtype=np.float64) * self.x_scale + self.x_mean

    def y(self, values: ArrayLike) -> Numbers:
        """Targets or predictions of shape `(rows, targets)` in the units of the table.

        >>> units = Units(targets=("price",), y_mean=np.array([100.0]), y_scale=np.array([20.0]))
        >>> units.y([[0.0], [1.5]]).tolist(), units.loss
        ([[100.0], [130.0]], 'mean squared error, units of price²')
        """
        return np.asarray(values, dtype=np.float64) * self.y_scale + self.y_mean


def units_of(config: Config) -> Units:
    """The units of the data of a configuration; a model of the user's on a table is shown as it was trained."""
    return Units.of_table(source_of(config.data).encoding) if is_table(config) else Units()
