"""Composing a configuration: groups once a choice, words one by one, and all that is wrong with them at once."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from holdfast.compose import overrides as parsing
from holdfast.compose.composed import Base, Plain, as_hydras, plain
from holdfast.config.check import Cache, as_override, did_you_mean, keys_under, validate
from holdfast.config.job import JobSpec, config_hash
from holdfast.config.schema import Config
from holdfast.errors import ConfigError, Problem

CONFIG_NAME = "config"

BASES_SENT = 4
"""Most choices of groups that are sent composed to another process; it takes 0.2 s to compose one."""


def settings(config: DictConfig) -> tuple[Config, Plain, Plain]:
    """A composed configuration as typed values, with its plain containers resolved and as written.

    Raises:
        ConfigError: something in it does not fit the schema, or cannot be resolved.
    """
    values, origin = plain(config)
    groups = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    return validate(values, origin, groups), values, origin


class Composed(NamedTuple):
    """One job of a sweep.

    Attributes:
        config: its configuration.
        config_hash: the digest of that.
        base: what it was edited from; None where it had to be composed by itself.
        origin: its configuration as written, in plain containers.
        typed: the keys whose values were set.
    """

    config: Config
    config_hash: str
    base: Base | None
    origin: Plain
    typed: frozenset[str]


class Loader(ConfigLoaderImpl):
    """Hydra's loader, which composes a choice of groups once, and finds all that is wrong with the words at once.

    Hydra composes anew for every job of a sweep, twice, and stops at its first error. Here the groups are composed
    once a choice and kept; words that only set values are applied to a copy, one by one.

    Args:
        search_path: where groups are looked for.
        flags: those of the command line that say so, such as `--config-dir`, with their values.

    Attributes:
        flags: as given.
        lenient: whether a configuration that does not fit the schema is let through, as for tab completion.
    """

    def __init__(self, search_path: ConfigSearchPath, flags: Sequence[str] = ()) -> None:
        super().__init__(search_path)
        self.flags, self.lenient = list(flags), False
        self._bases: dict[tuple[Any, ...], Base] = {}
        self._options: dict[tuple[str, ...], list[str] | None] = {}
        self._master: tuple[Any, list[str], Any] = (None, [], None)
        self._jobs: dict[tuple[str, ...], Composed] = {}
        self._checked: Cache = {}

    def __getstate__(self) -> dict[str, Any]:
        """What a launcher sends with every job to another process: no job but a few choices of groups.

        The caches of jobs grow with the sweep.
        """
        empty: dict[str, Any] = {"_options": {}, "_master": (None, [], None), "_jobs": {}, "_checked": {}}
        return {**vars(self), **empty, "_bases": dict(islice(self._bases.items(), BASES_SENT))}

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
        config = self._assemble(config_name, overrides, run_mode, problems)
        # without a name it is Hydra's own help that composes; a word is completed before it is right
        if config_name is not None and not self.lenient:
            _check(config, problems)
        return config

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """The configuration of one job, with the time stamps of its sweep; its words are those `job` has checked.

        Raises:
            ConfigError: with every word that cannot work.
        """
        problems: list[Problem] = []
        overrides = [*master_config.hydra.overrides.hydra, *sweep_overrides]
        config = self._assemble(master_config.hydra.job.config_name, overrides, RunMode.RUN, problems)
        if problems:
            raise ConfigError(problems)
        OmegaConf.copy_cache(from_config=master_config, to_config=config)
        config.hydra.sweep.dir = master_config.hydra.sweep.dir  # the folder that the sweep has claimed
        return config

    def job(self, master_config: DictConfig, sweep_overrides: list[str]) -> Composed:
        """The configuration of one job of a sweep, most often without composing it; asked twice, the same.

        Raises:
            ConfigError: with every word that cannot work.
        """
        if master_config is not self._master[0]:
            self._master = (
                master_config,
                list(master_config.hydra.overrides.hydra),
                master_config.hydra.job.config_name,
            )
            self._jobs = {}
        key = tuple(sweep_overrides)
        if key not in self._jobs:
            self._jobs[key] = self._job([*self._master[1], *sweep_overrides], self._master[2])
        return self._jobs[key]

    def job_spec(self, master_config: DictConfig, number: int, sweep_overrides: list[str]) -> JobSpec:
        """One job of a sweep, by its number; raises as `job` does."""
        job = self.job(master_config, sweep_overrides)
        return JobSpec(number, tuple(sweep_overrides), job.config, job.config_hash)

    def _job(self, overrides: list[str], name: str) -> Composed:
        problems: list[Problem] = []
        _, groups, values = self._sort(name, overrides, RunMode.RUN, problems)
        base = self._base(name, groups, problems)
        edited = None if problems else base.edited(values)
        if edited is not None:
            config = validate(*edited, base.groups, self._checked)
            typed = frozenset(item.key_or_group for item in values)
            return Composed(config, config_hash(*edited), base, edited[1], typed)
        composed = self.load_configuration(name, overrides, RunMode.RUN)
        with as_hydras(composed):
            checked, plain_values, origin = settings(composed)
        return Composed(checked, config_hash(plain_values, origin), None, origin, frozenset())

    def _assemble(
        self, config_name: str | None, overrides: list[str], run_mode: RunMode, problems: list[Problem]
    ) -> DictConfig:
        """A configuration with its words applied, and what Hydra itself would have recorded of them."""
        parsed, groups, values = self._sort(config_name, overrides, run_mode, problems)
        config = self._base(config_name, groups, problems).copy()
        for item in values:
            parsing.apply(item, config, problems)
        task = [item for item in parsed if not item.is_hydra_override()]
        config.hydra.overrides.task = [parsing.text(item) for item in task]
        style = config.hydra.job.config.override_dirname
        config.hydra.job.override_dirname = get_overrides_dirname(
            task, style.exclude_keys, style.item_sep, style.kv_sep
        )
        return config

    def _sort(
        self, config_name: str | None, overrides: list[str], run_mode: RunMode, problems: list[Problem]
    ) -> tuple[list[Override], list[str], list[Override]]:
        """All words, those that choose groups or are Hydra's own, and those that set values."""
        parsed = parsing.parse(overrides, problems)
        own = (item for item in parsed if item.is_hydra_override() and not item.is_sweep_override())
        hydra_words = [parsing.text(item) for item in own]
        groups, values, seen = hydra_words.copy(), [], set()
        for item in parsed:
            if item.is_hydra_override():
                if item.is_sweep_override():
                    problems.append(Problem(parsing.text(item), "Sweeping over Hydra's configuration is not supported"))
                continue
            key, word = (item.key_or_group, item.package), parsing.text(item)
            if key in seen:
                problems.append(Problem(word, f"{item.key_or_group} is given twice; give it once"))
            seen.add(key)
            options = self._options_of(config_name, item.key_or_group, hydra_words)
            if item.is_sweep_override():
                if run_mode == RunMode.RUN:
                    problems.append(Problem(word, "lists several values: add -m to try each of them"))
            elif options is None or isinstance(item.value(), dict):
                values.append(item)
            elif item.value() is None and item.key_or_group in keys_under("", {}):
                problems.append(Problem(word, f"cannot be left out; {did_you_mean('', options)}"))
            elif unknown := [name for name in parsing.choices(item) if name not in options]:
                problems.append(Problem(word, f"no such option; {did_you_mean(unknown[0], options)}"))
            else:
                groups.append(word)
        return parsed, groups, values

    def _options_of(self, config_name: str | None, group: str, hydra_words: list[str]) -> list[str] | None:
        """The options of a config group, or None if there is no such group."""
        key = (group, *hydra_words)
        if key not in self._options:
            _, repository = self._parse_overrides_and_create_caching_repo(config_name, hydra_words)
            self._options[key] = repository.get_group_options(group) if repository.group_exists(group) else None
        return self._options[key]

    def _base(self, config_name: str | None, groups: list[str], problems: list[Problem]) -> Base:
        """What a choice of groups composes to; a choice that Hydra refuses is dropped, and told."""
        key = (config_name, tuple(groups))
        try:
            if key not in self._bases:
                self._bases[key] = Base(super().load_configuration(config_name, groups, RunMode.RUN))
        except (HydraException, YAMLError) as error:
            cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
            culprit = next((item for item in groups if item.lstrip("+~").partition("=")[0] in str(error)), None)
            problems.append(Problem(culprit or "configuration", str(cause) or str(error)))
            if culprit is None:
                raise ConfigError(problems) from error
            return self._base(config_name, [item for item in groups if item != culprit], problems)
        return self._bases[key]


def search_path(arguments: Namespace, conf: Path) -> ConfigSearchPath:
    """Where groups are looked for: in `--config-dir`, then in the primary configuration's folder.

    Args:
        arguments: the flags of the command line.
        conf: the folder of the primary configuration, unless `--config-path` names another.

    Raises:
        ConfigError: `--config-dir` is not a folder.
    """
    primary = Path(arguments.config_path) if arguments.config_path else conf
    path = create_config_search_path(f"file://{primary.resolve()}")
    if arguments.config_dir is not None:
        folder = Path(arguments.config_dir).resolve()
        if not folder.is_dir():
            raise ConfigError([Problem(f"--config-dir {arguments.config_dir}", "is not a folder")])
        path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
    return path


def _check(config: DictConfig, problems: list[Problem]) -> None:
    """Hold the whole configuration against the schema; raises with all problems, those of the words first."""
    with as_hydras(config):
        for key in ("hydra.run.dir", "hydra.sweep.dir"):
            if not OmegaConf.select(config, key):
                problems.append(Problem(as_override(key, ""), "must name a folder"))
        try:
            settings(config)
        except ConfigError as error:
            raise ConfigError([*problems, *error.problems]) from None
    if problems:
        raise ConfigError(problems)
