"""Lightning data modules whose test rows are sealed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader

from holdfast.data import synthetic
from holdfast.data.order import Batch, Batches, Rows, evaluation_loader, loader
from holdfast.data.seeding import derive, seeded
from holdfast.data.split import Split
from holdfast.errors import SealedError


class DataModule(pl.LightningDataModule):
    """Train, validation and test rows of one source; a subclass says what the rows are, in `draw`.

    Test rows are sealed: they are made only while a Trainer tests, are kept nowhere, and every opening is counted.

    Args:
        batch_size: rows per iteration, or "full" for all of them.
        order_seed: seed of the row order.
        shuffle: a new row order every epoch.
        num_workers: processes that load batches.

    Attributes:
        train, val: the rows of these splits, once `setup` has run.
        test_opened: how often the test rows were opened.
    """

    stackable: frozenset[str] = frozenset()
    """Arguments of a subclass in which the jobs of one stack may differ: they leave the number of rows and columns
    alone. Each job still gets the rows that its own arguments make."""

    train: Rows
    val: Rows

    def __init__(
        self,
        batch_size: int | Literal["full"] = 1,
        order_seed: int = 0,
        shuffle: bool = True,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.batch_size, self.order_seed = batch_size, order_seed
        self.shuffle, self.num_workers = shuffle, num_workers
        self.test_opened = 0

    def draw(self, split: Split) -> Rows:
        """Make the rows of a split anew, as a pure function of the module's arguments; a subclass says how.

        The global generators are seeded alike for every call, so that a subclass that draws from them is pure too.
        """
        raise NotImplementedError

    def rows(self, split: Split) -> Rows:
        """The rows of a split.

        Raises:
            SealedError: the test rows were asked for, and no Trainer is testing.
        """
        if split == "test":
            if self.trainer is None or self.trainer.state.fn != TrainerFn.TESTING:
                raise SealedError(
                    "The test rows are sealed: a choice made with a look at them would no longer be tested by them.\n"
                    "To test the best weights once, after the fit, add test=true."
                )
            self.test_opened += 1
        with seeded(derive(0, "rows", split)):
            return self.draw(split)

    def digest(self) -> str:
        """The sha256 of the validation rows: jobs are compared only where it is the same."""
        return rows_digest(self.rows("val"))

    def setup(self, stage: str) -> None:
        """Make the training and validation rows."""
        if stage in ("fit", "validate") and not hasattr(self, "train"):
            self.train, self.val = self.rows("train"), self.rows("val")

    def train_dataloader(self) -> DataLoader[Batch]:
        """The training rows, in the order of (order_seed, epoch), in batches of batch_size."""
        trainer = self.trainer
        batches = Batches(
            len(self.train),
            len(self.train) if self.batch_size == "full" else self.batch_size,
            seed=self.order_seed,
            # current_epoch is still that of the last checkpoint when a run that goes on asks for its first batch
            epoch=lambda: trainer.fit_loop.epoch_progress.current.processed if trainer else 0,  # type: ignore[attr-defined]
            shuffle=self.shuffle,
            rank=trainer.global_rank if trainer else 0,
            world=trainer.world_size if trainer else 1,
        )
        return loader(self.train, batches, self.num_workers)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The validation rows."""
        return evaluation_loader(self.val)

    def all_train_dataloader(self) -> DataLoader[Batch]:
        """All training rows in order, for measuring the loss of given weights."""
        return evaluation_loader(self.train)

    def test_dataloader(self) -> DataLoader[Batch]:
        """The test rows, made for this one test.

        Raises:
            SealedError: no Trainer is testing.
        """
        return evaluation_loader(self.rows("test"))


def rows_digest(rows: Rows) -> str:
    """The sha256 of rows, of whatever type."""
    parts = (part.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy() for part in (rows.x, rows.y))
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


class _Synthetic(DataModule):
    """Rows made by a function of `holdfast.data.synthetic`; its arguments follow those of the data module."""

    make: Callable[..., Rows]

    def __init__(
        self,
        batch_size: int | Literal["full"] = 1,
        order_seed: int = 0,
        shuffle: bool = True,
        num_workers: int = 0,
        **source: Any,
    ) -> None:
        super().__init__(batch_size, order_seed, shuffle, num_workers)
        self._source = source

    def draw(self, split: Split) -> Rows:
        return self.make(split, **self._source)


class Line(_Synthetic):
    """Points on a line, outliers among the training rows: `holdfast.data.synthetic.line`.

    >>> data = Line(batch_size=5, noise=0.0)
    >>> data.setup("fit")
    >>> len(data.train), len(data.train_dataloader())
    (60, 12)
    """

    stackable = frozenset({"slope", "intercept", "noise", "outliers", "seed"})
    make = staticmethod(synthetic.line)


class Linear(_Synthetic):
    """A random linear function of many features, split at random: `holdfast.data.synthetic.linear`."""

    stackable = frozenset({"noise", "outlier_fraction", "seed"})
    make = staticmethod(synthetic.linear)
