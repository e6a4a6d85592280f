"""From a command line to a job that Hydra runs: flags, a folder that is claimed, an exit code."""

from __future__ import annotations

import logging
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, read_write

from holdfast.compose.loader import CONFIG_NAME, Loader, search_path, settings
from holdfast.compose.recompose import Recall
from holdfast.compose.resuming import command, flags, own, resumed
from holdfast.config.check import key_of
from holdfast.config.job import config_hash
from holdfast.config.schema import Config
from holdfast.errors import ConfigError, HoldfastError, Problem, Stopped, StorageError
from holdfast.search.grid import spell_out, unlisted
from holdfast.single import processes as ranks
from holdfast.store.files import write_json
from holdfast.store.folders import RunFolder
from holdfast.store.lock import await_leader, claim, locked
from holdfast.store.versions import versions

log = logging.getLogger(__name__)


def launch(words: list[str], conf: Path, task: Callable[[DictConfig], Any], prepare: Callable[[Config], None]) -> int:
    """Compose, check, claim a folder, and let Hydra run the task in it.

    Args:
        words: the command line after the program's name; flags may stand anywhere among the words.
        conf: the folder of the primary configuration.
        task: what runs in the claimed folder.
        prepare: what has to be known before a folder is claimed, such as whether the accelerator is there.

    Returns:
        The exit code: 0 when the work was done, 1 when a run failed.

    Raises:
        ConfigError: the words cannot work; nothing was written.
    """
    version.setbase("1.3")
    parser = get_args_parser()
    arguments = parser.parse_intermixed_args(words)
    _refuse(arguments)
    with ExitStack() as stack:
        loader = Loader(search_path(arguments, conf))
        hydra = Hydra(task_name="train", config_loader=loader)
        GlobalHydra.instance().initialize(hydra)
        stack.callback(GlobalHydra.instance().clear)
        name = arguments.config_name or CONFIG_NAME
        if arguments.hydra_help:
            hydra.hydra_help(name, args_parser=parser, args=arguments)
        elif arguments.shell_completion:
            loader.lenient = True
            hydra.shell_completion(name, arguments.overrides)
        elif arguments.info:
            hydra.show_info(arguments.info, name, arguments.overrides)
        elif arguments.cfg:
            hydra.show_cfg(name, arguments.overrides, arguments.cfg, arguments.package, arguments.resolve)
        else:
            typed, sweep = arguments.overrides, bool(arguments.multirun)
            found = resumed(typed, lambda: Recall(conf, flags()), sweep=sweep)
            words = found.words if found else typed
            if sweep:
                with ranks.alone():
                    return _sweep(hydra, name, words, task)
            return _run(hydra, name, words, task, prepare, begun=found.path if found else None)
        return 0


def _run(
    hydra: Hydra,
    name: str,
    words: list[str],
    task: Callable[[DictConfig], Any],
    prepare: Callable[[Config], None],
    *,
    begun: Path | None,
) -> int:
    """One run, as Hydra.run does it, but in a folder that is this run's alone; begun before, or not."""
    config = hydra.config_loader.load_configuration(name, [*words, "hydra.mode=RUN"], RunMode.RUN)
    HydraConfig.instance().set_config(config)
    if open_ := unlisted(config.hydra.sweeper.get("params"), words):
        raise ConfigError(
            [Problem(" ".join(words), f"is a sweep over {', '.join(open_)}: add -m, or give each a value")]
        )
    checked, values, origin = settings(config)
    digest = config_hash(values, origin)
    with ranks.entered(checked, Path(config.hydra.run.dir)) as launch:
        if launch.name and begun is None and not _chosen(config):
            lesson = f"all processes of {launch.name} train one run: add hydra.run.dir=outputs/runs/NAME, its folder"
            raise ConfigError([Problem(f"devices={checked.devices}", lesson)])
        run = _Run(config, checked, digest, origin, begun, partial(_train, hydra, name, config, task))
        return _lead(run, launch, prepare) if launch.rank == 0 else _follow(run, launch, prepare)


class _Run(NamedTuple):
    """A single run: its configuration as composed, as typed values and as written, and what trains it."""

    config: DictConfig
    checked: Config
    digest: str
    origin: Mapping[str, Any]
    begun: Path | None
    train: Callable[[], int]


def _chosen(config: DictConfig) -> bool:
    """Whether the user named the folder of a run."""
    return "hydra.run.dir" in map(key_of, config.hydra.overrides.hydra)


def _lead(run: _Run, launch: ranks.Launch, prepare: Callable[[Config], None]) -> int:
    """Train a run in a folder that is its alone."""
    if run.begun is None:
        prepare(run.checked)
        with read_write(run.config.hydra.run):
            run.config.hydra.run.dir = str(claim(Path(run.config.hydra.run.dir), chosen=_chosen(run.config)))
    folder = RunFolder(Path(run.config.hydra.run.dir))
    with locked(folder.path, launch.name):
        if run.begun is not None:
            if (over := _over(folder, run)) is not None:
                print(over[1])
                return over[0]
            prepare(run.checked)
        else:
            overrides = own(run.config.hydra.overrides.task)
            begun = {"overrides": overrides, "config_hash": run.digest, "config": run.origin, "versions": versions()}
            write_json(folder.begun, begun)
        try:
            return run.train()
        except KeyboardInterrupt as stop:
            raise Stopped.of(stop, command("hydra.run.dir", folder.path)) from None


def _follow(run: _Run, launch: ranks.Launch, prepare: Callable[[Config], None]) -> int:
    """Train as one of the further processes of a run, in the folder that the first one holds."""
    if not launch.name:  # the first process has started this one, and all is ready
        prepare(run.checked)
        return run.train()
    folder = RunFolder(Path(run.config.hydra.run.dir))
    if run.begun is not None:
        result = folder.finished(run.digest)
        if result is not None and result.status == "completed":
            return 0  # test rows that are opened again are opened by the first process alone
        if (over := _over(folder, run)) is not None:
            return over[0]
    prepare(run.checked)
    await_leader(folder.path, launch.name)
    with read_write(run.config.hydra):
        run.config.hydra.output_subdir = None
        run.config.hydra.job.name = f"{run.config.hydra.job.name}_ddp_process_{launch.rank}"
    return run.train()


def _over(folder: RunFolder, run: _Run) -> tuple[int, str] | None:
    """The exit code of a run that has nothing left to do, and what to say of it; None if it has."""
    result = folder.finished(run.digest)
    if result is None or (run.checked.test_again and run.checked.test):
        return None
    if result.status != "failed":
        return 0, f"{folder.path} is finished ({result.status}); nothing was done."
    if run.checked.retry_failed:
        return None
    return 1, f"{folder.path} failed: {result.error}\nNothing was done; retry_failed=true runs it again."


def _train(hydra: Hydra, name: str, config: DictConfig, task: Callable[[DictConfig], Any]) -> int:
    callbacks = Callbacks(config)
    callbacks.on_run_start(config=config, config_name=name)
    job = run_job(
        hydra_context=HydraContext(config_loader=hydra.config_loader, callbacks=callbacks),
        task_function=task,
        config=config,
        job_dir_key="hydra.run.dir",
        job_subdir_key=None,
    )
    callbacks.on_run_end(config=config, config_name=name, job_return=job)
    return exit_code(job)


def _sweep(hydra: Hydra, name: str, words: list[str], task: Callable[[DictConfig], Any]) -> int:
    """A multirun, as Hydra.multirun does it, but the sweeper may say how it went."""
    config = hydra.config_loader.load_configuration(
        name, [*map(spell_out, words), "hydra.mode=MULTIRUN"], RunMode.MULTIRUN
    )
    callbacks = Callbacks(config)
    callbacks.on_multirun_start(config=config, config_name=name)
    sweeper = Plugins.instance().instantiate_sweeper(
        hydra_context=HydraContext(config_loader=hydra.config_loader, callbacks=callbacks),
        task_function=task,
        config=config,
    )
    sweeper.sweep(arguments=list(config.hydra.overrides.task))
    callbacks.on_multirun_end(config=config, config_name=name)
    return getattr(sweeper, "exit_code", 0)


@contextmanager
def as_single_run(hydra: Any) -> Iterator[None]:
    """Let the processes that Lightning starts for more devices join a job, where they would start its sweep again.

    Lightning repeats the command line and adds the folder of the run.

    Args:
        hydra: the job's `HydraConfig.get()`.
    """
    before = sys.argv
    sys.argv = [before[0], *flags(), *hydra.overrides.task]
    with read_write(hydra.run):
        hydra.run.dir = hydra.runtime.output_dir
    try:
        yield
    finally:
        sys.argv = before


def exit_code(job: JobReturn) -> int:
    """The exit code of a job, after its error has been told."""
    if job.status == JobStatus.COMPLETED:
        return 0
    error = StorageError.of(job._return_value) or job._return_value
    if isinstance(error, HoldfastError):
        log.error("%s", error)
        return error.exit_code
    log.error("%s", f"The run failed: {type(error).__name__}: {error}", exc_info=error)
    return 1


def _refuse(arguments: Namespace) -> None:
    if arguments.experimental_rerun is not None:
        raise ConfigError([Problem("--experimental-rerun", "would run a pickle; type the run's words again instead")])
    modes = [arguments.run, arguments.multirun, arguments.cfg, arguments.info, arguments.shell_completion]
    if sum(map(bool, modes)) > 1:
        raise ConfigError([Problem(" ".join(sys.argv[1:]), "give one of --run, --multirun, --cfg, --info and -sc")])
