"""How the columns of a table become the inputs of a network: fitted on training rows, and a part of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from holdfast.errors import DataError
from holdfast.tables.facts import Facts

MOST_LEVELS = 20
"""The commonest texts of a column that have an input of their own."""


class Feature(NamedTuple):
    """One column that is a feature.

    Attributes:
        name: of the column.
        kind: "number", "boolean" or "text".
        fill: what a missing number is replaced by, the median of the training rows.
        mean, scale: a number x becomes (x - mean) / scale.
        has_missing: whether a value was missing among the training rows; then an indicator is an input too.
        levels: of a text, those with an input of their own; all others share one.
    """

    name: str
    kind: str
    fill: float = 0.0
    mean: float = 0.0
    scale: float = 1.0
    has_missing: bool = False
    levels: tuple[str, ...] = ()


class Target(NamedTuple):
    """One column that is predicted.

    Attributes:
        name: of the column.
        mean, scale: of the training rows; a regression is trained on (y - mean) / scale.
        classes: of a classification.
    """

    name: str
    mean: float = 0.0
    scale: float = 1.0
    classes: tuple[str, ...] = ()


class Encoding(NamedTuple):
    """Features and targets of a table.

    Attributes:
        features, targets: in the order of the table.
        files: digests of the table's files, in their order.
        decimal: the decimal sign, if the user named it.
    """

    features: tuple[Feature, ...]
    targets: tuple[Target, ...]
    files: tuple[str, ...] = ()
    decimal: str | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of a classification; () for a regression."""
        return self.targets[0].classes

    @property
    def outputs(self) -> int:
        """Outputs of the network."""
        return len(self.classes) or len(self.targets)

    @property
    def inputs(self) -> list[str]:
        """The names of the inputs of the network, in order."""
        numbers = [each for each in self.features if each.kind != "text"]
        texts = [each for each in self.features if each.kind == "text"]
        return [
            *(each.name for each in numbers),
            *(f"{each.name} is missing" for each in numbers if each.has_missing),
            *(f"{each.name}={level}" for each in texts for level in (*each.levels, "(other)")),
        ]

    def as_plain(self) -> dict[str, Any]:
        """The same in plain containers, as in a checkpoint."""
        return {
            "features": [{**each._asdict(), "levels": list(each.levels)} for each in self.features],
            "targets": [{**each._asdict(), "classes": list(each.classes)} for each in self.targets],
            "files": list(self.files),
            "decimal": self.decimal,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Encoding:
        """The encoding that `as_plain` returned."""
        return cls(
            tuple(Feature(**{**each, "levels": tuple(each["levels"])}) for each in plain["features"]),
            tuple(Target(**{**each, "classes": tuple(each["classes"])}) for each in plain["targets"]),
            tuple(plain["files"]),
            plain.get("decimal"),
        )


def fit_feature(name: str, facts: Facts, *, standardise: bool) -> Feature:
    """How a column is encoded.

    Args:
        name: of the column.
        facts: what is known of it.
        standardise: whether numbers get mean 0 and standard deviation 1.
    """
    has_missing = facts.missing > 0
    if facts.kind == "text":
        commonest = sorted(facts.levels, key=lambda level: (-facts.levels[level], level))[:MOST_LEVELS]
        return Feature(name, "text", levels=tuple(sorted(commonest)), has_missing=has_missing)
    mean, scale = (facts.mean, facts.deviation or 1.0) if standardise else (0.0, 1.0)
    if facts.is_constant:
        scale = 1.0  # the deviation of equal numbers is 0 but for rounding
    return Feature(name, facts.kind, facts.fill, mean, scale, has_missing)


def codes_of(feature: Feature, values: NDArray[Any]) -> NDArray[np.float64]:
    """A column as numbers: a text is the number of its level, NaN where missing, one past the last where unknown."""
    if feature.kind != "text":
        return values.astype(np.float64)
    code = {level: float(number) for number, level in enumerate(feature.levels)}
    other = float(len(feature.levels))
    return np.array([np.nan if value is None else code.get(value, other) for value in values], dtype=np.float64)


def decoded(output: Any, encoding: Encoding) -> Tensor:
    """What a module gives for the targets, in the units of the table; of a classification as it is.

    Args:
        output: a tensor of shape `(rows,)` or `(rows, targets)`.
        encoding: of the table.

    Raises:
        DataError: it is no tensor, or has another number of columns.

    >>> decoded(torch.zeros(2), Encoding((), (Target("y", mean=3.0, scale=2.0),)))
    tensor([3., 3.], dtype=torch.float64)
    """
    if not isinstance(output, Tensor):
        raise DataError(f"forward gives a {type(output).__name__}, and predictions are a tensor: use run.model().")
    if encoding.classes:
        return output
    columns = output.double().reshape(len(output), -1)
    if columns.shape[1] != len(encoding.targets):
        shape = tuple(output.shape)
        raise DataError(f"forward gives the shape {shape} for {len(encoding.targets)} targets, so units are not known.")
    mean, scale = (torch.tensor([getattr(each, name) for each in encoding.targets]) for name in ("mean", "scale"))
    columns = columns * scale + mean
    return columns[:, 0] if columns.shape[1] == 1 else columns


class Encoder(nn.Module):
    """Turns raw columns into the inputs of a network.

    A number x becomes (x - mean) / scale, a missing one that of the median; each text has an input for each of its
    levels, and one for all others and for missing ones.

    Args:
        encoding: fitted on training rows.

    >>> Encoder(Encoding((Feature("age", "number"),), ()))(torch.tensor([[4.0]]))
    tensor([[4.]])
    """

    number: Tensor
    fill: Tensor
    mean: Tensor
    scale: Tensor
    indicated: Tensor

    def __init__(self, encoding: Encoding) -> None:
        super().__init__()
        features = encoding.features
        numbers = [index for index, each in enumerate(features) if each.kind != "text"]
        indicated = [at for at, index in enumerate(numbers) if features[index].has_missing]
        self._texts = [(index, len(each.levels)) for index, each in enumerate(features) if each.kind == "text"]
        for name, values in (("number", numbers), ("indicated", indicated)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.int64))
        for name in ("fill", "mean", "scale"):
            values = [getattr(features[index], name) for index in numbers]
            self.register_buffer(name, torch.tensor(values, dtype=torch.float64))

    def forward(self, raw: Tensor) -> Tensor:
        """The inputs of the network.

        Args:
            raw: the columns, texts as the numbers of their levels, NaN where missing; shape `(rows, columns)`.

        Returns:
            Shape `(rows, inputs)`, in single precision.
        """
        numbers = raw.index_select(1, self.number).double()
        missing = numbers.isnan()
        scaled = (torch.where(missing, self.fill, numbers) - self.mean) / self.scale
        parts = [scaled.float(), missing.index_select(1, self.indicated).float()]
        for index, levels in self._texts:
            code = raw[:, index].nan_to_num(nan=float(levels)).clamp(0, levels).long()
            parts.append(nn.functional.one_hot(code, levels + 1).float())
        return torch.cat(parts, 1)


def raw_rows(features: Sequence[Feature], columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """The columns as one matrix, shape `(rows, columns)`."""
    return np.stack([codes_of(each, columns[each.name]) for each in features], 1)
