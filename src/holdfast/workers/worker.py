"""Does one work in the folder of the work, in any process, and lists there what it leaves."""

from __future__ import annotations

import logging.config
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from holdfast.config.job import replaced
from holdfast.errors import FolderError, HoldfastError
from holdfast.execute.together import train_together
from holdfast.execute.work import NO_PROGRESS, Progress
from holdfast.runtime.threads import threads
from holdfast.store.folders import RunFolder
from holdfast.store.lock import locked
from holdfast.store.result import Result
from holdfast.store.work_folder import WorkFolder
from holdfast.workers.assignment import Assignment, check_code
from holdfast.workers.bundle import write_bundle

LONGEST_WAIT = 20.0
"""How long to wait for an earlier process that still holds the folder of the work, in seconds."""


def do(assignment: Assignment, folder: WorkFolder, progress: Progress = NO_PROGRESS) -> None:
    """Train the jobs of an assignment, from the snapshot or the checkpoint in the folder, if there is one.

    Args:
        assignment: what to do.
        folder: the folder of the work; `bundle.json` in it is written last.
        progress: is told of the epochs of a stack.

    Raises:
        WorkerError: the user's modules are missing, or are other ones.
        FolderError: another process works in the folder.
        Stopped: a signal has arrived; the folder has what is needed to go on.
        Exception: the stack could not be trained. Why a job alone failed is in the bundle.
    """
    work = assignment.work
    folder.path.mkdir(parents=True, exist_ok=True)
    with _locked_in_time(folder.path):
        folder.bundle.unlink(missing_ok=True)
        check_code(assignment.code, work.jobs)
        with threads(work.threads):
            if work.kind == "stack":
                results, errors = _train_stack(assignment, folder, progress), dict[int, str]()
            else:
                results, errors = _train_alone(assignment, folder)
        write_bundle(folder, work.unfinished, results, errors)


def follow(assignment: Assignment, folder: WorkFolder) -> None:
    """Train the job of an assignment together with a process that calls `do`, as one of the others that write nothing.

    Args:
        assignment: what to do.
        folder: the folder of the work.

    Raises:
        WorkerError: the user's modules are missing, or are other ones.
        Stopped: a signal has arrived.
        HoldfastError: the job has failed here.
    """
    from holdfast.execute.alone import train_job

    (job,) = assignment.work.jobs
    check_code(assignment.code, [job])
    run, deadline = folder.job(job.number), time.monotonic() + LONGEST_WAIT
    while not run.path.is_dir() and time.monotonic() < deadline:  # the first process makes it
        time.sleep(0.1)
    result = run.finished(job.config_hash)
    if result is not None and result.status != "failed":
        return
    silent = {"version": 1, "disable_existing_loggers": False, "root": {"handlers": []}}
    with threads(assignment.work.threads), _as_hydra_job({**(assignment.hydra or {}), "job_logging": silent}, run):
        train_job(job, run)


def _train_stack(assignment: Assignment, folder: WorkFolder, progress: Progress) -> dict[int, Result]:
    work = assignment.work

    def write_events(job: Any, name: str, content: bytes) -> None:
        folder.write_files(job.number, {name: content})

    files = folder.stack(work.jobs[0].number)
    return train_together(work, files, progress, write_events if assignment.keeps_events else None)


def _train_alone(assignment: Assignment, folder: WorkFolder) -> tuple[dict[int, Result], dict[int, str]]:
    """Train a job; returns its result, or its error, by its number."""
    from holdfast.execute.alone import train_job

    (job,) = assignment.work.jobs
    run = folder.job(job.number)
    result = run.finished(job.config_hash)
    if result is not None and result.status != "failed":  # an earlier process died before it wrote the bundle
        return {job.number: result}, {}
    run.path.mkdir(exist_ok=True)
    with _as_hydra_job(assignment.hydra or {}, run):
        try:
            return {job.number: train_job(job, run)}, {}
        except HoldfastError as error:
            return {}, {job.number: str(error)}


@contextmanager
def _locked_in_time(path: Path) -> Iterator[None]:
    """Lock a folder as soon as an earlier process, which is about to end, has let it go."""
    deadline = time.monotonic() + LONGEST_WAIT
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(path))
                break
            except FolderError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        yield


@contextmanager
def _as_hydra_job(hydra: Mapping[str, Any], run: RunFolder) -> Iterator[None]:
    """Give a job what Hydra's `run_job` gives it: its log, its environment variables, its working folder.

    Args:
        hydra: Hydra's configuration of the job.
        run: the folder of the job.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.utils import configure_log
    from omegaconf import OmegaConf

    config = OmegaConf.create({"hydra": replaced(dict(hydra), str(run.path))})
    OmegaConf.set_readonly(config.hydra, True)
    before, environment, cwd = HydraConfig.instance().cfg, dict(os.environ), Path.cwd()
    try:
        HydraConfig.instance().cfg = config  # type: ignore[assignment]
        configure_log(config.hydra.job_logging, config.hydra.verbose)
        os.environ.update({str(key): str(value) for key, value in config.hydra.job.env_set.items()})
        if config.hydra.job.chdir:
            os.chdir(run.path)
        yield
    finally:
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environment)
        HydraConfig.instance().cfg = before
        # closes the log of the job
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, "root": {"level": "WARNING"}})
