"""Works handed to SLURM: their assignments are written, and arrays submitted and recorded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from holdfast.clusters.slurm_keys import SlurmKeys
from holdfast.clusters.slurm_queue import Element, submit
from holdfast.clusters.slurm_record import SlurmRecord
from holdfast.clusters.slurm_script import ArrayJob, script
from holdfast.errors import ClusterError
from holdfast.execute.work import Work
from holdfast.runtime.signals import deferred
from holdfast.store.files import replacing
from holdfast.store.folders import SweepFolder
from holdfast.store.work_folder import WorkFolder
from holdfast.workers.hand_over import HandOver

MOST_ELEMENTS = 1000
"""Largest number of elements of an array: SLURM's own default limit."""

LOGS = "slurm"
"""Name of the folder in that of a sweep where elements write what they print."""


class Submission:
    """Submits works as arrays, one element a work.

    Args:
        hand_over: makes their assignments.
        folder: folder of the sweep.
        keys: what the user asks for.
        record: the arrays of the sweep.
    """

    def __init__(self, hand_over: HandOver, folder: SweepFolder, keys: SlurmKeys, record: SlurmRecord) -> None:
        self._hand_over, self._folder, self._keys, self._record = hand_over, folder, keys, record
        self._logs = folder.path.absolute() / LOGS

    def submit(self, works: Sequence[Work]) -> Iterator[tuple[Element, Work]]:
        """Submit works; yields each with its element, array after array.

        Raises:
            ClusterError: SLURM refuses them; those of earlier arrays go on.
        """
        for (tasks, nodes), group in _by_size(works).items():
            for first in range(0, len(group), MOST_ELEMENTS):
                chunk = group[first : first + MOST_ELEMENTS]
                yield from self._submit(chunk, tasks, nodes)

    def log(self, element: Element) -> Path:
        """Where an element writes what it prints."""
        return self._logs / f"{self.label(element)}.log"

    def label(self, element: Element) -> str:
        """An element as SLURM's commands name it, such as `12_3`."""
        numbers = {array.name: array.number for array in self._record.arrays}
        return f"{numbers.get(element.name) or element.name}_{element.number}"

    def remove_logs(self) -> None:
        """Remove the folder of the logs, if it is empty."""
        if self._logs.is_dir() and not any(self._logs.iterdir()):
            self._logs.rmdir()

    def _submit(self, works: Sequence[Work], tasks: int, nodes: int) -> list[tuple[Element, Work]]:
        self._logs.mkdir(exist_ok=True)
        elements = [(work.jobs[0].number, self._assign(work)) for work in works]
        folder = WorkFolder.of(self._folder, 0).path.parent
        with deferred():  # what was submitted is written down
            array = self._record.add(works)
            try:
                job = ArrayJob(array.name, folder, self._logs, elements, tasks, nodes)
                array_number = submit(script(self._keys, job))
            except ClusterError:
                self._record.remove(array)
                raise
            self._record.set_number(array, array_number)
        print(f"array {array_number}: {counted(len(works))} submitted to SLURM", flush=True)
        return [(Element(array.name, number), work) for number, work in enumerate(works)]

    def _assign(self, work: Work) -> str:
        """Write the assignment of a work into its folder; returns its digest."""
        folder, text = self._hand_over.assignment(work)
        for file in (folder.bundle, folder.failure):  # of an earlier attempt
            file.unlink(missing_ok=True)
        with replacing(folder.assignment) as stream:
            stream.write(text.encode())
        return text.partition("\n")[0]


def counted(elements: int) -> str:
    """A number of elements, such as `1 element` or `2 elements`."""
    return f"{elements} element{'s' if elements > 1 else ''}"


def _by_size(works: Sequence[Work]) -> dict[tuple[int, int], list[Work]]:
    """Works by their processes on a node and their nodes: the elements of an array ask for the same."""
    groups: dict[tuple[int, int], list[Work]] = {}
    for work in works:
        config = work.jobs[0].config
        count = len(config.devices) if isinstance(config.devices, list) else config.devices
        # for `auto`, the element takes the GPUs that it sees
        size = (1, 1) if work.kind == "stack" or count == "auto" else (count, config.trainer.num_nodes)
        groups.setdefault(size, []).append(work)
    return groups
