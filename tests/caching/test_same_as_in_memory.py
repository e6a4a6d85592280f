"""A table that is streamed gives what the same table gives in memory: encoding, splits, printed lines, rows, errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.caching.cached_table import CachedTable
from holdfast.data.buffered import BufferedRows
from holdfast.data.disk_batches import OrderedBatches
from holdfast.data.order import Rows
from holdfast.data.split import SPLITS
from holdfast.errors import HoldfastError
from holdfast.tables import chunks, reader
from holdfast.tables.source import TableSource
from tests.caching import generated_tables
from tests.full import ALL

TABLES = 4000 if ALL else 120
SHARES = 20
"""Tests among which the tables are divided."""


def outcome(make: Callable[[], TableSource | CachedTable]) -> dict[str, Any]:
    """All that a table gives, or the message that refuses it."""
    try:
        source = make()
    except HoldfastError as error:
        return {"error": f"{type(error).__name__} {error.exit_code}: {error}"}
    return {
        "encoding": source.encoding.as_plain(),
        "digest": source.digest(),
        "said": [line for line in source.said if not line.startswith("rows are read from disk")],
        **{split: _rows(source.rows_of(split)) for split in SPLITS},
    }


def _rows(rows: Rows | BufferedRows) -> tuple[torch.Tensor, torch.Tensor]:
    if isinstance(rows, Rows):
        return rows.x, rows.y
    x, y = zip(*OrderedBatches(rows).read(), strict=True)
    return torch.cat(x), torch.cat(y)


def streamed(keys: Mapping[str, Any], cache: Path, chunk: int) -> dict[str, Any]:
    """The outcome of a table that is converted in chunks of a few bytes, or a few rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK", chunk)
        patch.setattr(reader, "_ROWS", max(1, chunk // 20))
        return outcome(lambda: CachedTable(keys, str(cache)))


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """What differs between two outcomes; rows and statistics have to be equal bit for bit."""
    if one.keys() != other.keys():
        return {"outcome": (one.get("error", "trained"), other.get("error", "trained"))}
    found = dict[str, Any]()
    for key, mine in one.items():
        yours = other[key]
        if key in SPLITS:
            same = all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(mine, yours, strict=True))
        else:
            same = repr(mine) == repr(yours)
        if not same:
            found[key] = (mine, yours)
    return found


@pytest.mark.parametrize("share", range(SHARES))
def test_random_tables(share: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = 0
    for seed in range(share, TABLES, SHARES):
        folder = tmp_path / str(seed)
        folder.mkdir()
        monkeypatch.chdir(folder)
        keys = generated_tables.table(folder, seed)
        memory = outcome(lambda: TableSource(keys))  # noqa: B023 (called at once)
        disk = streamed(keys, folder / "cache", chunk=(90, 250, 700, 5000)[seed // SHARES % 4])
        assert not differences(memory, disk), (seed, keys)
        if "error" in disk:
            assert not (folder / "cache").exists(), seed
        trained += "error" not in disk
    assert trained > 0
