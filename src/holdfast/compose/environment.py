"""What Hydra adds to the training of a job: the files of `.hydra/`, the log, callbacks, the working folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, configure_log, env_override, run_job
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, read_write

from holdfast.compose.checked import checked
from holdfast.compose.composed import as_hydra_config
from holdfast.compose.hydra_files import HydraFiles
from holdfast.compose.loader import Loader
from holdfast.config.job import FOLDER, JobSpec
from holdfast.config.options import TABLE
from holdfast.errors import HoldfastError
from holdfast.execute.work import Outcome
from holdfast.store.folders import StackFiles, SweepFolder
from holdfast.store.result import Result


class RunEnvironment:
    """The environment of a single run, as `Hydra.run` makes it.

    Args:
        context: Hydra's loader and callbacks.
        config: the run's whole configuration, Hydra's part included.

    Attributes:
        returned: what Hydra's callbacks are given at the end of the run.
    """

    def __init__(self, context: HydraContext, config: DictConfig) -> None:
        self._context, self._config = context, config
        self.returned = JobReturn()

    def train(self, job: JobSpec, train: Callable[[JobSpec], Result]) -> Outcome:
        """Call a function that trains the run, in its folder and with its log."""
        self.returned, outcome = _run(self._context, self._config, job, train, ("hydra.run.dir", None))
        return outcome


class SweepEnvironment:
    """The environment of the jobs of a sweep, as Hydra's basic launcher makes it.

    Args:
        context: our loader and Hydra's callbacks.
        config: the configuration of the sweep, with the folder that the sweep has claimed.
        folder: this folder.
        keeps_events: whether every job leaves an event file.
    """

    def __init__(
        self, context: HydraContext, config: DictConfig, folder: SweepFolder, *, keeps_events: bool = True
    ) -> None:
        assert isinstance(context.config_loader, Loader)
        self.keeps_events = keeps_events
        self._context, self._config, self._folder = context, config, folder
        self._files = HydraFiles(context.config_loader, config)
        self._announced: set[int] = set()

    def train(self, job: JobSpec, train: Callable[[JobSpec], Result], subdir: str | None = None) -> Outcome:
        """Call a function that trains one job, in its folder, or a subfolder with another name, and with its log."""
        keys, config = ("hydra.sweep.dir", "hydra.sweep.subdir"), self._files.config(job)
        if subdir is not None:
            with read_write(config.hydra.sweep):
                config.hydra.sweep.subdir = subdir
        _, outcome = _run(self._context, config, job, train, keys)
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        return outcome

    def begin(self, job: JobSpec) -> None:
        """Let Hydra's callbacks know, once, that a job starts that is not trained by `train`."""
        if self._context.callbacks.callbacks and job.number not in self._announced:
            self._announced.add(job.number)
            config = self._files.config(job)
            with as_hydra_config(config):
                self._context.callbacks.on_job_start(config=config, task_function=_no_task)

    def files(self, job: JobSpec) -> StackFiles:
        """The files of the stack whose first job this is."""
        return self._folder.stack(job.number)

    def write_events(self, job: JobSpec, name: str, content: bytes) -> None:
        """Write the event file of a job of a stack."""
        self._folder.write_files(job.number, {name: content})

    def hydra_files(self, job: JobSpec) -> dict[str, bytes]:
        """The files that Hydra would leave in the folder of a job, by their paths in it."""
        return self._files.of(job)

    def fill(self, job: JobSpec) -> tuple[JobSpec, dict[str, Any]]:
        """A job with all that its values take from Hydra, but for its folder, and Hydra's own configuration of it."""
        config = self._files.config(job)
        with read_write(config.hydra.runtime):
            config.hydra.runtime.output_dir = FOLDER
        with as_hydra_config(config), env_override(config.hydra.job.env_set):
            filled = _filled(job, config)
            hydra: Any = OmegaConf.to_container(config.hydra, resolve=True, enum_to_str=True)
        return filled, hydra

    def end(self, job: JobSpec, outcome: Outcome) -> None:
        """Let Hydra's callbacks know that a job that was not trained by `train` has ended."""
        if self._context.callbacks.callbacks:
            config, returned = self._files.config(job), job_return(job, outcome)
            returned.cfg = returned.hydra_cfg = config
            with as_hydra_config(config):
                self._context.callbacks.on_job_end(config=config, job_return=returned)


def job_return(job: JobSpec, outcome: Outcome) -> JobReturn:
    """The outcome of a job in Hydra's form: the best metric, or the error."""
    returned = JobReturn(overrides=list(job.overrides), working_dir=os.getcwd(), task_name="train")
    if isinstance(outcome, Exception):
        returned.status, returned.return_value = JobStatus.FAILED, outcome
    elif outcome.status == "failed":
        returned.status, returned.return_value = JobStatus.FAILED, HoldfastError(str(outcome.error))
    else:
        returned.status, returned.return_value = JobStatus.COMPLETED, best_metric(outcome)
    return returned


def best_metric(result: Result) -> float | None:
    """What a job returns to Hydra, for sweepers that search: its best metric."""
    return result.best[result.metric] if result.best else None


def _run(
    context: HydraContext,
    config: DictConfig,
    job: JobSpec,
    train: Callable[[JobSpec], Result],
    dir_keys: tuple[str, str | None],
) -> tuple[JobReturn, Outcome]:
    results = []

    def task(_: DictConfig) -> float | None:
        # only here is known what a value takes from Hydra: the folder, the number of the job, `hydra.job.env_set`
        results.append(train(_filled(job, config)))
        return best_metric(results[0])

    dir_key, subdir_key = dir_keys
    returned = run_job(
        hydra_context=context, task_function=task, config=config, job_dir_key=dir_key, job_subdir_key=subdir_key
    )
    return returned, results[0] if results else returned._return_value


def _filled(job: JobSpec, config: DictConfig) -> JobSpec:
    """A job with the values of a configuration, in which those that it takes from Hydra are known."""
    filled = job._replace(config=checked(config).config)
    if job.config.data["_target_"] == TABLE:
        filled.config.data["buffer_rows"] = job.config.data["buffer_rows"]  # settled once for the run or the sweep
    return filled


def _no_task(config: DictConfig) -> Any:
    """Stands for the task of a job in a stack: a stack calls no function for each of its jobs."""
