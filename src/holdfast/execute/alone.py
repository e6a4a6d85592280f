"""Training one job alone, as a run of its own or as a job of a sweep."""

from __future__ import annotations

import logging

from holdfast.config.job import JobSpec, in_folder
from holdfast.errors import HoldfastError, in_a_line
from holdfast.runtime import processes
from holdfast.store.folders import RunFolder
from holdfast.store.result import Result
from holdfast.usercode.packages import place_of_users

log = logging.getLogger(__name__)


def train_run(job: JobSpec, folder: RunFolder, *, progress: bool = False) -> Result:
    """Train one job in a folder that is its own; exceptions of the training are raised.

    A job with several devices of this computer is trained in processes of its own, unless all of them were started from
    outside.

    Args:
        job: what to train.
        folder: the folder of the run.
        progress: whether to draw a progress bar.
    """
    from holdfast.runtime.devices import process_count  # its imports read the environment
    from holdfast.single.trainer import tests_again, train_one

    job = job._replace(config=in_folder(job.config, folder.path))
    count = 1 if processes.current().name or tests_again(job, folder) else process_count(job.config)
    if count > 1:
        from holdfast.execute.apart import train_apart

        return train_apart(job, folder, count, progress=progress)
    return train_one(job, folder, progress=progress)


def train_job(job: JobSpec, folder: RunFolder) -> Result:
    """Train one job of a sweep. The job logs to its file only: the sweep prints how its jobs end.

    Args:
        job: what to train.
        folder: the folder of the job.

    Raises:
        HoldfastError: the training failed; the traceback is in the job's log. Exceptions of other classes might not
            survive the way from one process to another.
    """
    _silence()
    try:
        with processes.entered(job.config):
            return train_run(job, folder)
    except Exception as error:
        log.exception("This job failed.")
        raise HoldfastError(in_a_line(error) + place_of_users(error)) from None


def _silence() -> None:
    """Keep the job's log in its file, off the terminal."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if type(handler) is logging.StreamHandler:
            root.removeHandler(handler)
