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
    elif cls.setup is not DataModule.setup:
        raise DataError(f"{cls.__name__} has a setup of its own, so that its rows cannot be divided into folds.")
    else:
        data.fold = fold


class _FoldedLoaders:
    """Loaders of a fold, in the place of those of the class beside it."""

    fold: Fold

    def train_dataloader(self) -> DataLoader[Any]:
        """Load the training rows of the fold as the module's own training loader would."""
        return self._loader(is_train=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Load the validation rows of the fold as the module's own validation loader would."""
        return self._loader(is_train=False)

    def _loader(self, *, is_train: bool) -> DataLoader[Any]:
        own: Any = super()
        train, val = self._checked(own.train_dataloader(), "train"), self._checked(own.val_dataloader(), "val")
        pooled: Any = ConcatDataset([train.dataset, val.dataset])
        if self.fold.number is None:
            return _like(train, pooled) if is_train else val
        parts = at_random(np.zeros(len(pooled), dtype=np.int64), self.fold)
        rows = np.flatnonzero(parts.train if is_train else parts.val).tolist()
        return _like(train if is_train else val, Subset(pooled, rows))

    def _checked(self, loader: Any, name: str) -> Any:
        """A loader whose rows can be divided.

        Raises:
            DataError: it cannot be known which rows it loads.
        """
        what = f"{type(self).__name__}.{name}_dataloader"
        if type(loader) is not DataLoader:
            kind = "several loaders" if isinstance(loader, (list, tuple, dict)) else f"a {type(loader).__name__}"
            raise DataError(f"{what} returns {kind}: folds need one DataLoader.")
        if isinstance(loader.dataset, IterableDataset) or not hasattr(loader.dataset, "__len__"):
            raise DataError(f"{what} reads a stream: folds need a dataset with a length.")
        if type(loader.batch_sampler) is not BatchSampler or type(loader.sampler) not in (
            RandomSampler,
            SequentialSampler,
        ):
            raise DataError(
                f"{what} has a sampler of its own, which chooses the rows: folds need shuffle=True or False."
            )
        if type(loader.sampler) is RandomSampler and (loader.sampler.replacement or loader.sampler._num_samples):
            raise DataError(f"{what} draws some of its rows: folds need every row once an epoch.")
        return loader


def _like(loader: Any, dataset: Any) -> DataLoader[Any]:
    """A loader with the settings of another one."""
    return DataLoader(
        dataset,
        batch_size=loader.batch_size,
        shuffle=type(loader.sampler) is RandomSampler,
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
