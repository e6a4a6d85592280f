"""Modules as a user would write them, which `benchmarks/modules.py` and `benchmarks/widths.py` train.

Adam; no bias before a BatchNorm. E and F are large: a stack of them is no faster.
"""

from __future__ import annotations

import itertools
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Rows(pl.LightningDataModule):
    """Rows in memory, shuffled."""

    def __init__(self, kind: str, batch_size: int) -> None:
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage: str) -> None:
        x, y = rows(self.hparams["kind"])
        count = len(x) // 5
        self.val, self.train = TensorDataset(x[:count], y[:count]), TensorDataset(x[count:], y[count:])

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, self.hparams["batch_size"], shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(self.val, self.hparams["batch_size"])


def rows(kind: str) -> tuple[Tensor, Tensor]:
    """The rows of a workload, and a quarter as many again for validation."""
    generator = torch.Generator().manual_seed(0)
    if kind == "A":
        x = torch.randn(640, 8, generator=generator)
        return x, x[:, :1] * x[:, 1:2]
    if kind == "B":
        x = torch.randn(1250, 64, generator=generator)
        return x, (x @ torch.randn(64, 10, generator=generator)).argmax(1)
    if kind == "C":
        from sklearn.datasets import load_digits

        digits = load_digits()
        return torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16, torch.tensor(digits.target)
    if kind == "D":
        x = torch.randint(0, 20, (1250, 16), generator=generator)
        return x, x.sum(1) % 4
    if kind == "E":
        x = torch.randn(1250, 64, generator=generator)
        return x, (x @ torch.randn(64, 10, generator=generator)).argmax(1)
    return torch.randn(1250, 3, 32, 32, generator=generator), torch.randint(0, 10, (1250,), generator=generator)


class Workload(pl.LightningModule):
    """What the modules have in common."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = self.network()

    def network(self) -> nn.Module:
        raise NotImplementedError

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(out, y)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        loss = self.loss(self.net(x), y)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("val/loss", self.loss(self.net(x), y))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.hparams["lr"])


class A(Workload):
    """An MLP 8-32-1."""

    def network(self) -> nn.Module:
        return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return nn.functional.mse_loss(out, y)


class B(Workload):
    """A classifier 64-128-10 with BatchNorm and dropout."""

    def network(self) -> nn.Module:
        layers = nn.Linear(64, 128, bias=False), nn.BatchNorm1d(128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10)
        return nn.Sequential(*layers)


class C(Workload):
    """A CNN of 10,000 parameters."""

    def network(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(128, 38),
            nn.ReLU(),
            nn.Linear(38, 10),
        )


class D(Workload):
    """A transformer of width 32 with two layers."""

    def network(self) -> nn.Module:
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
        return nn.Sequential(nn.Embedding(20, 32), nn.TransformerEncoder(layer, 2), _Mean(), nn.Linear(32, 4))


class E(Workload):
    """An MLP of a million parameters."""

    def network(self) -> nn.Module:
        layers = nn.Linear(64, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)
        return nn.Sequential(*layers)


class F(Workload):
    """A CNN of 250,000 parameters on pictures of 32 by 32."""

    def network(self) -> nn.Module:
        sizes, layers = (3, 32, 64, 128, 128), list[nn.Module]()
        for before, after in itertools.pairwise(sizes):
            convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10))


class _Mean(nn.Module):
    """The mean over a sequence."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)
