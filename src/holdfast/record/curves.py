"""What the jobs of a stack log while they train, in a file that is only appended to: losses, metrics, parameter paths.

The file is a sequence of blocks, each of the NumPy arrays of `Block`, as `numpy.lib.format` writes them. An array is
read and written a block at a time, so that memory does not grow with the number of iterations.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from holdfast.errors import CheckpointError, StorageError

_MOST_PENDING = 1 << 26  # bytes of losses that are held in memory
_Array = NDArray[Any]


class Block(NamedTuple):
    """Some iterations and the ends of some epochs.

    Attributes:
        clock: pairs of a number of iterations and the time at which it was reached, in seconds since 1970, shape
            `(readings, 2)`.
        losses: of every iteration, shape `(iterations, jobs)`; NaN where a job was over.
        ended: end of each epoch, in seconds since 1970, shape `(epochs,)`.
        metrics: at the end of each epoch, shape `(epochs, metrics, jobs)`; NaN where a job was over.
        points: of the parameter paths of models with two parameters, shape `(points, 2, jobs)`.
        moments: at which values were logged through Lightning: the step, the iterations before the epoch where it is
            the end of one and otherwise -1, and the time in seconds since 1970, shape `(moments, 3)`.
        is_logged: whether each name was logged at each moment, shape `(moments, names)`.
        logged: the values, shape `(moments, names, jobs)`.
    """

    clock: _Array
    losses: _Array
    ended: _Array
    metrics: _Array
    points: _Array
    moments: _Array
    is_logged: _Array
    logged: _Array


class Position(NamedTuple):
    """A place in the file: the bytes before it, and their digest."""

    size: int
    sha256: str


class Curves:
    """The curves of the jobs of a stack.

    Args:
        jobs: number of jobs.
        path: the file; None to hold everything in memory.

    Attributes:
        names: names of the metrics, once the first epoch has ended.
        logged_names: names of what was logged through Lightning so far.
    """

    def __init__(self, jobs: int, path: Path | None = None) -> None:
        self._jobs, self._path = jobs, path
        self._memory = io.BytesIO()
        self._size, self._sha256 = 0, hashlib.sha256()
        self.names: tuple[str, ...] = ()
        self.logged_names: list[str] = []
        self._clear()

    def _clear(self) -> None:
        self._clock: list[tuple[float, float]] = []
        self._losses: list[_Array] = []
        self._ended: list[float] = []
        self._metrics: list[_Array] = []
        self._points: list[_Array] = []
        self._logged: list[tuple[tuple[float, float, float], dict[str, _Array]]] = []
        self._pending = 0

    def add_iterations(self, count: int, losses: _Array, points: _Array | None) -> None:
        """Add some iterations.

        Args:
            count: number of iterations up to their end, over all epochs.
            losses: shape `(iterations, jobs)`.
            points: of the parameter paths, shape `(points, 2, jobs)`; None where they are not recorded.
        """
        self._clock.append((count, time.time()))
        self._losses.append(losses)
        if points is not None and len(points):
            self._points.append(points)
        self._hold(losses.nbytes + (0 if points is None else points.nbytes))

    def add_epoch(self, metrics: Mapping[str, _Array]) -> None:
        """Add the metrics at the end of an epoch, each of shape `(jobs,)`."""
        self.names = self.names or tuple(metrics)
        self._ended.append(time.time())
        self._metrics.append(np.stack([metrics[name] for name in self.names]))
        self._hold(self._metrics[-1].nbytes)

    def add_logged(self, step: int, epoch_start: int, values: Mapping[str, _Array]) -> None:
        """Add values that were logged through Lightning, each of shape `(jobs,)`; see `Block.moments`."""
        self.logged_names += [name for name in values if name not in self.logged_names]
        self._logged.append(((step, epoch_start, time.time()), dict(values)))
        self._hold(8 * self._jobs * len(values))

    def _hold(self, size: int) -> None:
        """Count some more bytes, and flush where there are too many: an epoch may be longer than any snapshot."""
        self._pending += size
        if self._pending > _MOST_PENDING:
            self.flush()

    def flush(self) -> Position:
        """Append what was added since the last call to the file; returns the end of the file.

        Raises:
            StorageError: the file cannot be written; what was added is not lost.
        """
        if self._clock or self._ended or self._logged:
            content = self._encoded()
            if self._path is None:
                self._memory.write(content)
            else:
                _append(self._path, self._size, content)
            self._size += len(content)
            self._sha256.update(content)
            self._clear()
        return Position(self._size, self._sha256.hexdigest())

    def _encoded(self) -> bytes:
        stream = io.BytesIO()
        dtype = self._losses[0].dtype if self._losses else np.float32
        logged = np.full((len(self._logged), len(self.logged_names), self._jobs), np.nan)
        is_logged = np.zeros(logged.shape[:2], dtype=bool)
        for row, (_, values) in enumerate(self._logged):
            for name, of_jobs in values.items():
                column = self.logged_names.index(name)
                logged[row, column], is_logged[row, column] = of_jobs, True
        for array in Block(
            np.array(self._clock, dtype=np.float64).reshape(-1, 2),
            np.concatenate(self._losses) if self._losses else np.empty((0, self._jobs), dtype),
            np.array(self._ended, dtype=np.float64),
            np.stack(self._metrics) if self._metrics else np.empty((0, len(self.names), self._jobs)),
            np.concatenate(self._points) if self._points else np.empty((0, 2, self._jobs), dtype),
            np.array([moment for moment, _ in self._logged], dtype=np.float64).reshape(-1, 3),
            is_logged,
            logged,
        ):
            npy.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)
        return stream.getvalue()

    def resume(self, position: Position, names: Sequence[str], logged_names: Sequence[str] = ()) -> None:
        """Take up what is in the file up to a place; what follows is ignored, and overwritten by the next `flush`.

        Raises:
            CheckpointError: the file is not the one in which this place was.
        """
        assert self._path is not None
        self._sha256 = _checked(self._path, position)
        self._size, self.names, self.logged_names = position.size, tuple(names), list(logged_names)

    def blocks(self) -> Iterator[Block]:
        """The blocks of the file, in order."""
        self.flush()
        if self._path is None:
            yield from _blocks(io.BytesIO(self._memory.getvalue()), self._size)
            return
        with self._path.open("rb") as stream:
            yield from _blocks(stream, self._size)

    @cached_property
    def has_points(self) -> bool:
        """Whether parameter paths are recorded."""
        return len(next(self.blocks()).points) > 0

    def of_jobs(self, jobs: Sequence[int]) -> Block:
        """All blocks as one, of some jobs only."""
        parts = [self._of_jobs(block, jobs) for block in self.blocks()]
        return Block(*(_joined(arrays) for arrays in zip(*parts, strict=True)))

    def _of_jobs(self, block: Block, jobs: Sequence[int]) -> Block:
        later = len(self.logged_names) - block.is_logged.shape[1]  # names that were not known yet
        return block._replace(
            losses=block.losses[:, jobs],
            metrics=block.metrics[..., jobs],
            points=block.points[..., jobs],
            is_logged=np.pad(block.is_logged, ((0, 0), (0, later))),
            logged=np.pad(block.logged[..., jobs], ((0, 0), (0, later), (0, 0))),
        )


def _checked(path: Path, position: Position) -> Any:
    """The running digest of the file up to a place in it."""
    sha256, left = hashlib.sha256(), position.size
    try:
        with path.open("rb") as stream:
            while left and (part := stream.read(min(left, 1 << 20))):
                sha256.update(part)
                left -= len(part)
    except OSError as error:
        if position.size:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from None
    if left:
        raise CheckpointError(f"{path} cannot be read: it is incomplete.")
    if sha256.hexdigest() != position.sha256:
        raise CheckpointError(f"{path} cannot be read: it was changed after it was written: its digest differs.")
    return sha256


def _blocks(stream: IO[bytes], size: int) -> Iterator[Block]:
    while stream.tell() < size:
        yield Block(*(npy.read_array(stream, allow_pickle=False) for _ in Block._fields))


def _joined(arrays: Sequence[_Array]) -> _Array:
    """Arrays as one; before the first epoch a block does not know how many metrics there are."""
    return np.concatenate([array for array in arrays if len(array)] or [arrays[0]])


def _append(path: Path, size: int, content: bytes) -> None:
    """Write at the end of the first `size` bytes of a file, and flush it to disk."""
    try:
        with path.open("r+b" if path.exists() else "wb") as stream:
            stream.truncate(size)  # an attempt that failed may have left a part
            stream.seek(size)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}.") from error
