"""Everything that leans on Hydra's inside: flags, composing once, claiming a folder, exit codes."""

from __future__ import annotations

import logging
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus, run_job
from hydra.errors import HydraException, OverrideParseException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from holdfast.errors import ConfigError, HoldfastError, Problem
from holdfast.runs import claim
from holdfast.schema import Config
from holdfast.validation import did_you_mean, is_mapping, keys_under, validate, word

log = logging.getLogger(__name__)

CONFIG_NAME = "config"


def settings(config: DictConfig) -> tuple[Config, dict[str, Any], dict[str, Any]]:
    """A composed configuration as typed values, with its plain containers resolved and as written.

    Raises:
        ConfigError: something in it does not fit the schema, or cannot be resolved.
    """
    with open_dict(config):
        hydra = config.pop("hydra", None)
    try:
        origin = OmegaConf.to_container(config, resolve=False)
        values = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError([Problem(str(error.full_key), str(error).splitlines()[0])]) from error
    finally:
        if hydra is not None:
            with open_dict(config):
                config.hydra = hydra
    assert isinstance(values, dict) and isinstance(origin, dict)
    groups = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    return validate(values, origin, groups), values, origin  # type: ignore[arg-type]


class Loader(ConfigLoaderImpl):
    """Hydra's loader, which composes a choice of groups once, and finds all that is wrong with the words at once.

    Hydra composes anew for every job of a sweep and stops at its first error. Here the groups are composed once
    a choice and kept; words that only set values are applied to a copy, one by one.
    """

    def __init__(self, search_path: ConfigSearchPath) -> None:
        super().__init__(search_path)
        self._composed: dict[tuple[Any, ...], DictConfig] = {}

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Compose, apply the words, and hold the outcome against the schema.

        Raises:
            ConfigError: with every word that cannot work.
        """
        problems: list[Problem] = []
        parsed = _parse(overrides, problems)
        hydra_words = [item.input_line for item in parsed if item.is_hydra_override()]
        _, repository = self._parse_overrides_and_create_caching_repo(config_name, hydra_words)
        groups, values, seen = [], [], set()
        for item in parsed:
            if item.is_hydra_override():
                groups.append(item.input_line)
                continue
            key = (item.key_or_group, item.package)
            if key in seen:
                problems.append(Problem(item.input_line, f"{item.key_or_group} is given twice; give it once"))
            seen.add(key)
            if item.is_sweep_override():
                if run_mode == RunMode.RUN:
                    problems.append(Problem(item.input_line, "lists several values: add -m to try each of them"))
            elif repository.group_exists(item.key_or_group) and not isinstance(item.value(), dict):
                options = repository.get_group_options(item.key_or_group)
                if unknown := [name for name in _choices(item) if name not in options]:
                    problems.append(Problem(item.input_line, f"no such option; {did_you_mean(unknown[0], options)}"))
                else:
                    groups.append(item.input_line)
            else:
                values.append(item)
        config = self._compose(config_name, groups, run_mode, problems)
        for item in values:
            _apply(item, config, problems)
        self._record(config, [item for item in parsed if not item.is_hydra_override()])
        _check(config, problems)
        return config

    def _compose(
        self, config_name: str | None, groups: list[str], run_mode: RunMode, problems: list[Problem]
    ) -> DictConfig:
        """The configuration of a choice of groups; a choice that Hydra refuses is dropped, and told."""
        key = (config_name, tuple(groups), run_mode)
        try:
            if key not in self._composed:
                self._composed[key] = super().load_configuration(config_name, groups, run_mode)
        except HydraException as error:
            cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
            culprit = next((item for item in groups if item.lstrip("+~").partition("=")[0] in str(error)), None)
            problems.append(Problem(culprit or "configuration", str(cause) or str(error)))
            if culprit is None:
                raise ConfigError(problems) from error
            return self._compose(config_name, [item for item in groups if item != culprit], run_mode, problems)
        return self._composed[key].copy()

    @staticmethod
    def _record(config: DictConfig, task: list[Override]) -> None:
        """Leave in the configuration what Hydra itself would have recorded of the words."""
        config.hydra.overrides.task = [item.input_line for item in task]
        style = config.hydra.job.config.override_dirname
        config.hydra.job.override_dirname = get_overrides_dirname(
            task, style.exclude_keys, style.item_sep, style.kv_sep
        )


def compose(words: list[str], conf: Path) -> Config:
    """The configuration that some words make, without running it.

    Args:
        words: as typed on the command line; flags have no meaning here.
        conf: the folder of the primary configuration.

    Raises:
        ConfigError: with every word that cannot work.
    """
    version.setbase("1.3")
    loader = Hydra("train", Loader(_search_path(get_args_parser().parse_args([]), conf))).config_loader
    config = loader.load_configuration(CONFIG_NAME, [*words, "hydra.mode=RUN"], RunMode.RUN)
    return settings(config)[0]


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
        hydra = Hydra(task_name="train", config_loader=Loader(_search_path(arguments, conf)))
        GlobalHydra.instance().initialize(hydra)
        stack.callback(GlobalHydra.instance().clear)
        name = arguments.config_name or CONFIG_NAME
        if arguments.hydra_help:
            hydra.hydra_help(name, args_parser=parser, args=arguments)
        elif arguments.shell_completion:
            hydra.shell_completion(name, arguments.overrides)
        elif arguments.info:
            hydra.show_info(arguments.info, name, arguments.overrides)
        elif arguments.cfg:
            hydra.show_cfg(name, arguments.overrides, arguments.cfg, arguments.package, arguments.resolve)
        elif arguments.multirun:
            hydra.multirun(name, task, [*arguments.overrides, "hydra.mode=MULTIRUN"])
        else:
            return _run(hydra, name, arguments.overrides, task, prepare)
        return 0


def _run(
    hydra: Hydra,
    name: str,
    words: list[str],
    task: Callable[[DictConfig], Any],
    prepare: Callable[[Config], None],
) -> int:
    """One run, as Hydra.run does it, but in a folder that is this run's alone."""
    config = hydra.config_loader.load_configuration(name, [*words, "hydra.mode=RUN"], RunMode.RUN)
    HydraConfig.instance().set_config(config)
    prepare(settings(config)[0])
    # a second process of the same run, started by Lightning, joins the folder that the first one claimed
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        chosen = any(item.startswith("hydra.run.dir=") for item in config.hydra.overrides.hydra)
        with read_write(config.hydra.run):
            config.hydra.run.dir = str(claim(Path(config.hydra.run.dir), chosen=chosen))
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


def exit_code(job: JobReturn) -> int:
    """The exit code of a job, after its error has been told."""
    if job.status == JobStatus.COMPLETED:
        return 0
    error = job._return_value
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


def _search_path(arguments: Namespace, conf: Path) -> ConfigSearchPath:
    primary = Path(arguments.config_path) if arguments.config_path else conf
    search_path = create_config_search_path(f"file://{primary.resolve()}")
    if arguments.config_dir is not None:
        folder = Path(arguments.config_dir).resolve()
        if not folder.is_dir():
            raise ConfigError([Problem(f"--config-dir {arguments.config_dir}", "is not a folder")])
        search_path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
    return search_path


def _parse(words: list[str], problems: list[Problem]) -> list[Override]:
    parser, parsed = OverridesParser.create(), []
    for item in words:
        try:
            parsed += parser.parse_overrides([item])
        except OverrideParseException as error:
            text = "is not of the form key=value" if "=" not in item else str(error).splitlines()[0]
            problems.append(Problem(item, text))
    return parsed


def _choices(item: Override) -> list[str]:
    """The options that a word chooses of a group: `callbacks=[default,mine]` chooses two."""
    value = item.value()
    return [str(name) for name in value] if isinstance(value, list) else [] if value is None else [str(value)]


def _apply(item: Override, config: DictConfig, problems: list[Problem]) -> None:
    """Set one value, or say why it cannot be set."""
    above, _, key = item.key_or_group.rpartition(".")
    node = OmegaConf.select(config, above) if above else config
    if item.is_delete() and key in keys_under(above, config):
        problems.append(Problem(item.input_line, f"cannot be left out: give {item.key_or_group} a value"))
        return
    try:
        if is_mapping(item.key_or_group, config):
            # Hydra would merge, so that data.outliers={} could never empty the mapping
            OmegaConf.update(config, item.key_or_group, item.value(), merge=False)
        else:
            ConfigLoaderImpl._apply_overrides_to_config([item], config)
    except (HydraException, OmegaConfBaseException) as error:
        known = keys_under(above, config) or (list(node) if isinstance(node, Mapping) else [])
        known = [str(name) for name in known if name not in ("_target_", "hydra")]
        if not known:
            lesson = f"no such key: {above} holds no keys"
        elif key in known or item.is_delete():
            lesson = str(error.__cause__ or error).splitlines()[0]
        else:
            lesson = f"no such key; {did_you_mean(key, known, f'{above}.' if above else '')}"
        problems.append(Problem(item.input_line, lesson))


def _check(config: DictConfig, problems: list[Problem]) -> None:
    """Hold the whole configuration against the schema; raises with all problems, those of the words first."""
    previous = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        for key in ("hydra.run.dir", "hydra.sweep.dir"):
            if not OmegaConf.select(config, key):
                problems.append(Problem(word(key, ""), "must name a folder"))
        with read_write(config.hydra.runtime):  # a value may refer to the folder, which is claimed later
            config.hydra.runtime.output_dir = str(Path(config.hydra.run.dir).absolute())
        settings(config)
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from None
    finally:
        HydraConfig.instance().cfg = previous
        OmegaConf.set_readonly(config.hydra, False)  # launchers still number their jobs in it
    if problems:
        raise ConfigError(problems)
