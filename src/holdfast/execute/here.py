"""The executor that trains jobs in this process, one stack or job after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from holdfast.config.job import JobSpec
from holdfast.errors import in_a_line, is_about_files, is_out_of_memory
from holdfast.execute.work import NO_PROGRESS, Environment, Outcome, Progress, StackEnvironment, Work
from holdfast.store.folders import RunFolder
from holdfast.store.result import Result


class Here:
    """Does works in this process: stacks first, then the jobs that train alone.

    A stack for which there is not enough memory is trained in two halves. The jobs of a stack that fails in any other
    way train alone.

    Args:
        environment: what surrounds the training of a job alone.
        train: trains one job alone, in its folder.
        folder_of: the folder of a job, by its number.
        stacks: what surrounds the training of a stack; None where no work is a stack.
        progress: shows epochs and the jobs that have ended.
    """

    def __init__(
        self,
        environment: Environment,
        train: Callable[[JobSpec, RunFolder], Result],
        folder_of: Callable[[int], RunFolder],
        stacks: StackEnvironment | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> None:
        self._environment, self._stacks, self._progress = environment, stacks, progress
        self._train, self._folder_of = train, folder_of

    def run(self, works: Sequence[Work]) -> Iterator[tuple[JobSpec, Outcome]]:
        """Do all works; yields every unfinished job with its outcome, as the jobs end."""
        waiting = [work for work in reversed(works) if work.kind == "stack"]
        alone = [job for work in works if work.kind == "alone" for job in work.unfinished]
        while waiting:
            work = waiting.pop()
            if not work.unfinished:
                continue
            assert self._stacks is not None, "only a sweep has stacks"
            try:
                results = self._train_stack(work, self._stacks)
            except Exception as error:
                if is_about_files(error):
                    raise
                count = len(work.jobs)
                if count > 1 and is_out_of_memory(error):
                    print(f"{count} jobs do not fit into memory together, and are trained in two halves")
                    waiting += reversed(_halves(work))
                else:
                    print(f"{count} jobs could not be trained together, and are run alone: {in_a_line(error)}")
                    alone += work.unfinished
                continue
            for job in work.unfinished:
                self._stacks.end(job, results[job.number])
                self._progress.ended(job.number, results[job.number])
                yield job, results[job.number]
        for job in sorted(alone, key=lambda job: job.number):
            yield job, self._train_alone(job)

    def _train_alone(self, job: JobSpec) -> Outcome:
        folder = RunFolder(self._folder_of(job.number).path.absolute())  # the job may change the working folder
        outcome = self._environment.train(job, lambda filled: self._train(filled, folder))
        self._progress.ended(job.number, folder.read())
        return outcome

    def _train_stack(self, work: Work, environment: StackEnvironment) -> dict[int, Result]:
        """Train a stack; returns the results of its jobs by number."""
        from holdfast.stacked.outputs import Member, event_files, results_of
        from holdfast.stacked.stack_trainer import train_stack

        for job in work.jobs:
            environment.begin(job)
        config = work.jobs[0].config
        on_epoch_end = partial(self._progress.epoch, len(work.jobs), config.epochs)
        history = train_stack(work.jobs, environment.files(work.jobs[0]), on_epoch_end, by_steps=work.by_steps)
        indexes = [index for index, job in enumerate(work.jobs) if job.number not in work.finished]
        jobs = [work.jobs[index] for index in indexes]
        results = results_of(jobs, history, indexes)
        if environment.keeps_events and config.logger.tensorboard:
            members = list(map(Member, jobs, results, indexes))
            for job, content in event_files(members, history):
                environment.write_events(job, history.events, content)
        return {job.number: result for job, result in zip(jobs, results, strict=True)}


def _halves(work: Work) -> list[Work]:
    """A stack as two stacks of half its width."""
    middle = len(work.jobs) // 2
    return [work._replace(jobs=jobs) for jobs in (work.jobs[:middle], work.jobs[middle:])]
