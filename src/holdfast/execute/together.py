"""Training the jobs of a stack as one program, as a work of a sweep."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from holdfast.config.job import JobSpec
from holdfast.execute.work import Progress, Work
from holdfast.store.folders import StackFiles
from holdfast.store.result import Result

WriteEvents = Callable[[JobSpec, str, bytes], None]
"""Writes the event file of a job: the job, the name of the file, its content."""


def train_together(
    work: Work, files: StackFiles, progress: Progress, write_events: WriteEvents | None
) -> dict[int, Result]:
    """Train a stack.

    Args:
        work: the stack.
        files: its archive and its curves.
        progress: is told of every epoch.
        write_events: writes an event file; None where jobs leave none.

    Returns:
        The results of the jobs that were not finished before, by number.

    Raises:
        Exception: as `holdfast.stacked.stack_trainer.train_stack`.
    """
    from holdfast.stacked.outputs import Member, event_files, results_of
    from holdfast.stacked.stack_trainer import train_stack

    config = work.jobs[0].config
    on_epoch_end = partial(progress.epoch, len(work.jobs), config.epochs)
    history = train_stack(work.jobs, files, on_epoch_end, by_steps=work.by_steps)
    indexes = [index for index, job in enumerate(work.jobs) if job.number not in work.finished]
    jobs = [work.jobs[index] for index in indexes]
    results = results_of(jobs, history, indexes)
    if write_events is not None and config.logger.tensorboard:
        members = list(map(Member, jobs, results, indexes))
        for job, content in event_files(members, history):
            write_events(job, history.events, content)
    return {job.number: result for job, result in zip(jobs, results, strict=True)}
