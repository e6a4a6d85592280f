"""The arrays of a sweep in its `sweep.json`, so that a driver that comes later waits for what still runs."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from holdfast.clusters.slurm_queue import Element
from holdfast.errors import FolderError
from holdfast.execute.work import Work
from holdfast.store.files import write_json
from holdfast.store.folders import SweepFolder
from holdfast.store.started import read_sweep

KEY = "slurm"
"""The key of `sweep.json`."""

_NAME = re.compile(r"holdfast-[0-9a-f]{12}-\d+")


class WorkKey(NamedTuple):
    """What identifies a work: its kind, and the numbers of its jobs."""

    kind: Literal["stack", "alone"]
    jobs: tuple[int, ...]

    @classmethod
    def of(cls, work: Work) -> WorkKey:
        """The key of a work."""
        return cls(work.kind, tuple(job.number for job in work.jobs))


class Array(NamedTuple):
    """An array that was submitted, or was about to be.

    Attributes:
        name: display name, which no other array has.
        number: that SLURM has given; None where the driver was killed before it could be written.
        works: what its elements do.
    """

    name: str
    number: str | None
    works: tuple[WorkKey, ...]


class SlurmRecord:
    """The arrays of a sweep, in the order in which they were submitted.

    Args:
        folder: folder of the sweep.

    Raises:
        FolderError: what `sweep.json` says of arrays cannot be read.

    Attributes:
        arrays: as they are recorded.
    """

    def __init__(self, folder: SweepFolder) -> None:
        self._folder = folder
        try:
            self.arrays = [_array(entry) for entry in read_sweep(folder).get(KEY, [])]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise FolderError(f"{folder.sweep} cannot be read: {error!r}. Start anew in another folder.") from None

    def add(self, works: Sequence[Work]) -> Array:
        """Record an array before it is submitted; it has no number yet."""
        token = self.arrays[0].name.split("-")[1] if self.arrays else secrets.token_hex(6)
        array = Array(f"holdfast-{token}-{len(self.arrays)}", None, tuple(map(WorkKey.of, works)))
        self._write([*self.arrays, array])
        return array

    def set_number(self, array: Array, number: str) -> None:
        """Record the number of an array."""
        self._write([each._replace(number=number) if each.name == array.name else each for each in self.arrays])

    def remove(self, array: Array) -> None:
        """Forget an array that was not submitted."""
        self._write([each for each in self.arrays if each.name != array.name])

    def elements(self) -> dict[WorkKey, Element]:
        """The element to which each work was given last."""
        return {key: Element(array.name, index) for array in self.arrays for index, key in enumerate(array.works)}

    def as_submitted(self, work: Work) -> list[Work]:
        """A planned work as it was submitted last: a stack may have become two halves, or jobs that train alone."""
        latest = {number: key for array in self.arrays for key in array.works for number in key.jobs}
        parts = dict.fromkeys(latest.get(job.number) for job in work.unfinished)
        jobs = {job.number: job for job in work.jobs}
        if None in parts or any(not jobs.keys() >= {*key.jobs} for key in parts if key):
            return [work]
        return [
            work._replace(
                kind=key.kind,
                jobs=tuple(jobs[number] for number in key.jobs),
                by_steps=work.by_steps and key.kind == "stack",
            )
            for key in parts
            if key
        ]

    def _write(self, arrays: list[Array]) -> None:
        entries = [
            {"name": each.name, "array": each.number, "works": [key._asdict() for key in each.works]} for each in arrays
        ]
        write_json(self._folder.sweep, {**read_sweep(self._folder), KEY: entries})
        self.arrays = arrays


def _array(entry: Mapping[str, Any]) -> Array:
    """An array as `sweep.json` records it; its name becomes a word of a command."""
    name, number = entry["name"], entry["array"]
    if not _NAME.fullmatch(name) or not (number is None or number.isdecimal()):
        raise ValueError(f"the array {name!r} is none of Holdfast's")
    works = tuple(WorkKey(work["kind"], tuple(map(int, work["jobs"]))) for work in entry["works"])
    if any(work.kind not in ("stack", "alone") for work in works):
        raise ValueError("a work is of another kind")
    return Array(name, number, works)
