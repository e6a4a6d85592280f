"""From a command line to a run, a sweep, or what Hydra shows: `--cfg`, `--info`, completion."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from holdfast.compose.done import Done
from holdfast.compose.flags import config_flags, in_project, search_path
from holdfast.compose.loader import CONFIG_NAME, Loader
from holdfast.compose.recompose import Recomposer
from holdfast.compose.resumed import RUN, SWEEP, resumed
from holdfast.compose.single_run import run_single
from holdfast.errors import ConfigError, Problem
from holdfast.runtime import processes
from holdfast.search.grid import spell_out


def run(words: Sequence[str], conf: Path, passed: Path | None = None) -> Done:
    """Do what a command line asks for.

    Args:
        words: the command line after the program's name; flags may stand anywhere among the overrides.
        conf: the folder of the primary configuration.
        passed: a folder with the options that were passed from Python.

    Returns:
        Its folder, and the exit code: 0 when a run completed or diverged, or a sweep has a winner and no failed job.

    Raises:
        ConfigError: the overrides cannot work; nothing was written.
    """
    version.setbase("1.3")
    parser = get_args_parser()
    arguments = parser.parse_intermixed_args(list(words))
    _refuse_flags(arguments, words)
    with ExitStack() as stack:
        flags = config_flags(arguments)
        arguments = in_project(arguments)
        loader = Loader(search_path(arguments, conf, passed), flags)
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
            kind = SWEEP if arguments.multirun else RUN
            resuming = resumed(arguments.overrides, lambda: Recomposer(conf, loader.flags, passed), kind)
            overrides = resuming.overrides if resuming else arguments.overrides
            if kind is RUN:
                return run_single(loader, name, overrides, resumed=resuming.path if resuming else None)
            with processes.single_process():
                return _sweep(loader, name, overrides)
        return Done(0)


@contextmanager
def hydra_restored() -> Iterator[None]:
    """Leave Hydra as it was, for a caller that uses it too."""
    hydra, config = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    base = version.getbase()
    GlobalHydra.instance().hydra = None  # it can be initialised once at a time
    try:
        yield
    finally:
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = hydra, config
        version.VersionBase.instance().version_base = base


def _sweep(loader: Loader, name: str, overrides: Sequence[str]) -> Done:
    """A multirun, as `Hydra.multirun` does it."""
    words = [*map(spell_out, overrides), "hydra.mode=MULTIRUN"]
    config = loader.load_configuration(name, words, RunMode.MULTIRUN)
    from holdfast.compose.launchers import task  # not needed where the overrides are refused

    _refuse_sweeper(config)
    callbacks = Callbacks(config)
    callbacks.on_multirun_start(config=config, config_name=name)
    sweeper = Plugins.instance().instantiate_sweeper(
        hydra_context=HydraContext(config_loader=loader, callbacks=callbacks), task_function=task, config=config
    )
    sweeper.sweep(arguments=list(config.hydra.overrides.task))
    callbacks.on_multirun_end(config=config, config_name=name)
    # Hydra may have loaded its plugins anew, so that a class imported earlier would be another one
    from hydra_plugins.holdfast.sweeper import HoldfastSweeper

    if isinstance(sweeper, HoldfastSweeper):
        return Done(sweeper.exit_code, sweeper.path)
    print(f"{config.hydra.sweep.dir}: trained by another sweeper; only hydra/sweeper=holdfast chooses a winner")
    return Done(0, Path(config.hydra.sweep.dir))


def _refuse_sweeper(config: DictConfig) -> None:
    """Refuse our launchers under another sweeper, which hands them jobs that were not planned."""
    choices = config.hydra.runtime.choices
    sweeper, launcher = choices["hydra/sweeper"], choices["hydra/launcher"]
    if launcher in ("stacked", "processes", "ray", "slurm") and sweeper != "holdfast":
        lesson = "stacks are planned by hydra/sweeper=holdfast: leave it out, or add hydra/launcher=basic"
        raise ConfigError([Problem(f"hydra/sweeper={sweeper}", lesson)])


def _refuse_flags(arguments: Namespace, words: Sequence[str]) -> None:
    if arguments.experimental_rerun is not None:
        raise ConfigError(
            [Problem("--experimental-rerun", "would run a pickle; type the overrides of the run again instead")]
        )
    modes = [arguments.run, arguments.multirun, arguments.cfg, arguments.info, arguments.shell_completion]
    if sum(map(bool, modes)) > 1:
        raise ConfigError([Problem(" ".join(words), "give one of --run, --multirun, --cfg, --info and -sc")])
