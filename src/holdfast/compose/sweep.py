"""From the overrides of a multirun to a sweep whose jobs are all composed, checked and hashed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.utils import setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from holdfast.compose.checked import Composed
from holdfast.compose.done import Done
from holdfast.compose.executors import (
    THREADS_OF_WORKERS,
    Executors,
    devices_elsewhere,
    launcher_problems,
    uses_workers,
)
from holdfast.compose.loader import Loader
from holdfast.compose.resumed import sweep_controls, user_overrides
from holdfast.compose.searched import jobs_of
from holdfast.config.keys import key_of
from holdfast.config.options import TABLE
from holdfast.config.schema import Config
from holdfast.errors import ConfigError, Problem
from holdfast.search.grid import overrides_of
from holdfast.sweeps.controller import run_sweep
from holdfast.sweeps.ended import differing_keys
from holdfast.sweeps.spec import SweepSpec

MOST_PROBLEMS = 20
"""Problems that are reported at once, where a sweep of thousands of jobs has a mistake in each."""


class Multirun(NamedTuple):
    """A multirun as Hydra hands it to our sweeper.

    Attributes:
        context: our loader and Hydra's callbacks.
        config: the configuration of the sweep, without the overrides of single jobs.
        launcher: the launcher that is chosen.
        params: `hydra.sweeper.params`.
        overrides: those of the command line, as typed.
        batch_size: jobs that are handed to the launcher at a time; None for all.
    """

    context: HydraContext
    config: DictConfig
    launcher: Launcher
    params: Any
    overrides: list[str]
    batch_size: int | None = None


def run_multirun(multirun: Multirun) -> Done:
    """Run every job of a multirun and choose the winner.

    Raises:
        ConfigError: an override cannot work, in any job; nothing was written.
    """
    setup_globals()
    spec = sweep_spec(multirun)
    executors = Executors(multirun.context, multirun.config, multirun.launcher, spec)
    try:
        code = run_sweep(spec, executors.make_tools)
        return Done(code, Path(multirun.config.hydra.sweep.dir))  # which is the one that was claimed
    finally:
        executors.close()


def sweep_spec(multirun: Multirun) -> SweepSpec:
    """Compose, check and hash every job of a multirun.

    Raises:
        ConfigError: with the problems of all jobs.
    """
    # Hydra may have loaded its plugins anew, so that a class imported earlier would be another one
    from hydra_plugins.holdfast.launcher import StackedLauncher

    loader, config = multirun.context.config_loader, multirun.config
    assert isinstance(loader, Loader)
    overrides, controls = user_overrides(multirun.overrides), sweep_controls(multirun.overrides)
    problems = launcher_problems(multirun.launcher)
    asked = jobs_of(loader, config, overrides_of(multirun.params, overrides))
    elsewhere = None if problems else devices_elsewhere(multirun.launcher)
    composed = _compose(loader, config, asked.jobs, problems)
    loader.swept = tuple(differing_keys([each for each, _ in composed]))
    return SweepSpec(
        jobs=tuple(loader.job_spec(config, number, each) for number, (each, _) in enumerate(composed)),
        overrides=overrides,
        origin=dict(composed[0][1].origin),
        launcher=str(config.hydra.runtime.choices["hydra/launcher"]),
        stacked=isinstance(multirun.launcher, StackedLauncher),
        alone_because=alone_because(config),
        threads=THREADS_OF_WORKERS if uses_workers(multirun.launcher) or elsewhere else None,
        device_counts=elsewhere,
        searched=asked.searched,
        rounds=asked.rounds,
        compose=partial(loader.job_spec, config),
        batch_size=multirun.batch_size,
        path=Path(config.hydra.sweep.dir),
        chosen="hydra.sweep.dir" in map(key_of, config.hydra.overrides.hydra),
        flags=loader.flags,
        keys=launcher_keys(config),
        **controls,
    )


def launcher_keys(config: DictConfig) -> list[str]:
    """The overrides of the launcher's keys, which no folder records; without whether the launcher waits."""
    keys = [item for item in config.hydra.overrides.hydra if key_of(item).startswith("hydra.launcher.")]
    return [item for item in keys if key_of(item) != "hydra.launcher.wait"]


def alone_because(config: DictConfig) -> str | None:
    """Why every job of a sweep has to be trained alone; None where it need not."""
    job = config.hydra.job
    key = "hydra.job.chdir" if job.chdir else "hydra.job.env_set" if job.env_set else None
    return None if key is None else f"{key} changes the process, so that jobs cannot share a stack"


def _compose(
    loader: Loader, config: DictConfig, jobs: Sequence[list[str]], others: Sequence[Problem]
) -> list[tuple[list[str], Composed]]:
    """Every job with its overrides, composed; all problems are raised together, with others."""
    problems: dict[Problem, None] = dict.fromkeys(others)
    composed = []
    if _subdir(config) != "${hydra.job.num}":
        problems[Problem("hydra.sweep.subdir", "the folders of jobs are numbered: leave it out")] = None
    for overrides in jobs:
        try:
            job = loader.job(config, overrides)
        except ConfigError as error:
            problems.update(dict.fromkeys(error.problems))
            if len(problems) >= MOST_PROBLEMS:
                break
            continue
        if job.config.test:
            lesson = "a sweep tests its winner, and only its winner: leave test out"
            problems[Problem("test=true", lesson)] = None
        if job.config.engine == "lean":
            lesson = "is for a single run: a sweep trains in stacks by itself where that is right; leave it out"
            problems[Problem("engine=lean", lesson)] = None
        composed.append((overrides, job))
    if any(_mixes_test_rows(job.config, composed[0][1].config) for _, job in composed):
        lesson = (
            "divides a table anew with each seed, so that test rows of one seed would be validated on under another: "
            "keep them apart, by data.test_path=FILE or data.split=COLUMN, or repeat over seeds and folds"
        )
        problems[Problem("sweep.repeats=[data.seed]", lesson)] = None
    for key in ("metric", "mode", "report", "sweep") if composed else ():
        if any(getattr(job.config, key) != getattr(composed[0][1].config, key) for _, job in composed):
            problems[Problem(key, "must have the same value in every job, since jobs are ranked and kept by it")] = None
    if problems:
        raise ConfigError(list(problems))
    return composed


def _mixes_test_rows(config: Config, first: Config) -> bool:
    """Whether test rows of one job are validation rows of a repeat of it."""
    data = config.data
    if data["_target_"] != TABLE or "data.seed" not in config.sweep.repeats:
        return False
    return data["seed"] != first.data.get("seed") and not any(data[key] for key in ("test_path", "split", "time"))


def _subdir(config: DictConfig) -> Any:
    return OmegaConf.to_container(config.hydra.sweep, resolve=False)["subdir"]  # type: ignore[call-overload,index]
