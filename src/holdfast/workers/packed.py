"""A bundle as bytes, for workers that share no disk with the driver: its list, then the contents of its files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from holdfast.errors import BundleError, StorageError
from holdfast.store.files import make_folder, replacing
from holdfast.store.work_folder import WorkFolder
from holdfast.workers.bundle import MOST_LIST_BYTES, Bundle, BundledFile, parse_bundle, read_bundle, verify_folders

_MAGIC = b"holdfast bundle 1\n"
_LENGTH_BYTES = 8
_CHUNK = 1 << 20


def pack(folder: WorkFolder) -> Iterator[bytes]:
    """The bundle in a folder as a stream: a head with the length of the list, the list, and every file.

    Args:
        folder: folder of a finished work.

    Yields:
        Pieces of at most a megabyte; the list is one piece.

    Raises:
        BundleError: there is no bundle, or it is not what it says.
    """
    bundle = read_bundle(folder)
    if bundle is None:
        raise BundleError(f"{folder.path} has no bundle: its work is not finished")
    text = folder.bundle.read_bytes()
    yield _MAGIC + len(text).to_bytes(_LENGTH_BYTES, "big") + text
    for file in bundle.files:
        with (folder.path / file.path).open("rb") as stream:
            while piece := stream.read(_CHUNK):
                yield piece


def unpack(pieces: Iterable[bytes], folder: WorkFolder) -> Bundle:
    """Write the files of a packed bundle into a new folder, and verify them.

    Args:
        pieces: what `pack` yielded, cut in any way.
        folder: where the files go; the folder must not exist.

    Returns:
        The bundle; its list is written last, so that a folder without one is incomplete.

    Raises:
        BundleError: the stream is torn, altered, too large, or names a file outside the folder.
        StorageError: a file cannot be written.
    """
    if os.path.lexists(folder.path):
        raise BundleError(f"{folder.path} exists already")
    reader = _Reader(pieces)
    if reader.read(len(_MAGIC)) != _MAGIC:
        raise BundleError(f"what should be unpacked to {folder.path} is no bundle")
    length = int.from_bytes(reader.read(_LENGTH_BYTES), "big")
    if length > MOST_LIST_BYTES:
        raise BundleError(f"the bundle for {folder.path} is too large: its list has {length} bytes")
    text = reader.read(length)
    bundle = parse_bundle(text, folder.path)
    for parent in dict.fromkeys(file.path.rpartition("/")[0] for file in bundle.files):
        make_folder(folder.path / parent)
    verify_folders(folder.path, bundle.files)
    for file in bundle.files:
        _write(f"{folder.path}/{file.path}", file, reader)
    if not reader.is_at_end():
        raise BundleError(f"the bundle for {folder.path} is torn or altered: more follows after its last file")
    folder.path.mkdir(parents=True, exist_ok=True)
    with replacing(folder.bundle) as stream:
        stream.write(text)
    return bundle


def _write(path: str, file: BundledFile, reader: _Reader) -> None:
    """Write and verify a file of a bundle, whose path is text for speed.

    Only the files of stacks are flushed to disk, which takes longer than to write them. A job that a power cut leaves
    without some of its files is trained again, since their digests do not match; an archive that does not match would
    be an error.
    """
    sha256 = hashlib.sha256()
    try:
        with replacing(Path(path)) if file.path.startswith("stacks/") else open(path, "xb") as stream:
            for piece in reader.pieces(file.size):
                sha256.update(piece)
                stream.write(piece)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}.") from error
    if sha256.hexdigest() != file.sha256:
        raise BundleError(f"{path} was altered: its digest differs")


class _Reader:
    """Reads a stream that comes in pieces."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces, self._rest = iter(pieces), b""

    def read(self, size: int) -> bytes:
        return b"".join(self.pieces(size))

    def pieces(self, size: int) -> Iterator[bytes]:
        """The next bytes, in pieces; raises a BundleError where the stream ends before."""
        while size:
            if not self._rest:
                self._rest = next(self._pieces, b"")
                if not self._rest and self.is_at_end():
                    raise BundleError(f"a bundle is torn: {size} bytes of it are missing")
            piece, self._rest = self._rest[:size], self._rest[size:]
            size -= len(piece)
            yield piece

    def is_at_end(self) -> bool:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return True
            self._rest = piece
        return False
