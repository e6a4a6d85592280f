"""A user's module, which forgets `sync_dist`, and a data module; what it measures does not depend on its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
import torchmetrics
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from holdfast.model.regressors import Linear


class Forgetful(pl.LightningModule):
    """Logs the values of the rows in every way that Lightning has."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.mean, self.rows = torchmetrics.MeanMetric(), torchmetrics.SumMetric()
        self.seen: list[Tensor] = []

    def training_step(self, batch: list[Tensor]) -> Tensor:
        self.log("train/mean", batch[0].mean(), on_step=False, on_epoch=True)
        return torch.as_tensor(self.layer(batch[0]).square().mean())

    def validation_step(self, batch: list[Tensor]) -> None:
        (x,) = batch
        self.log("val/loss", x.mean())
        self.log("val/synchronised", x.mean(), sync_dist=True)
        self.log("val/most", x.max(), reduce_fx="max")
        self.log("val/least", x.min(), reduce_fx="min")
        self.log("val/sum", x.sum(), reduce_fx="sum")
        self.mean.update(x)
        self.log("val/metric", self.mean)
        self.rows.update(torch.ones_like(x))
        self.log("val/rows", self.rows)
        self.seen.append(x)

    def on_validation_epoch_end(self) -> None:
        self.log("val/end", torch.cat(self.seen).mean())
        if self.global_rank == 0:
            self.log("val/of_first", 3.0)
        self.seen = []

    def test_step(self, batch: list[Tensor]) -> None:
        self.log("test/sum", batch[0].sum(), reduce_fx="sum")

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.01)


class Numbers(pl.LightningDataModule):
    """Rows that are the squares of 1, 2, 3, ..., in batches of two.

    Args:
        rows: number of validation rows.
        shuffle: whether the validation rows are shuffled.
    """

    def __init__(self, rows: int = 7, *, shuffle: bool = False) -> None:
        super().__init__()
        self.rows, self.shuffle = rows, shuffle

    def _load(self, rows: int, *, shuffle: bool = False) -> DataLoader[Any]:
        squares = torch.arange(1.0, rows + 1).square().unsqueeze(1)
        return DataLoader(TensorDataset(squares), batch_size=2, shuffle=shuffle)

    def train_dataloader(self) -> DataLoader[Any]:
        return self._load(8)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._load(self.rows, shuffle=self.shuffle)

    def test_dataloader(self) -> DataLoader[Any]:
        return self._load(9)


class Counting(Linear):
    """One of Holdfast's own models, whose metrics name the number of rows."""

    @staticmethod
    def metrics(sums: Sequence[Any]) -> dict[str, Any]:
        """The metrics of `Linear`, and the number of rows."""
        return {**Linear.metrics(sums), "rows": sums[0]}
