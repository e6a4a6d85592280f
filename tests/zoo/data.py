"""Data as people load them."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, WeightedRandomSampler, random_split

FEATURES, CLASSES = 8, 3


def table(rows: int = 75) -> tuple[Tensor, Tensor]:
    """Rows with a class each."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, FEATURES, generator=generator)
    return x, (x @ torch.randn(FEATURES, CLASSES, generator=generator)).argmax(1)


class Table(pl.LightningDataModule):
    """Classes, shuffled, with a short last batch."""

    def __init__(self, batch_size: int = 16, drop_last: bool = False) -> None:
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage: str) -> None:
        x, y = self.rows()
        self.train, self.val, self.test = random_split(
            TensorDataset(x, y), [45, 20, 10], torch.Generator().manual_seed(42)
        )

    def rows(self) -> tuple[Tensor, Tensor]:
        return table()

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, self.hparams["batch_size"], shuffle=True, drop_last=self.hparams["drop_last"])

    def val_dataloader(self) -> Any:
        return DataLoader(self.val, self.hparams["batch_size"])

    def test_dataloader(self) -> Any:
        return DataLoader(self.test, self.hparams["batch_size"])


class Numbers(Table):
    """A regression with one target."""

    def rows(self) -> tuple[Tensor, Tensor]:
        x, _ = table()
        return x, x[:, :1] * 2 - x[:, 1:2] + 0.1 * x[:, 2:3].square()


class Images(Table):
    """Small pictures of digits, as scikit-learn has them."""

    def rows(self) -> tuple[Tensor, Tensor]:
        x, y = table()
        return torch.cat([x] * 8, 1).view(-1, 1, 8, 8), y


class Tokens(Table):
    """Sequences of integers."""

    def rows(self) -> tuple[Tensor, Tensor]:
        x, y = table()
        return (x * 3).long().abs() % 11, y


class Records(Dataset[Any]):
    """Dictionaries, made row by row from NumPy."""

    def __init__(self, first: int, last: int) -> None:
        x, y = table()
        self.x, self.y = x.numpy()[first:last].astype(np.float32), y.numpy()[first:last]

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"features": self.x[index], "label": int(self.y[index]), "pair": (self.x[index][:2], self.x[index][2:])}


class Dictionaries(pl.LightningDataModule):
    """Nested batches from a dataset of dictionaries, drawn with weights; two validation loaders."""

    def train_dataloader(self) -> Any:
        weights = torch.linspace(1, 2, 45)
        return DataLoader(Records(0, 45), 16, sampler=WeightedRandomSampler(weights, 45))

    def val_dataloader(self) -> Any:
        return [DataLoader(Records(45, 60), 8), DataLoader(Records(60, 75), 8)]


class Generated(Table):
    """A loader with a generator of its own."""

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, 16, shuffle=True, generator=torch.Generator().manual_seed(7))


class Workers(Table):
    """Rows that a process of its own loads."""

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, 16, shuffle=True, num_workers=1)


class Augmented(Table):
    """Rows that are changed at random each time they are read."""

    def train_dataloader(self) -> Any:
        train = self.train

        class Noise(Dataset[Any]):
            def __len__(self) -> int:
                return len(train)

            def __getitem__(self, index: int) -> Any:
                x, y = train[index]
                return x + 0.1 * torch.randn(FEATURES), y

        return DataLoader(Noise(), 16, shuffle=True)


class Stream(Table):
    """Rows without a number."""

    def train_dataloader(self) -> Any:
        x, y = table()

        class Rows(IterableDataset[Any]):
            def __iter__(self) -> Any:
                return iter(zip(x[:45], y[:45], strict=True))

        return DataLoader(Rows(), 16)


class Centred(Table):
    """A collate function that depends on the whole batch."""

    def train_dataloader(self) -> Any:
        def collate(rows: list[Any]) -> Any:
            x = torch.stack([row[0] for row in rows])
            return x - x.mean(0), torch.stack([row[1] for row in rows])

        return DataLoader(self.train, 16, shuffle=True, collate_fn=collate)
