"""Which validation rows a job is judged on: jobs are compared only where these are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from holdfast.config.options import OPTIONS, UNKNOWN_ROWS, source
from holdfast.data import DataModule
from holdfast.data.datamodule import rows_digest
from holdfast.data.seeding import seeded
from holdfast.single.assemble import ROWS, build_data, set_up
from holdfast.single.isolation import isolated

MOST_ROWS = 10_000
"""Validation rows that are looked at where a data module does not tell its digest itself."""

_FEW_BATCHES = 10_000  # a stream of empty batches would have no end


def data_digests(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """The digest of each job's validation rows.

    Of a `holdfast.data.DataModule` it is that of the rows which `setup` makes, unless its class tells it by a `digest`
    of its own. Of any other, jobs with the same keys have the same rows; where only keys of the row order differ
    (`batch_size`, `order_seed`, `shuffle`, `num_workers`), the rows are looked at, since a module of the user's may
    make its rows from them.

    Args:
        groups: the data group of each job.

    Returns:
        A digest for each job; where the data module raises, as the job will report by itself, it begins with
        `UNKNOWN_ROWS`.
    """
    distinct = {id(group): group for group in groups}  # the jobs of a sweep share most
    versions: dict[str, set[str]] = {}
    for group in distinct.values():
        versions.setdefault(source(group), set()).add(repr(group))
    digests: dict[str, str] = {}
    of_group: dict[int, str] = {}
    for number, group in distinct.items():
        same_keys = source(group)
        # the rows of the modules that ship with Holdfast do not depend on the row order
        key = same_keys if group["_target_"] in OPTIONS else repr(group)
        if key not in digests:
            digests[key] = _digest(group, look=len(versions[same_keys]) > 1)
        of_group[number] = digests[key]
    return [of_group[id(group)] for group in groups]


def _digest(group: Mapping[str, Any], *, look: bool) -> str:
    of_keys = hashlib.sha256(source(group).encode()).hexdigest()
    with isolated():
        try:
            data = build_data(group)
            if isinstance(data, DataModule) and type(data).digest is DataModule.digest:
                if group["_target_"] in OPTIONS:
                    return data.digest()
                set_up(data)  # what one split is made of may depend on what the other has left behind
                return rows_digest(data.val)
            if hasattr(data, "digest"):
                with seeded(ROWS):
                    return str(data.digest())
        except Exception:
            return UNKNOWN_ROWS + of_keys
        return (_seen_digest(data) if look else None) or of_keys


def _seen_digest(data: pl.LightningDataModule) -> str | None:
    """The digest of the first validation rows, however they are batched; None where they are not tensors."""
    try:
        set_up(data)
        with seeded(ROWS):
            loaders = data.val_dataloader()
            columns: dict[str, list[Tensor]] = {}
            for number, loader in enumerate(loaders if isinstance(loaders, (list, tuple)) else [loaders]):
                for name, part in _parts(loader):
                    columns.setdefault(f"{number}{name}", []).append(part)
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
    for batch in islice(loader, _FEW_BATCHES):
        leaves = list(_leaves(batch))
        yield from leaves
        rows += max((len(part) for _, part in leaves), default=0)
        if rows >= MOST_ROWS:
            return


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor) and value.ndim:
        yield path, value.detach().cpu()
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{path}/{key}")
    elif isinstance(value, (list, tuple)):
        for place, item in enumerate(value):
            yield from _leaves(item, f"{path}/{place}")
    else:
        raise TypeError(f"a batch holds a {type(value).__name__}")
