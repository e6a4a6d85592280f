"""Shows how far the conversion of a table has come."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

_LARGE = 1 << 26
"""Bytes from which a line is printed before the conversion, too."""


class ConversionProgress:
    """A bar of bytes and rows on a terminal, and a line at the end; of a large table also one at the beginning.

    Args:
        table: what is converted.
        folder: where it is written.
        size: bytes of its files.
    """

    def __init__(self, table: str, folder: Path, size: int) -> None:
        self._table, self._folder, self._began, self._rows = table, folder, time.monotonic(), 0
        if size > _LARGE:
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
            seconds = time.monotonic() - self._began
            print(f"{self._table}: {self._rows:,} rows converted in {seconds:.1f} s, to {self._folder}", flush=True)
