"""Shows how far the conversion of a table has come."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType

from tqdm import tqdm


class ConversionProgress:
    """A bar of bytes and rows on a terminal, and a line at the beginning and at the end.

    Args:
        table: what is converted.
        folder: where it is written.
        size: bytes of its files.
    """

    def __init__(self, table: str, folder: Path, size: int) -> None:
        self._table, self._began, self._rows = table, time.monotonic(), 0
        print(f"{table} is converted once, to {folder}: read, then measured and written", flush=True)
        self._bar = tqdm(
            total=size, unit="B", unit_scale=True, leave=False, dynamic_ncols=True, disable=not sys.stderr.isatty()
        )

    def read(self, size: int, rows: int) -> None:
        """Some bytes, or 0 where it is not known how many, and rows were read."""
        self._rows += rows
        self._bar.set_postfix_str(f"{self._rows:,} rows", refresh=False)
        self._bar.update(size)

    def begin(self, what: str) -> None:
        """Another pass begins."""
        if what.startswith("reading again"):
            print(what, flush=True)
            self._rows = 0
            self._bar.reset()
        self._bar.set_description_str(what.partition(":")[0])

    def __enter__(self) -> ConversionProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if error is None:
            print(f"{self._table}: {self._rows:,} rows converted in {time.monotonic() - self._began:.1f} s", flush=True)
