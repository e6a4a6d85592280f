"""A single run: composed, its folder claimed, trained as one work of one job, and summarised."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from hydra._internal.callbacks import Callbacks
from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, open_dict, read_write

from holdfast.compose.done import Done
from holdfast.compose.loader import Loader
from holdfast.compose.resumed import user_overrides
from holdfast.config.commands import resume_command
from holdfast.config.fold import FOLD_KEY, fold_of
from holdfast.config.job import JobSpec
from holdfast.config.keys import key_of
from holdfast.config.options import TABLE
from holdfast.config.schema import Config
from holdfast.errors import ConfigError, Problem, Stopped
from holdfast.runtime import processes
from holdfast.runtime.screen import is_watched
from holdfast.search.grid import unlisted
from holdfast.single.startup import BufferRows, prepare, settled
from holdfast.store.files import write_json
from holdfast.store.folders import RunFolder
from holdfast.store.lock import await_leader, claim, locked
from holdfast.store.result import Result
from holdfast.store.started import read_run
from holdfast.store.versions import versions

log = logging.getLogger(__name__)


class _SingleRun(NamedTuple):
    """A single run.

    Attributes:
        loader: the loader that composed the configuration.
        name: name of the primary configuration, such as `config`.
        config: the whole configuration, Hydra's part included.
        job: the configuration, checked and hashed.
        origin: the configuration as it is written in YAML, before interpolations are resolved.
        resumed: the folder of a run that is resumed; None for a new run.
    """

    loader: Loader
    name: str
    config: DictConfig
    job: JobSpec
    origin: Mapping[str, Any]
    resumed: Path | None

    @property
    def folder(self) -> RunFolder:
        """The run's folder."""
        return RunFolder(Path(self.config.hydra.run.dir))

    @property
    def has_chosen_folder(self) -> bool:
        """Whether the user named the folder."""
        return "hydra.run.dir" in map(key_of, self.config.hydra.overrides.hydra)


def run_single(loader: Loader, name: str, overrides: Sequence[str], *, resumed: Path | None) -> Done:
    """Train one run in a folder that is its own.

    Args:
        loader: composes the configuration.
        name: of the primary configuration.
        overrides: those of the command line.
        resumed: the folder of a run that is resumed; None for a new run.

    Returns:
        The folder, and the exit code: 0 when the run completed or diverged, otherwise that of its error.

    Raises:
        ConfigError: the overrides cannot work; nothing was written.
    """
    config, composed = loader.compose(name, [*overrides, "hydra.mode=RUN"], RunMode.RUN)
    HydraConfig.instance().set_config(config)
    if keys := unlisted(config.hydra.sweeper.get("params"), overrides):
        lesson = f"is a sweep over {', '.join(keys)}: add -m, or give each a value"
        raise ConfigError([Problem(" ".join(overrides), lesson)])
    if (folds := composed.config.sweep.folds) is not None and fold_of(composed.config.data) is None:
        lesson = f"divides the rows of a sweep: add -m, or train on one fold, such as {FOLD_KEY}=0/{folds}"
        raise ConfigError([Problem(f"sweep.folds={folds}", lesson)])
    recorded = tuple(user_overrides(config.hydra.overrides.task))
    job = JobSpec(0, recorded, composed.config, composed.config_hash)
    run = _SingleRun(loader, name, config, job, composed.origin, resumed)
    with processes.entered(job.config) as launch:
        if launch.name and resumed is None and not run.has_chosen_folder:
            lesson = f"all processes of {launch.name} train one run: add hydra.run.dir=outputs/runs/NAME, its folder"
            raise ConfigError([Problem(f"devices={job.config.devices}", lesson)])
        return _run_leader(run, launch) if launch.rank == 0 else _run_follower(run, launch)


def _run_leader(run: _SingleRun, launch: processes.Launch) -> Done:
    """Train a run as its first, or only, process: the one that holds the folder."""
    if run.resumed is None:
        prepare(run.job.config)
        train = _trainer(run.job.config)
        path = claim(run.folder.path, chosen=run.has_chosen_folder, flags=run.loader.flags)
        with read_write(run.config.hydra.run):
            run.config.hydra.run.dir = str(path)
    folder = run.folder
    with locked(folder.path, launch.name):
        if run.resumed is not None:
            if (finished := _finished(folder, run.job)) is not None:
                code, text = finished
                print(text)
                return Done(code, folder.path)
            prepare(run.job.config, _recorded_buffer(run))
            train = _trainer(run.job.config)
        else:
            record = {"overrides": list(run.job.overrides), "config_hash": run.job.config_hash, "config": run.origin}
            write_json(folder.started, {**record, **settled(run.job.config), "versions": versions()})
        try:
            return _train(run, train)
        except KeyboardInterrupt as stop:
            raise Stopped.of(stop, resume_command(folder.path, run.loader.flags, sweep=False)) from None


def _run_follower(run: _SingleRun, launch: processes.Launch) -> Done:
    """Train a run as one of its further processes, in the folder that the first one holds.

    It writes no file: no `.hydra/`, and no log. What it warns of goes to standard error.
    """
    if run.resumed is not None:
        result = run.folder.finished(run.job.config_hash)
        if result is not None and result.status == "completed":
            return Done(0, run.folder.path)  # test rows that are opened again are opened by the first process alone
        if (finished := _finished(run.folder, run.job)) is not None:
            return Done(finished[0], run.folder.path)
    prepare(run.job.config)
    await_leader(run.folder.path, launch.name)
    prepare(run.job.config, _recorded_buffer(run))
    with read_write(run.config.hydra), open_dict(run.config.hydra):
        run.config.hydra.output_subdir = None
        run.config.hydra.job_logging = {"version": 1, "disable_existing_loggers": False, "root": {"handlers": []}}
    return _train(run, _trainer(run.job.config))


def _trainer(config: Config) -> Callable[[JobSpec, RunFolder], Result]:
    """What trains a run, in its folder.

    Raises:
        ConfigError: `engine=lean` cannot train it.
    """
    progress = is_watched()
    if config.engine == "lean":
        from holdfast.execute.lean import check_lean, train_lean

        return partial(train_lean, by_steps=check_lean(config).by_steps, progress=progress)
    from holdfast.execute.alone import train_run  # not needed where the overrides are refused

    return partial(train_run, progress=progress)


def _recorded_buffer(run: _SingleRun) -> BufferRows:
    """The rows of a table in memory at a time, as the first process of a run has settled them."""
    if run.job.config.data["_target_"] != TABLE:
        return "auto"
    recorded: BufferRows = read_run(run.folder).get("buffer_rows", "auto")
    return recorded


def _finished(folder: RunFolder, job: JobSpec) -> tuple[int, str] | None:
    """The exit code of a run that has nothing left to do, and a text that says so; otherwise None."""
    result = folder.finished(job.config_hash)
    if result is None or (job.config.test_again and job.config.test):
        return None
    if result.status != "failed":
        return 0, f"{folder.path} is finished ({result.status}); nothing was done."
    if job.config.retry_failed:
        return None
    return 1, f"{folder.path} failed: {result.error}\nNothing was done; retry_failed=true runs it again."


def _train(run: _SingleRun, train: Callable[[JobSpec, RunFolder], Result]) -> Done:
    """Train a run, with Hydra's callbacks around it."""
    from holdfast.compose.environment import RunEnvironment  # not needed where the overrides are refused
    from holdfast.execute.here import Here
    from holdfast.execute.work import Work
    from holdfast.single.build import without_effect

    if processes.is_leader():
        for line in without_effect(run.job.config, run.origin, run.job.overrides).values():
            print(line)
    callbacks = Callbacks(run.config)
    callbacks.on_run_start(config=run.config, config_name=run.name)
    environment = RunEnvironment(HydraContext(config_loader=run.loader, callbacks=callbacks), run.config)
    executor = Here(environment, train, folder_of=lambda _: run.folder)
    ((_, outcome),) = executor.run([Work("alone", (run.job,))])
    if isinstance(outcome, Result) and processes.is_leader():
        _conclude(run.folder, outcome, run.job.config)
    callbacks.on_run_end(config=run.config, config_name=run.name, job_return=environment.returned)
    return Done(_log_error(outcome), run.folder.path, None if isinstance(outcome, Result) else outcome)


def _conclude(folder: RunFolder, result: Result, config: Config) -> None:
    """Draw the report where it is asked for, and print the summary."""
    from holdfast.report import console

    if config.report is True:
        try:
            from holdfast.report.create import report_run

            report_run(folder, result, config)
        except Exception as error:  # a run whose report cannot be drawn is finished all the same
            print(console.report_failed(error, folder.path))
    elif config.logger.tensorboard:
        from holdfast.report.tensorboard import write_config

        write_config(folder)
    log.info("%s", console.summary(result, folder, config.epochs))
    if config.engine == "trainer":
        from holdfast.execute.lean import faster

        if line := faster(config, result):
            print(line)


def _log_error(outcome: Result | Exception) -> int:
    """Log the error of a run, if it has one; returns the exit code."""
    if isinstance(outcome, Result):
        return 0
    from holdfast.execute.shown_error import shown

    error = shown(outcome)
    # the console shows the message; the log has the whole traceback
    log.error("%s", error.text, exc_info=outcome if error.with_traceback else None, extra={"brief": error.brief})
    return error.exit_code
