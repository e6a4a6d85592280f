"""Claim a new folder, and lock a folder while a process works in it."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from holdfast.config.commands import resume_command
from holdfast.errors import FolderError
from holdfast.store.files import remove_partial
from holdfast.store.folders import RunFolder, SweepFolder

LONGEST_WAIT = 60.0
"""Longest time to wait for the first process of a launch, in seconds."""


def claim(path: Path, *, chosen: bool, key: str = "hydra.run.dir", flags: Sequence[str] = ()) -> Path:
    """Make a folder that no other run uses.

    Args:
        path: the preferred folder.
        chosen: whether the user chose its name, which is then never changed. A default name that is taken gets
            the suffix _2, _3 and so on, so that two runs started in the same second never share a folder.
        key: the key of the configuration that names the folder, for messages.
        flags: those of the command line that say where configurations lie, for messages.

    Returns:
        The folder that was made.

    Raises:
        FolderError: the folder that the user chose already holds files, or the folder cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            candidate = path if number == 1 else path.with_name(f"{path.name}_{number}")
            try:
                candidate.mkdir()
                return candidate
            except FileExistsError:
                if chosen and (not path.is_dir() or any(item.name != RunFolder.LOCK for item in path.iterdir())):
                    begun = RunFolder(path).started.exists() and key == "hydra.run.dir"
                    remedy = f"To resume the run in it: {resume_command(path, flags, sweep=False)}\n" if begun else ""
                    raise FolderError(
                        f"{key}={path} already holds files; nothing was run and nothing was overwritten.\n"
                        f"{remedy}Choose another folder, or leave {key} out to get a new one."
                    ) from None
                if chosen:
                    return path
    except OSError as error:
        raise FolderError(f"The folder {path} cannot be made: {error.strerror}.") from error
    raise AssertionError("count() never ends")


@contextmanager
def locked(path: Path, launch: str = "") -> Iterator[None]:
    """Lock a folder for this process, and remove partial files of earlier ones.

    The operating system owns the lock and releases it when the process dies.

    Args:
        path: the folder.
        launch: name of the launch whose other processes wait for this one, see `await_leader`.

    Raises:
        FolderError: another process has locked the folder; the message names it.
    """
    while True:
        lock = os.open(path / RunFolder.LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 200).decode(errors="replace").strip() or "another process"
            os.close(lock)
            raise FolderError(f"{path} is in use by {holder}; nothing was run. Wait for it, or stop it.") from None
        if is_same_file(path / RunFolder.LOCK, lock):
            break
        os.close(lock)  # the previous holder removed the file after this process had opened it
    try:
        os.truncate(lock, 0)
        os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}{_suffix(launch)}".encode(), 0)
        remove_partial(path)
        for folder in (RunFolder(path).figures, SweepFolder(path).stacks):
            remove_partial(folder)
        yield
    finally:
        (path / RunFolder.LOCK).unlink(missing_ok=True)
        os.close(lock)


def await_leader(path: Path, launch: str) -> None:
    """Wait until the first process of a launch has locked a folder and started its run there.

    Args:
        path: the folder.
        launch: name of the launch.

    Raises:
        FolderError: this did not happen within `LONGEST_WAIT`.
    """
    deadline = time.monotonic() + LONGEST_WAIT
    while not (RunFolder(path).started.exists() and _holder(path).endswith(_suffix(launch))):
        if time.monotonic() > deadline:
            raise FolderError(
                f"{path}: the first process of {launch} has begun no run there within {LONGEST_WAIT:.0f} s; "
                "what that process printed says why. This one did nothing."
            )
        time.sleep(0.1)


def _suffix(launch: str) -> str:
    return f", {launch}" if launch else ""


def _holder(path: Path) -> str:
    try:
        return (path / RunFolder.LOCK).read_text(errors="replace")
    except OSError:
        return ""


def is_same_file(path: Path, descriptor: int) -> bool:
    """Whether a path still names the file with this descriptor."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
