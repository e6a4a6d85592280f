"""How much of a table fits into memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from holdfast.tables.chunks import CHUNK
from holdfast.tables.lines import opened
from holdfast.tables.reader import explained, is_parquet

SHARE = 4
"""One part of so many of the memory limit is for the rows of a table."""

_BYTES_OF_BYTE = 7
"""Memory to read a byte of a CSV file whole: measured 6.2, its texts included."""

_BYTES_OF_VALUE = 60
"""Memory to read a value of a Parquet file whole: measured 62 in a file of doubles."""

_BUFFERS = 3
"""Buffers at the same time: the one that is trained on, as it was read and as it is used, and the next one."""

_CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


class Size(NamedTuple):
    """An estimate of a file's size.

    Attributes:
        rows: of the file.
        memory: bytes that reading it whole takes.
    """

    rows: int
    memory: int


def memory_limit() -> int:
    """Bytes of memory that this process may use: those of the machine, or fewer in a container."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in _CGROUP:
        try:
            limits.append(int(file.read_text()))
        except (OSError, ValueError):  # there is none, or it is "max"
            continue
    return min(limits)


def size_of(file: Path) -> Size:
    """An estimate of the size of a table's file, from its beginning, or from what a Parquet file says.

    Raises:
        TableError: it cannot be read.
    """
    with explained(file, None):
        if is_parquet(file):
            import pyarrow.parquet as pq

            metadata = pq.read_metadata(file)
            return Size(metadata.num_rows, _BYTES_OF_VALUE * metadata.num_rows * metadata.num_columns)
        size = file.stat().st_size
        with opened(file) as stream:
            head = stream.read(CHUNK)
            if (compressed := getattr(stream, "fileobj", None)) is not None:  # all is as compressible as its head
                size = max(len(head), size * len(head) // max(1, compressed.tell()))
        return Size(max(1, head.count(b"\n")) * size // max(1, len(head)), _BYTES_OF_BYTE * size)


def fits(files: Sequence[Path], limit: int) -> bool:
    """Whether a table can be read whole within its share of the memory limit.

    Args:
        files: of the table.
        limit: as `memory_limit` returns it.
    """
    return sum(size_of(file).memory for file in files) <= limit // SHARE


def rows_that_fit(row_bytes: int, limit: int) -> int:
    """The rows of a buffer that, with what is read ahead, fills the share of the memory limit.

    >>> rows_that_fit(row_bytes=84, limit=24 * 2**30)
    25565281
    """
    return limit // SHARE // (_BUFFERS * row_bytes)
