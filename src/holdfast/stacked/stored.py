"""The finished stacks of a sweep, read from their archives: results, curves, and the folder of any job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from holdfast.config.job import JobSpec
from holdfast.record.archive import read_stack
from holdfast.record.history import StackHistory
from holdfast.stacked.outputs import Member, results_of, run_files
from holdfast.store.folders import SweepFolder
from holdfast.store.result import Result


class _Place(NamedTuple):
    stack: int
    column: int


class StoredStacks:
    """The finished stacks of a sweep.

    Args:
        folder: folder of the sweep.
        hashes: digest of the configuration of each job of the sweep.
        digests: expected digest of each archive, by its name; those of an unfinished sweep are not known.

    Raises:
        CheckpointError: an archive is damaged.
    """

    def __init__(self, folder: SweepFolder, hashes: Sequence[str], digests: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._histories: list[StackHistory] = []
        self._places: dict[int, _Place] = {}
        known = dict(enumerate(hashes))
        for files in folder.all_stacks():
            stack = read_stack(files, (digests or {}).get(files.archive.name))
            if stack is None:
                continue
            numbers, stack_hashes, history = stack
            if [known.get(number) for number in numbers] == stack_hashes:
                self._places |= {number: _Place(len(self._histories), index) for index, number in enumerate(numbers)}
                self._histories.append(history)

    def __contains__(self, number: object) -> bool:
        return number in self._places

    def results(self, jobs: Sequence[JobSpec]) -> dict[int, Result]:
        """The results of the jobs that were trained in these stacks, by number."""
        by_stack = self._by_stack(jobs)
        return {
            job.number: result
            for stack, members in by_stack.items()
            for job, result in zip(
                members,
                results_of(members, self._histories[stack], [self._places[job.number].column for job in members]),
                strict=True,
            )
        }

    def run_files(
        self, jobs: Sequence[JobSpec], results: Mapping[int, Result]
    ) -> Iterator[tuple[JobSpec, dict[str, bytes]]]:
        """The files that some jobs lack, each as if it had been trained alone; `result.json` is not among them.

        Args:
            jobs: jobs of these stacks.
            results: their results, by number.
        """
        dry_runs: dict[str, dict[str, Any]] = {}
        for stack, members in self._by_stack(jobs).items():
            history = self._histories[stack]
            some = [Member(job, results[job.number], self._places[job.number].column) for job in members]

            def has_events(job: JobSpec, name: str = history.events) -> bool:
                return (self._folder.job(job.number).path / name).exists()

            yield from run_files(some, history, has_events, dry_runs)

    def place(self, number: int) -> tuple[StackHistory, int]:
        """The history of a job's stack, and the index of the job in it."""
        stack, column = self._places[number]
        return self._histories[stack], column

    def _by_stack(self, jobs: Sequence[JobSpec]) -> dict[int, list[JobSpec]]:
        by_stack: dict[int, list[JobSpec]] = {}
        for job in jobs:
            if job.number in self._places:
                by_stack.setdefault(self._places[job.number].stack, []).append(job)
        return by_stack
