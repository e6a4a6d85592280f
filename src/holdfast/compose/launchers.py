"""Jobs that a launcher of Hydra's runs, one by one, maybe in other processes or on other machines."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from holdfast.compose.checked import checked
from holdfast.compose.environment import best_metric
from holdfast.compose.resumed import user_overrides
from holdfast.config.job import JobSpec
from holdfast.config.options import TABLE
from holdfast.errors import HoldfastError, in_a_line
from holdfast.execute.alone import train_job
from holdfast.execute.work import Outcome, Progress, Work
from holdfast.store.folders import RunFolder, SweepFolder
from holdfast.store.started import read_sweep
from holdfast.sweeps.resume import buffers

SECONDS_BETWEEN_LOOKS = 0.1
"""How often the folders of jobs are looked at, while a launcher runs them and reports nothing."""


def task(config: DictConfig) -> float | None:
    """Train one job in the folder that a launcher of Hydra's has made for it; returns its best metric.

    The job may run in another process, which is given Hydra's configuration: it is checked here once more.
    """
    composed, hydra = checked(config), HydraConfig.get()
    overrides = tuple(user_overrides(hydra.overrides.task))
    job = JobSpec(hydra.job.num, overrides, composed.config, composed.config_hash)
    folder = RunFolder(Path(hydra.runtime.output_dir))
    if composed.config.data["_target_"] == TABLE:
        composed.config.data["buffer_rows"] = buffers(read_sweep(SweepFolder(folder.path.parent)), [job])[0]
    return best_metric(train_job(job, folder))


class HydraLauncher:
    """Does works by a launcher of Hydra's, each job alone.

    Args:
        launcher: the launcher.
        folder: the folder of the sweep, where the results of jobs appear.
        progress: is told of jobs that have ended.
    """

    def __init__(self, launcher: Launcher, folder: SweepFolder, progress: Progress) -> None:
        self._launcher, self._folder, self._progress = launcher, folder, progress

    def run(self, works: Sequence[Work]) -> Iterator[tuple[JobSpec, Outcome]]:
        """Launch all jobs; yields each with its outcome, after the launcher has returned."""
        for jobs in _without_gaps([job for work in works for job in work.unfinished]):
            with _watched(jobs, self._folder, self._progress):
                returned = self._launch(jobs)
            for job, job_returned in zip_longest(jobs, returned[: len(jobs)]):
                yield job, self._outcome(job, job_returned)

    def _launch(self, jobs: Sequence[JobSpec]) -> Sequence[JobReturn]:
        try:
            return self._launcher.launch([list(job.overrides) for job in jobs], initial_job_idx=jobs[0].number)
        except Exception as error:  # a worker was killed, or the like: some jobs may have finished
            broken = JobReturn(status=JobStatus.FAILED)
            broken.return_value = HoldfastError(f"the launcher failed: {in_a_line(error)}")
            return [broken] * len(jobs)

    def _outcome(self, job: JobSpec, returned: JobReturn | None) -> Outcome:
        result = self._folder.job(job.number).read()
        if result is not None and result.config_hash == job.config_hash:
            return result
        if returned is not None and returned.status == JobStatus.FAILED:
            error: Exception = returned._return_value
            return error
        return HoldfastError("the job wrote no result of this configuration")


def _without_gaps(jobs: Sequence[JobSpec]) -> list[list[JobSpec]]:
    """The jobs in groups of consecutive numbers: a launcher numbers the jobs it is given without gaps."""
    groups: list[list[JobSpec]] = []
    for job in jobs:
        if groups and groups[-1][-1].number + 1 == job.number:
            groups[-1].append(job)
        else:
            groups.append([job])
    return groups


@contextmanager
def _watched(jobs: Sequence[JobSpec], folder: SweepFolder, progress: Progress) -> Iterator[None]:
    """Watch for the results of jobs, and show each as it appears."""
    waiting, over = [job.number for job in jobs], threading.Event()

    def look() -> None:
        for number in waiting[:]:
            if (result := folder.job(number).read()) is not None:
                waiting.remove(number)
                progress.ended(number, result)

    def watch() -> None:
        while not over.wait(SECONDS_BETWEEN_LOOKS):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        look()
