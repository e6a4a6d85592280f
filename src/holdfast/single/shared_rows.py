"""How the processes of a run share the rows of validation and test, where a user's data module loads them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from lightning.pytorch.utilities.data import _update_dataloader
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler, SequentialSampler, SubsetRandomSampler
from torchmetrics import Metric

from holdfast.data import DataModule
from holdfast.data.split import Split

SPLITS: tuple[Split, ...] = ("val", "test")


class Rows(Enum):
    """Which rows a process measures."""

    SHARED = "each row is measured by one process"
    ALL = "every process measures all rows"
    UNKNOWN = "the user's loader decides"


class RowShares:
    """Shares out the rows that the loaders of a data module yield for validation and test.

    Lightning gives every process the same number of rows, and so measures some of them twice. Here no row is measured
    twice, but every process has the same number of batches, since a module may communicate in each. Where that cannot
    be, as with fewer rows than processes, every process measures all rows.

    Args:
        trainer: the Trainer of several processes.
        module: what it trains.
        data: its data module.

    Attributes:
        counts: rows that this process measures, by split.
    """

    def __init__(self, trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule) -> None:
        self._trainer, self._module, self._data = trainer, module, data
        self._modes: dict[Split, Rows] = {}
        self.counts: dict[Split, int] = {}
        if isinstance(data, DataModule):
            return
        for split in SPLITS:
            name = f"{split}_dataloader"
            owner = data if is_overridden(name, data) else module
            if is_overridden(name, owner):
                setattr(owner, name, self._sharing(split, getattr(owner, name)))
        connector: Any = trainer._data_connector
        prepare = connector._prepare_dataloader

        def prepare_training_alone(dataloader: object, shuffle: bool, mode: RunningStage) -> object:
            is_evaluation = mode in (RunningStage.VALIDATING, RunningStage.SANITY_CHECKING, RunningStage.TESTING)
            return dataloader if is_evaluation else prepare(dataloader, shuffle, mode)

        connector._prepare_dataloader = prepare_training_alone

    def of(self, split: Split) -> Rows:
        """Which rows this process measures of a split."""
        if isinstance(self._data, DataModule):
            return Rows.SHARED if self._data.is_shared(split) else Rows.ALL
        return self._modes.get(split, Rows.UNKNOWN)

    def _sharing(self, split: Split, load: Callable[[], Any]) -> Callable[[], Any]:
        @functools.wraps(load)
        def shared() -> Any:
            return self._shared(split, load())

        return shared

    def _shared(self, split: Split, loaders: Any) -> Any:
        """The same loaders, for the rows of this process."""
        if isinstance(loaders, CombinedLoader):
            loaders.flattened = self._shared_flat(split, loaders.flattened)
            return loaders
        flat, form = tree_flatten(loaders)
        return tree_unflatten(self._shared_flat(split, flat), form)

    def _shared_flat(self, split: Split, loaders: list[Any]) -> list[Any]:
        place = self._trainer.distributed_sampler_kwargs or {}
        rank, processes = place.get("rank", 0), place.get("num_replicas", 1)
        orders = [order for loader in loaders if (order := _order(loader)) is not None]
        if len(orders) < len(loaders):
            self._modes[split] = Rows.UNKNOWN
            return loaders
        shares = [[_Share(order, each, processes) for each in range(processes)] for order in orders]
        if not all(_have_equal_batches(loader, each) for loader, each in zip(loaders, shares, strict=True)):
            self._modes[split] = Rows.ALL
            for metric in self._module.modules():
                if isinstance(metric, Metric):  # it would add up what every process has measured
                    metric.distributed_available_fn = _is_not_distributed
            return loaders
        self._modes[split] = Rows.SHARED
        self.counts[split] = sum(len(each[rank]) for each in shares)
        return [_update_dataloader(loader, each[rank]) for loader, each in zip(loaders, shares, strict=True)]


class _Share(Sampler[Any]):
    """Every n-th of the rows of a loader, from the r-th on, for process r of n."""

    def __init__(self, order: Any, rank: int, processes: int) -> None:
        self._order, self._rank, self._processes = order, rank, processes

    def __len__(self) -> int:
        return len(range(self._rank, len(self._order), self._processes))

    def __iter__(self) -> Iterator[Any]:
        return (self._order[index] for index in range(self._rank, len(self._order), self._processes))


def _order(loader: Any) -> Any:
    """The rows of a loader in an order that is the same in every process; None where that is not known."""
    if not isinstance(loader, DataLoader) or type(loader.batch_sampler) not in (BatchSampler, type(None)):
        return None
    sampler = loader.sampler
    if isinstance(sampler, SubsetRandomSampler):
        return sampler.indices
    is_permutation = isinstance(sampler, RandomSampler) and not sampler.replacement
    if isinstance(sampler, SequentialSampler) or is_permutation:
        return range(len(loader.dataset)) if len(sampler) == len(loader.dataset) else None  # type: ignore[arg-type]
    return None


def _have_equal_batches(loader: DataLoader[Any], shares: list[_Share]) -> bool:
    """Whether all shares have the same number of batches, and at least one."""
    size = loader.batch_size or 1
    counts = {len(share) // size if loader.drop_last else -(-len(share) // size) for share in shares}
    return len(counts) == 1 and 0 not in counts


def _is_not_distributed() -> bool:
    return False
