"""Training one job alone, as a run of its own or as a job of a sweep."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from holdfast.config.job import JobSpec, in_folder
from holdfast.errors import HoldfastError, in_a_line
from holdfast.runtime import processes
from holdfast.store.folders import RunFolder
from holdfast.store.result import Result
from holdfast.usercode.packages import place_of_users

log = logging.getLogger(__name__)


def train_run(job: JobSpec, folder: RunFolder, *, words: Sequence[str], progress: bool = False) -> Result:
    """Train one job in a folder that is its own; exceptions of the training are raised.

    Args:
        job: what to train.
        folder: the folder of the run.
        words: the command line, flags and overrides, of the further processes that Lightning starts where the run has
            several devices.
        progress: whether to draw a progress bar.
    """
    with processes.starting(folder.path, words):
        from holdfast.single.trainer import train_one  # its imports read the environment

        return train_one(job._replace(config=in_folder(job.config, folder.path)), folder, progress=progress)


def train_job(job: JobSpec, folder: RunFolder, *, flags: Sequence[str] = ()) -> Result:
    """Train one job of a sweep. The job logs to its file only: the sweep prints how its jobs end.

    Args:
        job: what to train.
        folder: the folder of the job.
        flags: those of the command line that say where configurations lie.

    Raises:
        HoldfastError: the training failed; the traceback is in the job's log. Exceptions of other classes might not
            survive the way from one process to another.
    """
    _silence()
    try:
        with processes.entered(job.config, folder.path):
            return train_run(job, folder, words=[*flags, *job.overrides])
    except Exception as error:
        log.exception("This job failed.")
        raise HoldfastError(in_a_line(error) + place_of_users(error)) from None


def _silence() -> None:
    """Keep the job's log in its file, off the terminal."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if type(handler) is logging.StreamHandler:
            root.removeHandler(handler)
