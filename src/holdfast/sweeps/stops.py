"""What is said where a signal, a cluster, or a file that cannot be written stops a sweep: how it is resumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from holdfast.config.commands import resume_command
from holdfast.errors import ClusterError, Stopped, StorageError
from holdfast.store.folders import SweepFolder


@contextmanager
def resumable(folder: SweepFolder, flags: Sequence[str], keys: Sequence[str] = ()) -> Iterator[None]:
    """Add the command that resumes the sweep to what stops it; none before `sweep.json` is written.

    Args:
        folder: folder of the sweep.
        flags: those of the present command line that say where configurations lie, such as `--config-dir`.
        keys: overrides that have to be typed again, since no folder records them.

    Raises:
        Stopped: a signal has arrived.
        StorageError: a file could not be written.
        ClusterError: a cluster has not done all jobs.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        raise Stopped.of(stop, _command(folder, flags, keys)) from None
    except ClusterError as error:
        raise type(error)(f"{error}\nNothing was concluded{_remedy(folder, flags, keys)}") from None
    except (StorageError, OSError) as error:
        storage = error if isinstance(error, StorageError) else StorageError.of(error)
        if storage is None:
            raise
        raise StorageError(f"{storage}\nNothing was concluded{_remedy(folder, flags, keys)}") from error


def _remedy(folder: SweepFolder, flags: Sequence[str], keys: Sequence[str]) -> str:
    command = _command(folder, flags, keys)
    return f"; to resume: {command}" if command else ""


def _command(folder: SweepFolder, flags: Sequence[str], keys: Sequence[str]) -> str | None:
    return resume_command(folder.path, flags, keys, sweep=True) if folder.sweep.exists() else None
