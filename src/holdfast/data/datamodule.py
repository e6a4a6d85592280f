"""Lightning data modules whose test rows are sealed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader

from holdfast.config.fold import Fold
from holdfast.data import synthetic
from holdfast.data.buffered import BufferedRows
from holdfast.data.disk_batches import OrderedBatches, ShuffledBatches
from holdfast.data.folds import at_random
from holdfast.data.order import Batch, BatchIndices, Rows, batch_rows, evaluation_loader, loader, share_of
from holdfast.data.seeding import derive, seeded
from holdfast.data.split import Split
from holdfast.errors import DataError, SealedError

AnyRows = Rows | BufferedRows
"""The rows of a split, in memory or on disk."""

Loader = DataLoader[Batch] | ShuffledBatches | OrderedBatches
"""Yields batches, and has a length."""


class DataModule(pl.LightningDataModule):
    """Training, validation and test rows of one source. A subclass defines `draw(split)`.

    Test rows are sealed: they are made only while a Trainer tests, are never stored, and each opening is counted.

    Args:
        batch_size: rows per iteration, or "full" for all training rows.
        order_seed: seed of the row order.
        shuffle: whether each epoch has a new row order.
        num_workers: processes that load batches; of rows in memory alone.

    Attributes:
        fold: which fold of the training and validation rows is validated on; None for the rows of the splits.
        train, val: the training and validation rows, set by `setup`.
        test_opened: number of times that the test rows were made.
    """

    fold: Fold | None = None
    train: AnyRows
    val: AnyRows

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
        self._shared_splits: set[Split] = set()

    def draw(self, split: Split) -> AnyRows:
        """Make the rows of a split, as a pure function of the module's arguments; defined by a subclass.

        The global generators get the same seed before each call, so a subclass that draws from them is pure too.
        """
        raise NotImplementedError

    def rows(self, split: Split) -> AnyRows:
        """Return the rows of a split, made by `draw`.

        Raises:
            SealedError: `split` is "test" and no Trainer is testing.
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
        """Return the sha256 of the validation rows. Jobs are compared only if their digests are equal."""
        if self.fold is None:
            return rows_digest(self.rows("val"))
        self.setup("fit")
        return rows_digest(self.val)

    def draw_clean(self) -> AnyRows:
        """Make the training rows as a fold validates on them: without what only training rows have, such as outliers.

        Without a definition of its own, a subclass validates on training rows as they are.
        """
        return self.draw("train")

    def setup(self, stage: str) -> None:
        """Make the training and validation rows, unless they exist."""
        if stage in ("fit", "validate") and not hasattr(self, "train"):
            self.train, self.val = self.rows("train"), self.rows("val")
            if self.fold is not None:
                self.train, self.val = self._folded(self.fold)

    def _draws_clean(self) -> bool:
        """Whether `draw_clean` is of the class that defines `draw`, or of one below it, and so makes the same rows."""
        draw, clean = (next(cls for cls in type(self).__mro__ if name in vars(cls)) for name in ("draw", "draw_clean"))
        return issubclass(clean, draw)

    def _folded(self, fold: Fold) -> tuple[Rows, Rows]:
        """The training and validation rows of a fold."""
        with seeded(derive(0, "rows", "train")):
            clean = self.draw_clean() if self._draws_clean() else self.draw("train")
        if not (isinstance(self.train, Rows) and isinstance(self.val, Rows) and isinstance(clean, Rows)):
            raise DataError("Rows that are read from disk cannot be divided into folds.")
        pooled, to_validate = joined(self.train, self.val), joined(clean, self.val)
        if fold.number is None:
            return pooled, self.val
        is_class = not pooled.y.is_floating_point() and pooled.y.ndim == 1
        strata = pooled.y.numpy().astype(np.int64) if is_class else np.zeros(len(pooled), dtype=np.int64)
        train, val = (torch.from_numpy(np.flatnonzero(part)) for part in at_random(strata, fold))
        return Rows(*pooled[train]), Rows(*to_validate[val])

    def train_dataloader(self) -> Loader:
        """Load the training rows in batches, in the order given by `order_seed` and the epoch."""
        trainer = self.trainer
        indices = BatchIndices(
            len(self.train),
            batch_rows(self.train, self.batch_size),
            seed=self.order_seed,
            # current_epoch is still that of the checkpoint when a resumed run loads its first batch
            epoch=lambda: trainer.fit_loop.epoch_progress.current.processed if trainer else 0,  # type: ignore[attr-defined]
            shuffle=self.shuffle,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )
        if isinstance(self.train, BufferedRows):
            return ShuffledBatches(self.train, indices, self._batches_done)
        return loader(self.train, indices, self.num_workers)

    def _batches_done(self) -> int:
        """Batches of the epoch that were trained on before: not 0 only in a run that resumes inside of an epoch."""
        if self.trainer is None:
            return 0
        loop = self.trainer.fit_loop
        epochs: Any = loop.epoch_progress.current
        is_inside = epochs.started > epochs.processed
        return loop.epoch_loop.batch_progress.current.ready if is_inside else 0

    def val_dataloader(self) -> Loader:
        """Load the validation rows in order; where several processes train a run, the share of this one."""
        return self._in_order("val", self.val)

    def all_train_dataloader(self) -> Loader:
        """Load all training rows in order, or the share of this process, to measure the loss of fixed weights."""
        return self._in_order("train", self.train)

    def test_dataloader(self) -> Loader:
        """Make and load the test rows, or the share of this process.

        Raises:
            SealedError: no Trainer is testing.
        """
        return self._in_order("test", self.rows("test"))

    def is_shared(self, split: Split) -> bool:
        """Whether this process measures a share of the rows of a split; fewer rows than processes are not shared."""
        return split in self._shared_splits

    def _in_order(self, split: Split, rows: AnyRows) -> Loader:
        world_size, share = self.trainer.world_size if self.trainer else 1, None
        if self.trainer and 1 < world_size <= len(rows):
            share = share_of(len(rows), self.trainer.global_rank, world_size)
            self._shared_splits.add(split)
        return OrderedBatches(rows, share=share) if isinstance(rows, BufferedRows) else evaluation_loader(rows, share)


def joined(first: Rows, second: Rows) -> Rows:
    """The rows of two splits, one after the other."""
    return Rows(torch.cat([first.x, second.x]), torch.cat([first.y, second.y]))


def rows_digest(rows: AnyRows) -> str:
    """Return the sha256 of the bytes of x and y, of any dtype; of rows on disk that of their checksums."""
    if isinstance(rows, BufferedRows):
        return hashlib.sha256(f"{rows.file.form}".encode() + rows.file.checks.tobytes()).hexdigest()
    parts = (part.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy() for part in (rows.x, rows.y))
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


class _Synthetic(DataModule):
    """Rows made by a function of `holdfast.data.synthetic`, which takes the arguments that `DataModule` does not."""

    make: Callable[..., Rows]
    without_outliers: ClassVar[Mapping[str, Any]]

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

    def draw_clean(self) -> Rows:
        return self.make("train", **{**self._source, **self.without_outliers})


class Line(_Synthetic):
    """Points on a line with outliers among the training rows; see `holdfast.data.synthetic.line`.

    >>> data = Line(batch_size=5, noise=0.0)
    >>> data.setup("fit")
    >>> len(data.train), len(data.train_dataloader())
    (60, 12)
    """

    make = staticmethod(synthetic.line)
    without_outliers: ClassVar = {"outliers": None}


class Linear(_Synthetic):
    """A random linear function of many features; see `holdfast.data.synthetic.linear`.

    >>> data = Linear(rows=100, features=3)
    >>> data.setup("fit")
    >>> data.train.x.shape, data.val.y.shape
    (torch.Size([60, 3]), torch.Size([20, 1]))
    """

    make = staticmethod(synthetic.linear)
    without_outliers: ClassVar = {"outlier_fraction": 0.0}
