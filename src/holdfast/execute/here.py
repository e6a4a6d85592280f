"""The executor that trains jobs in this process, one stack or job after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from holdfast.config.job import JobSpec
from holdfast.execute.advice import Advice
from holdfast.execute.pending import Pending
from holdfast.execute.together import train_together
from holdfast.execute.work import NO_PROGRESS, Environment, Outcome, Progress, StackEnvironment, Work
from holdfast.runtime.threads import threads
from holdfast.store.folders import RunFolder
from holdfast.store.result import Result


class Here:
    """Does works in this process, one after another, in the order of `Pending`.

    Args:
        environment: what surrounds the training of a job alone.
        train: trains one job alone, in its folder.
        folder_of: the folder of a job, by its number.
        stacks: what surrounds the training of a stack; None where no work is a stack.
        progress: shows epochs and the jobs that have ended.
        advises: whether to print that worker processes would be faster, where they would.
    """

    def __init__(
        self,
        environment: Environment,
        train: Callable[[JobSpec, RunFolder], Result],
        folder_of: Callable[[int], RunFolder],
        stacks: StackEnvironment | None = None,
        progress: Progress = NO_PROGRESS,
        *,
        advises: bool = False,
    ) -> None:
        self._environment, self._stacks, self._progress = environment, stacks, progress
        self._train, self._folder_of, self._advises = train, folder_of, advises

    def run(self, works: Sequence[Work]) -> Iterator[tuple[JobSpec, Outcome]]:
        """Do all works; yields every unfinished job with its outcome, as the jobs end."""
        pending, advice = Pending(works), Advice(works if self._advises else ())
        while (work := pending.take()) is not None:
            if work.kind == "alone":
                (job,) = work.jobs
                began = time.monotonic()
                outcome = self._train_alone(job, work.threads)
                if line := advice.note(time.monotonic() - began):
                    print(line, flush=True)
                yield job, outcome
                continue
            assert self._stacks is not None, "only a sweep has stacks"
            try:
                results = self._train_stack(work, self._stacks)
            except Exception as error:
                pending.give_up(work, error)
                continue
            for job in work.unfinished:
                self._stacks.end(job, results[job.number])
                self._progress.ended(job.number, results[job.number])
                yield job, results[job.number]

    def _train_alone(self, job: JobSpec, count: int | None) -> Outcome:
        folder = RunFolder(self._folder_of(job.number).path.absolute())  # the job may change the working folder
        with threads(count):
            outcome = self._environment.train(job, lambda filled: self._train(filled, folder))
        self._progress.ended(job.number, folder.read())
        return outcome

    def _train_stack(self, work: Work, environment: StackEnvironment) -> dict[int, Result]:
        """Train a stack; returns the results of its jobs by number."""
        for job in work.jobs:
            environment.begin(job)
        write_events = environment.write_events if environment.keeps_events else None
        with threads(work.threads):
            return train_together(work, environment.files(work.jobs[0]), self._progress, write_events)
