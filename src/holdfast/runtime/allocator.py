"""Keep freed memory in the process: by default the C library gives large blocks back to the system at once.

The next operation asks for a block of the same size, and each of its pages is then cleared and mapped anew. For tensors
of some megabytes that takes longer than the arithmetic.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Options of `mallopt`, as in glibc's `malloc.h`."""

_KEEP_ALL = 2**31 - 1
_LARGEST = (1 << 30, 32 << 20)
"""Sizes of blocks up to which they are kept, in bytes: older versions of glibc refuse more than 32 MiB."""

_BY_DEFAULT = (32 << 20, 64 << 20)
"""What glibc adjusts both thresholds to, at most, while large blocks are freed."""


_lock = threading.Lock()
_open: list[bool] = []
"""An entry for each block of `freed_memory_kept` that is open."""


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Let freed memory be used again without the system; at the end what is free is given back.

    With another C library than glibc this does nothing, and neither where the user has set glibc's options: they could
    not be put back.

    >>> with freed_memory_kept():
    ...     pass
    """
    library = _glibc()
    if library is None:
        yield
        return
    with _lock:
        _open.append(True)
        if len(_open) == 1:
            # the first size that this version takes
            any(library.mallopt(_MMAP_THRESHOLD, size) for size in _LARGEST)
            library.mallopt(_TRIM_THRESHOLD, _KEEP_ALL)
    try:
        yield
    finally:
        with _lock:
            _open.pop()
            if not _open:
                library.mallopt(_MMAP_THRESHOLD, _BY_DEFAULT[0])
                library.mallopt(_TRIM_THRESHOLD, _BY_DEFAULT[1])
                library.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library of this process, if it is glibc, and its options are the default ones."""
    if any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return None
    try:
        library = ctypes.CDLL(None)
        for name in ("gnu_get_libc_version", "mallopt", "malloc_trim"):
            getattr(library, name)
    except (OSError, AttributeError, TypeError):
        return None
    return library
