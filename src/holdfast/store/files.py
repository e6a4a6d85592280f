"""Write files atomically, as JSON, and compute their digests."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from holdfast.errors import StorageError

_ENCODE = json.JSONEncoder(allow_nan=False).encode  # json.dumps makes an encoder for each call

PARTIAL = ".part"
"""Suffix of files that are not complete yet."""

_FILE_PART = re.compile(rf"\..+\.\d+{re.escape(PARTIAL)}", re.DOTALL)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write a file under a temporary name and rename it when it is complete, so that readers never see a part of it.

    Args:
        path: the file to write or replace.

    Yields:
        A binary stream; the file is flushed to disk and renamed after the block.

    Raises:
        StorageError: the file cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with part.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise StorageError(f"{path} cannot be written: {error.strerror or error}.") from error
        raise


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, where they are missing.

    Raises:
        StorageError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{path} cannot be made: {error.strerror}.") from error


def remove_partial(path: Path) -> None:
    """Remove partial files that an earlier process left; no other process may write there meanwhile.

    Only the names that Holdfast gives are removed: files `.NAME.PROCESS.part`.
    """
    for part in path.glob(f".*{PARTIAL}"):
        if _FILE_PART.fullmatch(part.name) and not part.is_dir():
            part.unlink()


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, atomically; numbers that are not finite become null."""
    with replacing(path) as stream:
        stream.write(as_json(value))


def as_json(value: Any) -> bytes:
    """A value as JSON, with a line for each key and for each entry of a list of mappings.

    Numbers that are not finite become null.

    >>> print(as_json({"lr": float("nan"), "jobs": [{"a": 1}, {"a": 2}]}).decode(), end="")
    {
      "lr": null,
      "jobs": [
        {"a": 1},
        {"a": 2}
      ]
    }
    """
    try:
        return f"{_lines(value)}\n".encode()
    except ValueError:  # a number is not finite, which is rare: `finite` is slower than the encoder
        return f"{_lines(finite(value))}\n".encode()


def as_line(value: Any) -> bytes:
    """A value as JSON in one line; numbers that are not finite become null.

    >>> as_line({"lr": float("nan")}).decode().strip()
    '{"lr": null}'
    """
    try:
        return f"{_ENCODE(value)}\n".encode()
    except ValueError:
        return f"{_ENCODE(finite(value))}\n".encode()


def _lines(value: Any, indent: str = "") -> str:
    deeper = indent + "  "
    if isinstance(value, dict) and not indent:
        inner = [f"{_ENCODE(key)}: {_lines(item, deeper)}" for key, item in value.items()]
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        inner = [_ENCODE(item) for item in value]
    else:
        return _ENCODE(value)
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n{deeper}" + f",\n{deeper}".join(inner) + f"\n{indent}{closing}"


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        sha256 = hashlib.sha256()
        while chunk := stream.read(1 << 20):
            sha256.update(chunk)
    return sha256.hexdigest()


def write_whole(path: str, content: bytes) -> None:
    """Write a file, or replace it, without flushing it to disk; for thousands of files, whose paths are text for speed.

    Raises:
        StorageError: the file cannot be written.
    """
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(file, rest) :]
        finally:
            os.close(file)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}.") from error


def finite(value: Any) -> Any:
    """A copy of nested mappings and lists with None for every number that is not finite.

    >>> finite({"val/loss": float("nan"), "epoch": 3})
    {'val/loss': None, 'epoch': 3}
    """
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
