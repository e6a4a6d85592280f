"""Files of many jobs that differ in numbers and tensors alone: encoded once by their library, then filled in.

The library encodes placeholders for every number and every tensor; at their offsets the bytes of each job are written.
If a placeholder does not occur exactly as often as expected, the library encodes each file instead.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Bytes = NDArray[np.uint8]

_PICKLED = ">f8"  # how a pickle holds a float


class UnfitError(Exception):
    """A placeholder does not occur as expected: the library has to encode each file."""


class Placeholders:
    """Unique values for the numbers and tensors that differ between jobs.

    >>> placeholders = Placeholders()
    >>> placeholders.number("lr") == placeholders.number("momentum")
    False
    """

    def __init__(self) -> None:
        self._generator = np.random.default_rng(20261122)
        self.numbers: dict[str, float] = {}
        self.tensors: dict[str, Tensor] = {}

    def number(self, name: str) -> float:
        """The placeholder of a number; always the same for the same name."""
        if name not in self.numbers:
            # larger than any setting, so that its eight bytes occur nowhere else
            self.numbers[name] = float(self._generator.uniform(1e280, 1e290))
        return self.numbers[name]

    def tensor(self, name: str, like: Tensor) -> Tensor:
        """The placeholder of a tensor, with the shape and type of `like`."""
        if name not in self.tensors:
            raw = self._generator.integers(1, 256, like.numel() * like.element_size(), dtype=np.uint8)
            self.tensors[name] = torch.from_numpy(raw).view(like.dtype).view(like.shape)
        return self.tensors[name]


@dataclass(frozen=True)
class Template:
    """An encoded file with the offsets of its placeholders. Offsets and sizes are in bytes.

    Attributes:
        raw: the file, shape `(bytes,)`.
        numbers: the offsets of each number, by name.
        tensors: the offset and the size of each tensor, by name.
        checksums: offset and size of each part that has a checksum, and the offsets of the checksum.
    """

    raw: Bytes
    numbers: Mapping[str, list[int]]
    tensors: Mapping[str, tuple[int, int]]
    checksums: list[tuple[int, int, list[int]]]

    @classmethod
    def of_archive(cls, value: Any, placeholders: Placeholders) -> Template:
        """The template of what `torch.save` writes: an uncompressed zip of a pickle and the bytes of each tensor.

        Raises:
            UnfitError: this version of torch writes its files in another way.
        """
        stream = io.BytesIO()
        torch.save(value, stream)
        raw = stream.getvalue()
        numbers, tensors, checksums = {}, {}, []
        names = {_bytes_of(tensor): name for name, tensor in placeholders.tensors.items()}
        with zipfile.ZipFile(stream) as archive:
            for entry in archive.infolist():
                content = archive.read(entry)
                is_pickle = entry.filename.endswith("/data.pkl")
                if not is_pickle and content not in names:
                    continue
                start = entry.header_offset + 30 + int.from_bytes(raw[entry.header_offset + 26 :][:2], "little")
                start += int.from_bytes(raw[entry.header_offset + 28 :][:2], "little")
                if raw[start : start + len(content)] != content:
                    raise UnfitError(f"{entry.filename} is not stored as it is")
                if is_pickle:
                    numbers = {
                        name: [start + offset for offset in offsets]
                        for name, offsets in _number_offsets(content, placeholders).items()
                    }
                else:
                    tensors[names[content]] = (start, len(content))
                checksum = entry.CRC.to_bytes(4, "little")
                checksums.append((start, len(content), _offsets(raw, checksum, 2)))
        if tensors.keys() != placeholders.tensors.keys():
            raise UnfitError(f"not all of {sorted(placeholders.tensors)} are stored by themselves")
        return cls(np.frombuffer(raw, np.uint8), numbers, tensors, checksums)

    def fill(self, numbers: Mapping[str, NDArray[np.float64]], tensors: Mapping[str, Tensor]) -> Bytes:
        """The files of all jobs.

        Args:
            numbers: by name, shape `(jobs,)`.
            tensors: by name, shape `(jobs, ...)`, on the CPU.

        Returns:
            Shape `(jobs, bytes)`.
        """
        jobs = _jobs(numbers, tensors)
        filled = np.repeat(self.raw[np.newaxis], jobs, axis=0)
        for name, offsets in self.numbers.items():
            value = numbers[name].astype(_PICKLED).view(np.uint8).reshape(jobs, 8)
            for offset in offsets:
                filled[:, offset : offset + 8] = value
        for name, (start, size) in self.tensors.items():
            value = tensors[name].reshape(-1).view(torch.uint8).numpy().reshape(jobs, size)
            filled[:, start : start + size] = value
        for start, size, offsets in self.checksums:
            crcs = [zlib.crc32(row) for row in np.ascontiguousarray(filled[:, start : start + size])]
            value = np.array(crcs, dtype="<u4").view(np.uint8).reshape(jobs, 4)
            for offset in offsets:
                filled[:, offset : offset + 4] = value
        return filled


def archives(
    value: Callable[[Any], Any],
    placeholders: Placeholders,
    numbers: Mapping[str, NDArray[np.float64]],
    tensors: Mapping[str, Tensor],
) -> list[bytes]:
    """What `torch.save` writes of a value with the numbers and tensors of each job.

    Args:
        value: builds the value from an object with the methods `number(name)` and `tensor(name, like)`.
        placeholders: placeholders that are not in use yet.
        numbers: by name, shape `(jobs,)`.
        tensors: by name, shape `(jobs, ...)`, on the CPU.
    """
    try:
        filled = Template.of_archive(value(placeholders), placeholders).fill(numbers, tensors)
        return [row.tobytes() for row in filled]
    except UnfitError:
        return [_saved(value(_Values(numbers, tensors, job))) for job in range(_jobs(numbers, tensors))]


def _jobs(numbers: Mapping[str, NDArray[np.float64]], tensors: Mapping[str, Tensor]) -> int:
    return len(next(iter(numbers.values()))) if numbers else len(next(iter(tensors.values())))


class _Values:
    """The numbers and tensors of one job, with the methods of `Placeholders`."""

    def __init__(self, numbers: Mapping[str, Any], tensors: Mapping[str, Tensor], job: int) -> None:
        self._numbers, self._tensors, self._job = numbers, tensors, job

    def number(self, name: str) -> float:
        return float(self._numbers[name][self._job])

    def tensor(self, name: str, like: Tensor) -> Tensor:
        return self._tensors[name][self._job].clone()


def _saved(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def _bytes_of(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def _number_offsets(content: bytes, placeholders: Placeholders) -> dict[str, list[int]]:
    """The offsets of each number; it may occur several times."""
    return {
        name: _offsets(content, np.array([value], dtype=_PICKLED).tobytes())
        for name, value in placeholders.numbers.items()
    }


def _offsets(content: bytes, value: bytes, times: int | None = None) -> list[int]:
    """The offsets of some bytes; they have to occur `times` times, or at least once."""
    offsets, offset = [], content.find(value)
    while offset >= 0:
        offsets.append(offset)
        offset = content.find(value, offset + 1)
    if not offsets or (times is not None and len(offsets) != times):
        raise UnfitError(f"found {len(offsets)} times")
    return offsets
