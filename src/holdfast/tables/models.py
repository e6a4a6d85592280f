"""The models of a table: a linear one or a network on its encoded columns, for regression or classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from holdfast.model import Module, Regression, networks
from holdfast.model.module import sum_dtype
from holdfast.tables.encoding import Encoder, Encoding


class _OfTable:
    """What the two models of a table have in common."""

    network: nn.Module
    encoder: Encoder
    encoding: Encoding

    def _set_table(self, table: Mapping[str, Any], network: Mapping[str, Any]) -> None:
        self.encoding = Encoding.from_plain(table)
        self.encoder = Encoder(self.encoding)
        self.prefix = "linear." if network["kind"] == "linear" else ""

    def bare(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entries of the network, by the names that they have in `model.pth`."""
        entries = {name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")}
        return {f"{self.prefix}{name}": value for name, value in entries.items()}


def network_of(table: Mapping[str, Any], network: Mapping[str, Any]) -> nn.Module:
    """The network of a table.

    Args:
        table: the encoding, in plain containers.
        network: its `kind`, "linear" or "mlp", and its settings.
    """
    encoding, settings = Encoding.from_plain(table), dict(network)
    make = networks.linear if settings.pop("kind") == "linear" else networks.mlp
    return make(features=len(encoding.inputs), outputs=encoding.outputs, **settings)


class TableRegression(_OfTable, Regression):
    """A regression on a table: trained on standardised targets, measured in the units of the table.

    Args:
        table: the encoding of the table, in plain containers.
        network: the kind of network, and its settings.
        lr: learning rate of SGD, where `optimize_with` sets no optimizer.
    """

    def __init__(self, table: Mapping[str, Any], network: Mapping[str, Any], lr: float = 0.01) -> None:
        super().__init__(network_of(table, network))
        self.save_hyperparameters(ignore=["lr"])
        self.lr = lr
        self._set_table(table, network)

    def metrics(self, sums: Sequence[Any]) -> dict[str, Any]:  # type: ignore[override]
        """Return MSE, MAE and R2 as `loss`, `mae` and `r2`, in the units of the target."""
        scale = self.encoding.targets[0].scale
        metrics = Regression.metrics(sums)
        return {**metrics, "loss": metrics["loss"] * scale**2, "mae": metrics["mae"] * scale}

    def in_units(self, output: Tensor) -> Tensor:
        """The predictions of the network in the units of the table, shape `(rows, targets)`."""
        targets = self.encoding.targets
        scale, mean = (output.new_tensor([getattr(each, name) for each in targets]) for name in ("scale", "mean"))
        return output * scale + mean


class TargetsRegression(TableRegression):
    """A regression with several targets; each metric is the mean over the targets."""

    def statistics(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the sums of `Regression.statistics` of each target, shape `(5 * targets,)`."""
        x, y = batch
        prediction, dtype = self(x), sum_dtype(y)
        y = y.to(dtype)
        error = prediction.to(dtype) - y
        rows = torch.full_like(error[0], len(y))
        return torch.cat([rows, error.square().sum(0), error.abs().sum(0), y.sum(0), y.square().sum(0)])

    def metrics(self, sums: Sequence[Any]) -> dict[str, Any]:  # type: ignore[override]
        """Return the means of `loss`, `mae` and `r2` over the targets, and each target's own `loss`."""
        parts = np.asarray(sums, dtype=np.float64).reshape(5, len(self.encoding.targets), *np.shape(sums)[1:])
        each = [Regression.metrics(list(parts[:, index])) for index in range(parts.shape[1])]
        scales = [target.scale for target in self.encoding.targets]
        losses = [metrics["loss"] * scale**2 for metrics, scale in zip(each, scales, strict=True)]
        maes = [metrics["mae"] * scale for metrics, scale in zip(each, scales, strict=True)]
        of_targets = {f"loss_{target.name}": loss for target, loss in zip(self.encoding.targets, losses, strict=True)}
        means = {"loss": losses, "mae": maes, "r2": [metrics["r2"] for metrics in each]}
        return {**{name: np.mean(values, 0) for name, values in means.items()}, **of_targets}


class TableClassifier(_OfTable, Module):
    """A classification of the rows of a table, by cross entropy: logistic regression, or a network.

    Args:
        table, network, lr: as for `TableRegression`.
    """

    def __init__(self, table: Mapping[str, Any], network: Mapping[str, Any], lr: float = 0.01) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["lr"])
        self.network, self.lr = network_of(table, network), lr
        self._set_table(table, network)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, shape `(rows, classes)`."""
        return self.network(x)  # type: ignore[no-any-return]

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the mean cross entropy of a batch."""
        x, y = batch
        return functional.cross_entropy(self(x), y)

    def statistics(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the number of rows, the summed loss, and for each class its rows and hits; `(2 + 2 * classes,)`."""
        x, y = batch
        logits = self(x)
        dtype, classes = sum_dtype(logits), len(self.encoding.classes)
        loss = functional.cross_entropy(logits, y, reduction="sum").to(dtype)
        of_class = functional.one_hot(y, classes).to(dtype)
        hits = (logits.argmax(1) == y).to(dtype)
        rows = torch.full_like(loss, len(y))
        return torch.cat([torch.stack([rows, loss]), of_class.sum(0), (of_class * hits.unsqueeze(1)).sum(0)])

    def metrics(self, sums: Sequence[Any]) -> dict[str, Any]:  # type: ignore[override]
        """Return the cross entropy, the share of hits, and its mean over the classes that occur.

        They are named `loss`, `accuracy` and `balanced_accuracy`.
        """
        rows, loss, *of_classes = (np.asarray(each, dtype=np.float64) for each in sums)
        counts, hits = np.split(np.stack(of_classes), 2)
        with np.errstate(all="ignore"):
            recall = np.where(counts > 0, hits / counts, np.nan)
        return {"loss": loss / rows, "accuracy": hits.sum(0) / rows, "balanced_accuracy": np.nanmean(recall, 0)}


OfTable = TableRegression | TableClassifier


def model_of(table: Mapping[str, Any], network: Mapping[str, Any]) -> OfTable:
    """The model of a table: a classification where the target has classes; arguments as for `network_of`."""
    encoding = Encoding.from_plain(table)
    if encoding.classes:
        return TableClassifier(table, network)
    return (TableRegression if len(encoding.targets) == 1 else TargetsRegression)(table, network)
