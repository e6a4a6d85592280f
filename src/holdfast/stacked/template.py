"""Files of many jobs that differ only in numbers: written once by the library they belong to, then filled in.

A file is made with marks in the place of every number and every tensor; where a mark lies in it, that of each job is
written. What is not found exactly as often as it should be makes the template unfit, and the library writes each file.
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


class UnfitError(Exception):
    """A mark was not found where it should be: the library must write the files itself."""


class Marks:
    """Stand-ins for what differs between jobs; no two are alike.

    >>> marks = Marks()
    >>> marks.number("lr") == marks.number("momentum")
    False
    """

    def __init__(self) -> None:
        self._generator = np.random.default_rng(20261122)
        self.numbers: dict[str, float] = {}
        self.tensors: dict[str, Tensor] = {}

    def number(self, name: str) -> float:
        """A number that will be another in each job; the same name is the same number."""
        if name not in self.numbers:
            # large and odd, as no setting is: eight bytes that stand nowhere else
            self.numbers[name] = float(self._generator.uniform(1e280, 1e290))
        return self.numbers[name]

    def tensor(self, name: str, like: Tensor) -> Tensor:
        """A tensor that will be another in each job."""
        if name not in self.tensors:
            raw = self._generator.integers(1, 256, like.numel() * like.element_size(), dtype=np.uint8)
            self.tensors[name] = torch.from_numpy(raw).view(like.dtype).view(like.shape)
        return self.tensors[name]


@dataclass(frozen=True)
class Template:
    """Bytes with places to fill in.

    Attributes:
        raw: the bytes.
        numbers: where each number lies, by name.
        order: the type of a number, with its order of bytes.
        tensors: where each tensor lies, by name: its start and its size.
        sums: parts that have a checksum: their start, their size, and where the checksum lies.
    """

    raw: Bytes
    numbers: Mapping[str, list[int]]
    order: str
    tensors: Mapping[str, tuple[int, int]]
    sums: list[tuple[int, int, list[int]]]

    @classmethod
    def of_message(cls, message: bytes, marks: Marks) -> Template:
        """A protocol buffer: numbers only, each in eight bytes."""
        return cls(np.frombuffer(message, np.uint8), _numbers(message, marks, "<f8"), "<f8", {}, [])

    @classmethod
    def of_archive(cls, value: Any, marks: Marks) -> Template:
        """What torch.save writes: a zip whose entries are a pickle and the bytes of each tensor, none compressed.

        Raises:
            UnfitError: this torch writes its files in another way.
        """
        stream = io.BytesIO()
        torch.save(value, stream)
        raw = stream.getvalue()
        numbers, tensors, sums = {}, {}, []
        wanted = {_bytes_of(tensor): name for name, tensor in marks.tensors.items()}
        with zipfile.ZipFile(stream) as archive:
            for entry in archive.infolist():
                content = archive.read(entry)
                is_pickle = entry.filename.endswith("/data.pkl")
                if not is_pickle and content not in wanted:
                    continue
                start = entry.header_offset + 30 + int.from_bytes(raw[entry.header_offset + 26 :][:2], "little")
                start += int.from_bytes(raw[entry.header_offset + 28 :][:2], "little")
                if raw[start : start + len(content)] != content:
                    raise UnfitError(f"{entry.filename} is not stored as it is")
                if is_pickle:
                    numbers = {
                        name: [start + place for place in places]
                        for name, places in _numbers(content, marks, ">f8").items()
                    }
                else:
                    tensors[wanted[content]] = (start, len(content))
                checksum = entry.CRC.to_bytes(4, "little")
                sums.append((start, len(content), _places(raw, checksum, 2)))
        if tensors.keys() != marks.tensors.keys():
            raise UnfitError(f"not all of {sorted(marks.tensors)} are stored by themselves")
        return cls(np.frombuffer(raw, np.uint8), numbers, ">f8", tensors, sums)

    def fill(self, numbers: Mapping[str, NDArray[np.float64]], tensors: Mapping[str, Tensor]) -> Bytes:
        """The bytes of every job.

        Args:
            numbers: by name, shape `(jobs,)`.
            tensors: by name, shape `(jobs, ...)`, on the CPU.

        Returns:
            Shape `(jobs, bytes)`.
        """
        jobs = _jobs(numbers, tensors)
        filled = np.repeat(self.raw[np.newaxis], jobs, axis=0)
        for name, places in self.numbers.items():
            value = numbers[name].astype(self.order).view(np.uint8).reshape(jobs, 8)
            for place in places:
                filled[:, place : place + 8] = value
        for name, (start, size) in self.tensors.items():
            value = tensors[name].reshape(-1).view(torch.uint8).numpy().reshape(jobs, size)
            filled[:, start : start + size] = value
        for start, size, places in self.sums:
            checksums = [zlib.crc32(row) for row in np.ascontiguousarray(filled[:, start : start + size])]
            value = np.array(checksums, dtype="<u4").view(np.uint8).reshape(jobs, 4)
            for place in places:
                filled[:, place : place + 4] = value
        return filled


def archives(
    tree: Callable[[Any], Any], marks: Marks, numbers: Mapping[str, NDArray[np.float64]], tensors: Mapping[str, Tensor]
) -> list[bytes]:
    """What torch.save makes of the same tree with the numbers and tensors of each job.

    Args:
        tree: makes the tree from something with `number(name)` and `tensor(name, like)`.
        marks: unused ones.
        numbers: by name, shape `(jobs,)`.
        tensors: by name, shape `(jobs, ...)`, on the CPU.
    """
    try:
        filled = Template.of_archive(tree(marks), marks).fill(numbers, tensors)
        return [row.tobytes() for row in filled]
    except UnfitError:
        return [_saved(tree(_Values(numbers, tensors, job))) for job in range(_jobs(numbers, tensors))]


def _jobs(numbers: Mapping[str, NDArray[np.float64]], tensors: Mapping[str, Tensor]) -> int:
    return len(next(iter(numbers.values()))) if numbers else len(next(iter(tensors.values())))


class _Values:
    """The numbers and tensors of one job, where `Marks` has stand-ins."""

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


def _numbers(content: bytes, marks: Marks, order: str) -> dict[str, list[int]]:
    """Where each number lies; it may stand in several places."""
    return {name: _places(content, np.array([value], dtype=order).tobytes()) for name, value in marks.numbers.items()}


def _places(content: bytes, wanted: bytes, times: int | None = None) -> list[int]:
    found, place = [], content.find(wanted)
    while place >= 0:
        found.append(place)
        place = content.find(wanted, place + 1)
    if not found or (times is not None and len(found) != times):
        raise UnfitError(f"found {len(found)} times")
    return found
