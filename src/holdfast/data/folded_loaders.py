"""Folds of any LightningDataModule: the datasets of its training and validation loaders, one after the other."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import numpy as np
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
)

from holdfast.config.fold import Fold
from holdfast.data.datamodule import DataModule
from holdfast.data.folds import at_random
from holdfast.data.seeding import derive, seeded
from holdfast.errors import DataError


def set_fold(data: pl.LightningDataModule, fold: Fold) -> None:
    """Let a data module train and validate on the rows of a fold.

    Args:
        data: just made. Its class becomes one that is derived from its own, with other loaders.
        fold: to train and validate on.

    Raises:
        DataError: it makes its rows in a way that cannot be divided.
    """
    cls: Any = type(data)
    if not isinstance(data, DataModule):
        data.__class__ = type(cls.__name__, (_FoldedLoaders, cls), {"__module__": cls.__module__, "fold": fold})
        return
    for name in ("setup", "rows", "train_dataloader", "val_dataloader"):
        if getattr(cls, name) is not getattr(DataModule, name):
            raise DataError(f"{cls.__name__} has a {name} of its own, so that its rows cannot be divided into folds.")
    data.fold = fold


class _FoldedLoaders:
    """Loaders of a fold, in the place of those of the class beside it."""

    fold: Fold
    _whole: tuple[Any, Any] | None = None  # the loaders of the class, which may draw their rows each time

    def train_dataloader(self) -> DataLoader[Any]:
        """Load the training rows of the fold as the module's own training loader would."""
        return self._loader(is_train=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Load the validation rows of the fold as the module's own validation loader would."""
        return self._loader(is_train=False)

    def _loader(self, *, is_train: bool) -> DataLoader[Any]:
        if self._whole is None:
            own: Any = super()
            with seeded(derive(0, "folds")):
                self._whole = own.train_dataloader(), own.val_dataloader()
            self._check(*self._whole)
        train, val = self._whole
        pooled: Any = ConcatDataset([train.dataset, val.dataset])
        if self.fold.number is None:
            return _like(train, pooled) if is_train else val
        parts = at_random(np.zeros(len(pooled), dtype=np.int64), self.fold)
        rows = np.flatnonzero(parts.train if is_train else parts.val).tolist()
        return _like(train if is_train else val, Subset(pooled, rows))

    def _check(self, train: Any, val: Any) -> None:
        """Check that the rows of two loaders can be divided.

        Raises:
            DataError: it cannot be known which rows they load, or training rows are not as validation rows are.
        """
        self._check_one(train, "train")
        self._check_one(val, "val")
        first, second = _base(train.dataset), _base(val.dataset)
        for what, of_first, of_second in (
            ("class", type(first).__name__, type(second).__name__),
            *((name, repr(getattr(first, name, None)), repr(getattr(second, name, None))) for name in _TRANSFORMS),
        ):
            if of_first != of_second:
                raise DataError(
                    f"the datasets of {type(self).__name__} differ in their {what}: {of_first} for training, "
                    f"{of_second} for validation. Folds validate on training rows, which training must not change."
                )

    def _check_one(self, loader: Any, name: str) -> None:
        what = f"{type(self).__name__}.{name}_dataloader"
        if type(loader) is not DataLoader:
            kind = "several loaders" if isinstance(loader, (list, tuple, dict)) else f"a {type(loader).__name__}"
            raise DataError(f"{what} returns {kind}: folds need one DataLoader.")
        if isinstance(loader.dataset, IterableDataset) or not hasattr(loader.dataset, "__len__"):
            raise DataError(f"{what} reads a stream: folds need a dataset with a length.")
        if loader.batch_size is None:
            raise DataError(f"{what} makes its batches itself (batch_sampler): folds need batch_size and shuffle.")
        if type(loader.batch_sampler) is not BatchSampler or type(loader.sampler) not in (
            RandomSampler,
            SequentialSampler,
        ):
            raise DataError(
                f"{what} has a sampler of its own, which chooses the rows: folds need shuffle=True or False."
            )
        if type(loader.sampler) is RandomSampler and (loader.sampler.replacement or loader.sampler._num_samples):
            raise DataError(f"{what} draws some of its rows: folds need every row once an epoch.")


_TRANSFORMS = ("transform", "transforms", "target_transform")
"""Attributes of datasets, by the convention of torchvision, that change rows as they are read."""


def _base(dataset: Any) -> Any:
    """The dataset behind subsets."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return dataset


def _like(loader: Any, dataset: Any) -> DataLoader[Any]:
    """A loader with the settings of another one."""
    is_shuffled = type(loader.sampler) is RandomSampler
    sampler = RandomSampler(dataset, generator=loader.sampler.generator) if is_shuffled else SequentialSampler(dataset)
    return DataLoader(
        dataset,
        batch_size=loader.batch_size,
        sampler=sampler,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        drop_last=loader.drop_last,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
    )
