"""Works done in this process, one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from holdfast.config.job import JobSpec
from holdfast.errors import StorageError, in_a_line, is_out_of_memory
from holdfast.execute.work import Environment, Outcome, Progress, Work
from holdfast.store.folders import RunFolder
from holdfast.store.result import Result

Place = Callable[[int, Mapping[str, bytes], Result], Result]
"""Writes the folder of a job that was trained in a stack, from its number, its files and its result."""


class Here:
    """Does works in this process: stacks first, then the jobs that train alone.

    A stack for which there is not enough memory is trained in two halves. The jobs of a stack that fails in any other
    way train alone.

    Args:
        environment: what surrounds the training of each job.
        train: trains one job alone, in its folder.
        folder_of: the folder of a job, by its number.
        place: writes the folder of a job of a stack.
        progress: is told of epochs and of jobs that have ended.
    """

    def __init__(
        self,
        environment: Environment,
        train: Callable[[JobSpec, RunFolder], Result],
        folder_of: Callable[[int], RunFolder],
        place: Place | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._environment, self._train, self._progress = environment, train, progress
        self._folder_of, self._place = folder_of, place
        self._dry_runs: dict[str, Any] = {}  # shared by the stacks of a sweep

    def run(self, works: Sequence[Work]) -> Iterator[tuple[JobSpec, Outcome]]:
        """Do all works; yields every unfinished job with its outcome, as the jobs end."""
        waiting = [work for work in reversed(works) if work.kind == "stack"]
        alone = [job for work in works if work.kind == "alone" for job in work.unfinished]
        while waiting:
            work = waiting.pop()
            if not work.unfinished:
                continue
            try:
                results = self._train_stack(work)
            except Exception as error:
                count = len(work.jobs)
                if count > 1 and is_out_of_memory(error):
                    print(f"{count} jobs do not fit into memory together, and are trained in two halves")
                    waiting += reversed(_halves(work))
                else:
                    print(f"{count} jobs could not be trained together, and are run alone: {in_a_line(error)}")
                    alone += work.unfinished
                continue
            for job in work.unfinished:
                self._environment.end(job, results[job.number])
                self._show(job, results[job.number])
                yield job, results[job.number]
        for job in sorted(alone, key=lambda job: job.number):
            folder = self._folder_of(job.number)
            outcome = self._environment.train(job, partial(self._train, job, folder))
            self._show(job, folder.read())
            yield job, outcome

    def _show(self, job: JobSpec, result: Result | None) -> None:
        if self._progress is not None:
            self._progress.ended(job.number, result)

    def _train_stack(self, work: Work) -> dict[int, Result]:
        """Train a stack and write the folders that are kept; returns the results of its unfinished jobs by number."""
        from holdfast.stacked.stack_trainer import train_stack

        for job in work.jobs:
            self._environment.begin(job)
        on_epoch = () if self._progress is None else (partial(self._on_epoch, self._progress, work),)
        trained = train_stack(
            work.jobs,
            self._dry_runs,
            *on_epoch,
        )
        keep = work.jobs[0].config.sweep.keep
        kept = range(len(work.jobs)) if keep == "all" else trained.best_indexes(keep)
        written = [index for index in kept if work.jobs[index].number not in work.finished]
        results = {job.number: result for job, result in zip(work.jobs, trained.results, strict=True)}
        return results | self._write(work, trained, written)

    def _write(self, work: Work, trained: Any, indexes: Sequence[int]) -> dict[int, Result]:
        """Write the folders of some jobs, by their indexes in the stack; returns their results by number.

        Where the disk fails, such as when it is full, the jobs without a folder have failed.
        """
        assert self._place is not None, "only a sweep has stacks"
        results: dict[int, Result] = {}
        try:
            for index, files in trained.files(indexes):
                job = work.jobs[index]
                results[job.number] = self._place(
                    job.number, files | self._environment.files(job), trained.results[index]
                )
        except (OSError, StorageError) as error:
            reason = f"its files could not be written: {in_a_line(error)}"
            for index in indexes:
                failed = replace(trained.results[index], status="failed", error=reason, best=None)
                results.setdefault(work.jobs[index].number, failed)
        return results

    @staticmethod
    def _on_epoch(progress: Progress, work: Work, epoch: int, best: float) -> None:
        progress.epoch(len(work.jobs), work.jobs[0].config.epochs, epoch, best)


def _halves(work: Work) -> list[Work]:
    """A stack as two stacks of half its width."""
    middle = len(work.jobs) // 2
    return [work._replace(jobs=jobs) for jobs in (work.jobs[:middle], work.jobs[middle:])]
