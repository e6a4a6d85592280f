"""The rows of an ordinary DataLoader, read once for all jobs, and the order in which each job visits them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from holdfast.data import Rows, row_order
from holdfast.data.disk_batches import OrderedBatches, ShuffledBatches
from holdfast.data.order import BatchIndices
from holdfast.usercode.watch import UnstackableError

_SAMPLERS = frozenset({SequentialSampler, RandomSampler, SubsetRandomSampler, WeightedRandomSampler})
_MOST_BYTES = 1 << 28
"""Rows of a dataset that are read into memory; a larger one is read batch by batch, job by job."""


class LoadedRows:
    """All rows of a loader.

    Args:
        loader: a loader of the user's.
        convert: moves a batch to the device, in the type that the precision needs.

    Raises:
        UnstackableError: its rows are not known to be the same each time they are read.

    Attributes:
        leaves: the tensors of a batch of all rows, each of shape `(rows, ...)`.
        spec: how a batch is made of its leaves.
        generators: the generators that the loader and its sampler have of their own.
        states: their states at the start.
    """

    def __init__(self, loader: Any, convert: Callable[[Any], Any]) -> None:
        if isinstance(loader, (ShuffledBatches, OrderedBatches)):
            raise UnstackableError("its rows are read from disk, buffer by buffer")
        if type(loader) is not DataLoader:
            raise UnstackableError(f"its loader is a {type(loader).__name__}, not a DataLoader")
        self._loader: Any = loader
        dataset: Any = loader.dataset
        self._own = type(loader.sampler) is BatchIndices and type(dataset) is Rows
        if self._own:
            whole: Any = (dataset.x, dataset.y)
        else:
            _check(loader)
            whole = _read(dataset, loader.collate_fn)
        leaves, self.spec = tree_flatten(convert(whole))
        self.count = len(dataset)
        if not leaves or not all(isinstance(leaf, Tensor) and len(leaf) == self.count for leaf in leaves):
            raise UnstackableError("its batches hold more than tensors with a first dimension of rows")
        self.leaves: list[Tensor] = leaves

        with_own = () if self._own else (loader.generator, getattr(loader.sampler, "generator", None))
        self.generators = list({id(each): each for each in with_own if each is not None}.values())
        self.states = [each.get_state() for each in self.generators]
        if not self._own and loader.num_workers > 0 and self.generators:
            raise UnstackableError("its loader has workers and a generator of its own")
        self.has_workers = loader.num_workers > 0

    @property
    def batch_sizes(self) -> list[int]:
        """Rows of each batch of an epoch."""
        if self._own:
            rows, size, drops_last = self.count, self._loader.sampler.batch_size, False
        else:
            rows, size, drops_last = len(self._loader.sampler), self._loader.batch_size, self._loader.drop_last
        last = rows % size
        return [size] * (rows // size) + ([last] if last and not drops_last else [])

    def order(
        self, epoch: int, generator: torch.Generator, states: Sequence[Tensor], *, most: int | None, base_seed: bool
    ) -> list[Tensor]:
        """The indexes of the rows of each batch of an epoch, and the draws behind them, as `DataLoader.__iter__` does.

        No batch is asked for after the last one, as Lightning asks for none: a sampler at its end may draw again.

        Args:
            epoch: the epoch.
            generator: of the job, in the place of torch's global one; goes on.
            states: of `generators`, for this job; updated in place.
            most: number of batches that are read; None for all.
            base_seed: whether the seed of the workers is drawn from `generator`: that of the first epoch was before.
        """
        if self._own:
            sampler = self._loader.sampler
            order = row_order(sampler.rows, sampler.seed, epoch) if sampler.shuffle else torch.arange(sampler.rows)
            if base_seed:
                torch.empty((), dtype=torch.int64).random_(generator=generator)
            return list(torch.split(order, sampler.batch_size))[:most]
        before = torch.get_rng_state()
        torch.set_rng_state(generator.get_state())
        for own, state in zip(self.generators, states, strict=True):
            own.set_state(state)
        try:
            if base_seed or self._loader.generator is not None:
                torch.empty((), dtype=torch.int64).random_(generator=self._loader.generator)
            return self._batches(self.batch_sizes[:most])
        finally:
            generator.set_state(torch.get_rng_state())
            for own, state in zip(self.generators, states, strict=True):
                state.copy_(own.get_state())
            torch.set_rng_state(before)

    def _batches(self, sizes: Sequence[int]) -> list[Tensor]:
        """The indexes of the rows of the first batches, as torch's `BatchSampler` asks its sampler for them."""
        sampler = iter(self._loader.batch_sampler.sampler)
        rows = torch.as_tensor(list(islice(sampler, sum(sizes))), dtype=torch.int64)
        if sizes and sizes[-1] < self._loader.batch_size:
            next(sampler, None)  # a short batch ends where the sampler does, which may draw at its end
        return list(torch.split(rows, list(sizes)))

    def batch(self, leaves: Sequence[Tensor]) -> Any:
        """A batch, as the user's collate function makes it."""
        return tree_unflatten(list(leaves), self.spec)


def _check(loader: Any) -> None:
    if isinstance(loader.dataset, IterableDataset):
        raise UnstackableError("its rows are a stream (IterableDataset)")
    if loader.batch_sampler is None or type(loader.batch_sampler) is not BatchSampler:
        raise UnstackableError("its loader makes batches in a way of its own (batch_sampler, or batch_size=None)")
    if type(loader.sampler) not in _SAMPLERS:
        raise UnstackableError(f"its loader has a sampler of its own ({type(loader.sampler).__name__})")
    if loader.worker_init_fn is not None:
        raise UnstackableError("its loader has a worker_init_fn, which may change the rows")


def _read(dataset: Any, collate: Any) -> Any:
    """All rows as one batch."""
    if collate is default_collate and type(dataset) is TensorDataset:
        return list(dataset.tensors)
    if collate is default_collate and type(dataset) is Subset and type(dataset.dataset) is TensorDataset:
        indexes = torch.as_tensor(list(dataset.indices))
        return [tensor[indexes] for tensor in dataset.dataset.tensors]
    count, before = len(dataset), _generators()
    some = [dataset[index] for index in range(min(count, 8))]
    sizes = [leaf.nbytes for leaf in tree_flatten(some)[0] if isinstance(leaf, (Tensor, np.ndarray))]
    if some and sum(sizes) / len(some) * count > _MOST_BYTES:
        raise UnstackableError(f"its {count:,} rows would take more than {_MOST_BYTES >> 20} MiB of memory")
    items = [dataset[index] for index in range(count)]
    again = [dataset[index] for index in reversed(range(count))][::-1]  # in another order
    if not all(_is_equal(one, other) for one, other in zip(items, again, strict=True)):
        raise UnstackableError("its rows differ each time they are read")
    whole = collate(items)
    leaves, spec = tree_flatten(whole)
    if not all(isinstance(leaf, Tensor) and len(leaf) == count for leaf in leaves):
        raise UnstackableError("its batches hold more than tensors with a first dimension of rows")
    for size in (1, 7, 8):
        picked = torch.randperm(count, generator=torch.Generator().manual_seed(size))[:size].tolist()
        part = collate([items[index] for index in picked])
        if not _is_equal(part, tree_unflatten([leaf[picked] for leaf in leaves], spec)):
            raise UnstackableError("its collate_fn makes a row that depends on the other rows of its batch")
    if _generators() != before:
        raise UnstackableError("its rows are drawn at random each time they are read")
    return whole


def _generators() -> tuple[Any, ...]:
    """The states of the global generators."""
    return torch.get_rng_state().numpy().tobytes(), repr(np.random.get_state(legacy=False)), random.getstate()


def _is_equal(one: Any, other: Any) -> bool:
    (mine, spec), (yours, other_spec) = tree_flatten(one), tree_flatten(other)
    return spec == other_spec and all(map(_is_equal_leaf, mine, yours))


def _is_equal_leaf(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if not isinstance(one, (Tensor, np.ndarray)):
        return bool(one == other)
    one, other = np.asarray(one), np.asarray(other)
    return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind in "fc")
