"""Digests of validation rows: a sweep compares jobs only where these are the same."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from holdfast.config.fold import fold_of
from holdfast.config.job import FOLDER
from holdfast.config.options import OPTIONS, UNKNOWN_ROWS, source
from holdfast.data import DataModule
from holdfast.data.datamodule import rows_digest
from holdfast.data.seeding import seeded
from holdfast.runtime.isolation import isolated
from holdfast.single.build import ROWS_SEED, build_data, set_up

MOST_ROWS = 10_000
"""The number of validation rows that are read from a data module without a method `digest`."""

_MOST_BATCHES = 10_000  # a stream of empty batches would have no end


def data_digests(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """The digest of each job's validation rows.

    For a `holdfast.data.DataModule` it is the digest of the rows that `setup` makes, unless its class has a method
    `digest` of its own. For any other data module it is a digest of the keys: jobs with the same keys have the same
    rows. Only where groups differ in keys of the row order alone (`batch_size`, `order_seed`, `shuffle`,
    `num_workers`), the first `MOST_ROWS` rows are read, since a user's module may make its rows from these keys.

    Args:
        groups: the data group of each job.

    Returns:
        A digest for each job; it starts with `UNKNOWN_ROWS` where the data module raises, which its job will report.
    """
    texts = [repr(group) for group in groups]
    sources = {text: source(group) for text, group in zip(texts, groups, strict=True)}
    row_orders = Counter(sources.values())
    cache: dict[str, str] = {}
    digests: dict[str, str] = {}
    for text, group in zip(texts, groups, strict=True):
        if text in digests:
            continue
        # rows of Holdfast's data modules do not depend on the row order
        key = sources[text] if group["_target_"] in OPTIONS else text
        if key not in cache:
            cache[key] = _digest(group, read_rows=row_orders[sources[text]] > 1)
        digests[text] = cache[key]
    return [digests[text] for text in texts]


def _digest(group: Mapping[str, Any], *, read_rows: bool) -> str:
    digest_of_keys = hashlib.sha256(source(group).encode()).hexdigest()
    if FOLDER in repr(group):
        return digest_of_keys  # each job has a folder of its own, and none has it yet
    with isolated():
        try:
            data = build_data(group)
            if isinstance(data, DataModule) and type(data).digest is DataModule.digest:
                if group["_target_"] in OPTIONS:
                    return data.digest()
                set_up(data)  # makes both splits: the validation rows may depend on how training rows were made
                return rows_digest(data.val)
            if hasattr(data, "digest"):
                with seeded(ROWS_SEED):
                    fold = fold_of(group)
                    return f"{data.digest()}{'' if fold is None else f' fold {fold}'}"
        except Exception:
            return UNKNOWN_ROWS + digest_of_keys
        return (_digest_of_batches(data) if read_rows else None) or digest_of_keys


def _digest_of_batches(data: pl.LightningDataModule) -> str | None:
    """The digest of the first validation rows, however they are batched; None if they are not tensors."""
    try:
        set_up(data)
        with seeded(ROWS_SEED):
            loaders = data.val_dataloader()
            columns: dict[str, list[Tensor]] = {}
            for number, loader in enumerate(loaders if isinstance(loaders, (list, tuple)) else [loaders]):
                for path, part in _parts(loader):
                    columns.setdefault(f"{number}{path}", []).append(part)
        digest = hashlib.sha256()
        for name, parts in columns.items():
            rows = torch.cat(parts)[:MOST_ROWS]
            digest.update(f"{name} {rows.dtype} {tuple(rows.shape)}".encode())
            digest.update(rows.contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest() if columns else None
    except Exception:
        return None


def _parts(loader: Iterable[Any]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a loader's batches, each with its path in the batch, until there are enough rows."""
    rows = 0
    for batch in islice(loader, _MOST_BATCHES):
        leaves = list(_leaves(batch))
        yield from leaves
        rows += max((len(part) for _, part in leaves), default=0)
        if rows >= MOST_ROWS:
            return


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a batch, each with its path in the batch."""
    if isinstance(value, Tensor) and value.ndim:
        yield path, value.detach().cpu()
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{path}/{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}/{index}")
    else:
        raise TypeError(f"a batch holds a {type(value).__name__}")
