"""The folder of the tables that were converted: one folder a table, by a digest of its files and keys."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.caching.checked_json import read_checked, write_checked
from holdfast.errors import StorageError, TableError
from holdfast.store.files import digest
from holdfast.store.lock import is_same_file

_VERSION = 1
_DIGESTS = "digests.json"


class CachedFiles(NamedTuple):
    """The files of one table.

    Attributes:
        path: their folder.
    """

    path: Path

    @property
    def table(self) -> Path:
        """Encoding, splits and checksums; written last."""
        return self.path / "table.json"

    @property
    def about(self) -> Path:
        """Which files are converted; written first."""
        return self.path / "about.json"

    @property
    def progress(self) -> Path:
        """How far the files are read."""
        return self.path / "progress.json"

    @property
    def raw(self) -> Path:
        """The columns as doubles, until they are encoded."""
        return self.path / "raw"

    @property
    def splits(self) -> Path:
        """The split of each row, until they are written."""
        return self.path / "splits"

    @property
    def rows(self) -> list[Path]:
        """The rows of training, validation and test."""
        return [self.path / f"{name}.rows" for name in ("train", "val", "test")]

    @property
    def lock(self) -> Path:
        """Locked while the table is converted."""
        return self.path / ".lock"

    @property
    def remedy(self) -> str:
        """The command that removes the table."""
        return f"holdfast cache clear {self.path.name} --dir {shlex.quote(str(self.path.parent))}"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.stat().st_size for file in self.path.iterdir() if file.is_file())

    def described(self) -> str:
        """A line about the table: its folder, size and rows, and the files that it was made from."""
        state = "not complete"
        with suppress(OSError, ValueError, KeyError):
            state = f"{read_checked(self.table)['rows']:,} rows"
        names = "?"
        with suppress(OSError, ValueError, KeyError):
            names = ", ".join(read_checked(self.about)["files"])
        return f"{self.path.name}  {gigabytes(self.size):>9}  {state}  {names}"

    def is_locked(self) -> bool:
        """Whether a process converts the table at this moment."""
        try:
            lock = os.open(self.lock, os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def remove(self) -> None:
        """Remove the files that were written here, and the folder if nothing else is in it."""
        for file in (self.table, self.progress, self.raw, self.splits, *self.rows, self.about, self.lock):
            file.unlink(missing_ok=True)
        if not any(self.path.iterdir()):
            self.path.rmdir()


class CacheFolder:
    """The folder `data.cache_dir`.

    Args:
        path: the folder, which is made when it is first needed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made = [
            folder for folder in (path, *path.parents) if not folder.exists()
        ]  # from here on, by this process
        self._digests: dict[str, Any] = {}  # by path, with the state of the file in which its digest was taken
        with suppress(OSError, ValueError):
            self._digests = read_checked(path / _DIGESTS)

    def files_of(self, keys: Mapping[str, Any], digests: Sequence[tuple[int, str]]) -> CachedFiles:
        """The folder of a table.

        Args:
            keys: of the data group, those that name files left out.
            digests: the split and the digest of each file, in order.
        """
        text = json.dumps([_VERSION, sorted(keys.items()), digests], default=str)
        return CachedFiles(self.path / hashlib.sha256(text.encode()).hexdigest()[:16])

    def digest(self, file: Path) -> tuple[str, list[int]]:
        """The sha256 of a file, and its `stamp`; a file that is as it was when its digest was taken is not read again.

        Raises:
            TableError: it cannot be read.
        """
        name, now = str(file.resolve()), stamp(file)
        if self._digests.get(name, [None])[0] != now:
            try:
                self._digests[name] = [now, digest(file)]
            except OSError as error:
                raise TableError(f"{file} cannot be read: {error.strerror or error}.") from None
        return self._digests[name][1], now

    def save_digests(self) -> None:
        """Write down the digests that were taken."""
        write_checked(self.path / _DIGESTS, self._digests)

    def remove_made(self) -> None:
        """Remove the folders that this process has made, as far as they are empty."""
        for folder in self._made:
            with suppress(OSError):
                folder.rmdir()

    def remove_if_empty(self) -> None:
        """Remove the folder if it holds no tables any more."""
        if not self.tables():
            (self.path / _DIGESTS).unlink(missing_ok=True)
            with suppress(OSError):
                self.path.rmdir()

    def tables(self) -> list[CachedFiles]:
        """All tables, also those that were not converted to the end."""
        return [CachedFiles(about.parent) for about in sorted(self.path.glob("*/about.json"))]

    def check_free(self, needed: int, what: str) -> None:
        """Check that the disk has room.

        Args:
            needed: bytes.
            what: is converted, for the message.

        Raises:
            StorageError: it has not.
        """
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise StorageError(
                f"{self.path} has {gigabytes(free)} free, and to convert {what} takes about {gigabytes(needed)}: make "
                f"room (holdfast cache list --dir {shlex.quote(str(self.path))} shows what can go), or give a folder "
                "on another disk as data.cache_dir."
            )


def make_folder(path: Path) -> None:
    """Make a folder, and those above it.

    Raises:
        StorageError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"The folder {path} cannot be made: {error.strerror or error}. Give another one as data.cache_dir."
        ) from None


def stamp(file: Path) -> list[int]:
    """Size and times of a file: they change when it does.

    Raises:
        TableError: it is gone.
    """
    try:
        state = file.stat()
    except OSError as error:
        raise TableError(f"{file} cannot be read: {error.strerror or error}.") from None
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]


def gigabytes(size: int) -> str:
    """A number of bytes for people.

    >>> gigabytes(3_200_000_000), gigabytes(4_100_000)
    ('3.2 GB', '4.1 MB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


@contextmanager
def converting(files: CachedFiles) -> Iterator[None]:
    """Hold the lock of a table while it is converted; wait while another process holds it.

    The operating system releases the lock when a process dies.
    """
    waits = False
    while True:
        make_folder(files.path)  # the process that was waited for may have removed it
        try:
            lock = os.open(files.lock, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            if not waits:
                print(f"waiting for another process, which converts the table to {files.path}", flush=True)
            waits = True
            time.sleep(0.2)
            continue
        if is_same_file(files.lock, lock):
            break
        os.close(lock)
    try:
        yield
    finally:
        os.close(lock)
