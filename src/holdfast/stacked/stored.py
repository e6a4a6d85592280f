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


class StackColumn(NamedTuple):
    """Where a job is: the history of its stack, and the column of the job in the arrays of the stack."""

    history: StackHistory
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
        self._columns: dict[int, StackColumn] = {}  # by the number of the job
        hash_of = dict(enumerate(hashes))
        for files in folder.all_stacks():
            stack = read_stack(files, (digests or {}).get(files.archive.name))
            if stack is None:
                continue
            numbers, stack_hashes, history = stack
            if [hash_of.get(number) for number in numbers] == stack_hashes:
                self._columns |= {number: StackColumn(history, column) for column, number in enumerate(numbers)}

    def __contains__(self, number: object) -> bool:
        return number in self._columns

    def find(self, number: int) -> StackColumn | None:
        """Where a job is; None if it is in none of the stacks."""
        return self._columns.get(number)

    def results(self, jobs: Sequence[JobSpec]) -> dict[int, Result]:
        """The results of the jobs that were trained in these stacks, by number."""
        results: dict[int, Result] = {}
        for history, members in self._by_stack(jobs):
            columns = [self._columns[job.number].column for job in members]
            results |= {
                job.number: result for job, result in zip(members, results_of(members, history, columns), strict=True)
            }
        return results

    def run_files(
        self, jobs: Sequence[JobSpec], results: Mapping[int, Result]
    ) -> Iterator[tuple[JobSpec, dict[str, bytes]]]:
        """The files that some jobs lack, each as if it had been trained alone; `result.json` is not among them.

        Args:
            jobs: jobs of these stacks.
            results: their results, by number.
        """
        dry_runs: dict[str, dict[str, Any]] = {}
        for history, members in self._by_stack(jobs):
            some = [Member(job, results[job.number], self._columns[job.number].column) for job in members]

            def has_events(job: JobSpec, name: str = history.events) -> bool:
                return (self._folder.job(job.number).path / name).exists()

            yield from run_files(some, history, has_events, dry_runs)

    def _by_stack(self, jobs: Sequence[JobSpec]) -> Iterator[tuple[StackHistory, list[JobSpec]]]:
        """The jobs of each stack, with its history."""
        members: dict[int, list[JobSpec]] = {}
        for job in jobs:
            if job.number in self._columns:
                members.setdefault(id(self._columns[job.number].history), []).append(job)
        for some in members.values():
            yield self._columns[some[0].number].history, some
