"""The folder of a work on its way between the driver and a worker, in pieces of some megabytes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from holdfast.store.work_folder import WorkFolder
from holdfast.workers.bundle import Bundle, write_bundle
from holdfast.workers.packed import pack, unpack

PIECE = 8 << 20
"""Size of a piece in bytes: Ray keeps a few of them in memory at a time, whatever the size of the folder."""

MOST_UNFINISHED_BYTES = 256 << 20
"""Largest size of an unfinished work that travels; a larger one starts again from the beginning."""

_ARRIVING = ".arriving"


def finished(folder: WorkFolder) -> Iterator[bytes]:
    """The bundle of a finished work, in pieces.

    Raises:
        BundleError: there is none, or it is not what it says.
    """
    return joined(pack(folder))


def unfinished(folder: WorkFolder) -> Iterator[bytes]:
    """What an unfinished work has left, such as the snapshot of a stack, in pieces; none where that is too large."""
    if not folder.path.is_dir():
        return
    bundle = write_bundle(folder, [], {}, {})
    try:
        if bundle.files and sum(file.size for file in bundle.files) <= MOST_UNFINISHED_BYTES:
            yield from joined(pack(folder))
    finally:
        folder.bundle.unlink(missing_ok=True)


def joined(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Pieces of at most `PIECE` bytes, or as large as a single one of those given."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        if waiting and size + len(piece) > PIECE:
            yield b"".join(waiting)
            waiting, size = [], 0
        waiting.append(piece)
        size += len(piece)
    if waiting:
        yield b"".join(waiting)


def receive(pieces: Iterable[bytes], folder: WorkFolder) -> Bundle:
    """Write what arrives into the folder of a work, in the place of what is there, once all of it is verified.

    Args:
        pieces: as `finished` or `unfinished` yield them.
        folder: the folder.

    Returns:
        What has arrived.

    Raises:
        BundleError: what arrives is torn, altered or too large; the folder stays as it is.
        StorageError: a file cannot be written.
    """
    arriving = WorkFolder(folder.path.with_name(folder.path.name + _ARRIVING))
    arriving.remove()
    try:
        bundle = unpack(pieces, arriving)
    except BaseException:
        arriving.remove()
        raise
    if not bundle.hashes:  # of no job: it is unfinished
        arriving.bundle.unlink()
    folder.remove()
    os.replace(arriving.path, folder.path)  # noqa: PTH105
    return bundle
