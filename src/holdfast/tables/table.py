"""The data module of a table."""

from __future__ import annotations

from typing import Any, Literal

from holdfast.data.buffered import BufferedRows
from holdfast.data.datamodule import DataModule
from holdfast.data.order import Rows
from holdfast.data.split import Split


class Table(DataModule):
    """Rows of CSV or Parquet files, encoded: `python train.py data=table data.path=houses.csv data.target=price`.

    Args:
        batch_size, order_seed, shuffle, num_workers: as for `holdfast.data.DataModule`.
        keys: the other keys of `data=table`; see `docs/tables.md`.
    """

    def __init__(
        self,
        batch_size: int | Literal["full"] = 256,
        order_seed: int = 0,
        shuffle: bool = True,
        num_workers: int = 0,
        **keys: Any,
    ) -> None:
        super().__init__(batch_size, order_seed, shuffle, num_workers)
        from holdfast.caching.sources import source_of  # imports this package

        self.source, self._buffer_rows = source_of(keys), keys.get("buffer_rows")

    def digest(self) -> str:
        """Return the sha256 of the files, the targets and the split of each row.

        Jobs are compared if these are the same, whatever columns they predict from.
        """
        return self.source.digest()

    def draw(self, split: Split) -> Rows | BufferedRows:
        """The encoded rows of a split."""
        return self.source.rows_of(split, self._buffer_rows if isinstance(self._buffer_rows, int) else None)
