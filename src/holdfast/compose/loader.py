"""Hydra's loader, made to compose each choice of config groups once and to report all problems at once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from holdfast.compose import overrides as parsing
from holdfast.compose.checked import Composed, checked
from holdfast.compose.composed import Base, as_hydra_config_without_folder
from holdfast.config.check import Cache, validate
from holdfast.config.job import JobSpec, digest_of, hashed_texts
from holdfast.config.keys import as_override, did_you_mean, keys_under
from holdfast.errors import ConfigError, Problem

CONFIG_NAME = "config"

BASES_SENT = 4
"""Largest number of composed choices of groups that are sent to another process; composing one takes 0.2 s."""


class Loader(ConfigLoaderImpl):
    """Hydra's loader, which composes each choice of config groups once and reports all problems at once.

    Hydra composes every job of a sweep anew, twice, and stops at its first error. Here a choice of config groups is
    composed once; overrides that only set values are applied to a copy, one by one.

    Args:
        search_path: where config groups are looked for.
        flags: the flags of the command line that set the search path, such as `--config-dir`, with their values.

    Attributes:
        flags: as given.
        swept: the keys that differ between the jobs of the sweep; None until they are known.
        lenient: whether a configuration that does not fit the schema is accepted, as for tab completion.
    """

    def __init__(self, search_path: ConfigSearchPath, flags: Sequence[str] = ()) -> None:
        super().__init__(search_path)
        self.flags, self.lenient = list(flags), False
        self.swept: tuple[str, ...] | None = None
        self._bases: dict[tuple[Any, ...], Base] = {}
        self._options: dict[tuple[str, ...], list[str] | None] = {}
        self._sweep: tuple[Any, list[str], Any] = (None, [], None)  # configuration, Hydra's overrides, name
        self._jobs: dict[tuple[str, ...], Composed] = {}
        self._values: dict[str, Override] = {}  # of the sweep: what sets a value, by its text
        self._checked: Cache = {}
        self._hashed: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """What a launcher sends to another process with every job: a few bases, and no job of the sweep."""
        state: dict[str, Any] = vars(self) | {"_sweep": (None, [], None)}
        state |= {key: {} for key in ("_options", "_jobs", "_values", "_checked", "_hashed")}
        return state | {"_bases": dict(islice(self._bases.items(), BASES_SENT))}

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Compose a configuration for Hydra, and check it.

        Raises:
            ConfigError: with all problems.
        """
        # no name: called for Hydra's help; lenient: the override that is being completed may be invalid
        if config_name is None or self.lenient:
            return self._assemble(config_name, overrides, run_mode, [])
        return self.compose(config_name, overrides, run_mode)[0]

    def compose(self, config_name: str, overrides: list[str], run_mode: RunMode) -> tuple[DictConfig, Composed]:
        """Compose a configuration, for Hydra and checked.

        Raises:
            ConfigError: with all problems, those of single overrides first.
        """
        problems: list[Problem] = []
        config = self._assemble(config_name, overrides, run_mode, problems)
        with as_hydra_config_without_folder(config):
            for key in ("hydra.run.dir", "hydra.sweep.dir"):
                if not OmegaConf.select(config, key):
                    problems.append(Problem(as_override(key, ""), "must name a folder"))
            try:
                composed = checked(config)
            except ConfigError as error:
                raise ConfigError([*problems, *error.problems]) from None
        if problems:
            raise ConfigError(problems)
        return config, composed

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """The configuration of one job for Hydra, with the time stamps of its sweep; `job` has checked it.

        Raises:
            ConfigError: with the problems of single overrides.
        """
        problems: list[Problem] = []
        overrides = [*parsing.as_typed(master_config.hydra.overrides.hydra), *sweep_overrides]
        config = self._assemble(master_config.hydra.job.config_name, overrides, RunMode.RUN, problems)
        if problems:
            raise ConfigError(problems)
        OmegaConf.copy_cache(from_config=master_config, to_config=config)
        config.hydra.sweep.dir = master_config.hydra.sweep.dir  # the folder that the sweep has claimed
        return config

    def job(self, sweep_config: DictConfig, overrides: Sequence[str]) -> Composed:
        """The configuration of one job of a sweep, in most cases without composing it.

        Raises:
            ConfigError: with all problems.
        """
        if sweep_config is not self._sweep[0]:
            hydra = sweep_config.hydra
            self._sweep = (sweep_config, parsing.as_typed(hydra.overrides.hydra), hydra.job.config_name)
            self._jobs, self._values = {}, {}
        key = tuple(overrides)
        if key not in self._jobs:
            self._jobs[key] = self._job(overrides)
        return self._jobs[key]

    def job_spec(self, sweep_config: DictConfig, number: int, overrides: Sequence[str]) -> JobSpec:
        """One job of a sweep, by its number.

        Raises:
            ConfigError: with all problems.
        """
        composed = self.job(sweep_config, overrides)
        return JobSpec(number, tuple(overrides), composed.config, composed.config_hash, self.swept)

    def _job(self, own: Sequence[str]) -> Composed:
        _, hydras, config_name = self._sweep
        overrides, problems = [*hydras, *own], list[Problem]()
        groups, values = hydras, [self._values[text] for text in own if text in self._values]
        if len({item.key_or_group for item in values}) < len(own):  # not all are known from earlier jobs
            _, groups, values = self._sort(config_name, overrides, RunMode.RUN, problems)
            if not problems:
                self._values |= {parsing.text(item): item for item in values}
        base = self._base(config_name, groups, problems)
        edited = None if problems else base.edited(values)
        if edited is None:
            return self.compose(config_name, overrides, RunMode.RUN)[1]
        plain, origin, changed = edited
        checked, texts = base.checked.copy(), base.hashed.copy()  # found for earlier jobs
        for key in changed:
            checked.pop(key, None)
            texts.pop(key, None)
        config = validate(plain, origin, base.groups, self._checked, checked)
        new = hashed_texts(plain, origin, plain.keys() - texts.keys(), self._hashed)
        if fresh := new.keys() - changed:
            base.hashed |= {key: new[key] for key in fresh}
            base.checked |= {key: value for key, value in vars(config).items() if key in fresh}
        typed = frozenset(item.key_or_group for item in values)
        return Composed(config, digest_of(texts | new), origin, base, typed)

    def _assemble(
        self, config_name: str | None, overrides: list[str], run_mode: RunMode, problems: list[Problem]
    ) -> DictConfig:
        """A configuration with its overrides applied, and Hydra's record of them."""
        parsed, groups, values = self._sort(config_name, overrides, run_mode, problems)
        config = self._base(config_name, groups, problems).copy()
        for item in values:
            parsing.apply(item, config, problems)
        parsing.fill(parsed, config)
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
        """Parse overrides: all of them, those that choose config groups or are Hydra's, and those that set values."""
        parsed = parsing.parse(overrides, problems)
        hydras = [parsing.text(item) for item in parsed if item.is_hydra_override() and not item.is_sweep_override()]
        groups, values, keys = hydras.copy(), list[Override](), set()
        for item in parsed:
            text = parsing.text(item)
            if item.is_hydra_override():
                if item.is_sweep_override():
                    problems.append(Problem(text, "Sweeping over Hydra's configuration is not supported"))
                continue
            key = (item.key_or_group, item.package)
            if key in keys:
                problems.append(Problem(text, f"{item.key_or_group} is given twice; give it once"))
            keys.add(key)
            options = self._options_of(config_name, item.key_or_group, hydras)
            if item.is_sweep_override():
                if run_mode == RunMode.RUN:
                    problems.append(Problem(text, "lists several values: add -m to try each of them"))
            elif options is None or isinstance(item.value(), dict):
                values.append(item)
            elif item.value() is None and item.key_or_group in keys_under("", {}):
                problems.append(Problem(text, f"cannot be left out; {did_you_mean('', options)}"))
            elif unknown := [name for name in parsing.choices(item) if name not in options]:
                lesson = parsing.no_such_option(item.key_or_group, unknown[0], options, has_flags=bool(self.flags))
                problems.append(Problem(text, lesson))
            else:
                groups.append(text)
        return parsed, groups, values

    def _options_of(self, config_name: str | None, group: str, hydras: list[str]) -> list[str] | None:
        """The options of a config group; None if there is no such group."""
        key = (group, *hydras)
        if key not in self._options:
            _, repository = self._parse_overrides_and_create_caching_repo(config_name, hydras)
            self._options[key] = repository.get_group_options(group) if repository.group_exists(group) else None
        return self._options[key]

    def _base(self, config_name: str | None, groups: list[str], problems: list[Problem]) -> Base:
        """What a choice of config groups composes to, without the choices that Hydra refuses."""
        key = (config_name, tuple(groups))
        try:
            if key not in self._bases:
                self._bases[key] = Base(super().load_configuration(config_name, groups, RunMode.RUN))
        except (HydraException, YAMLError) as error:
            cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
            refused = self._refused(config_name, groups, str(error))
            problems.append(Problem(refused or "configuration", str(cause) or str(error)))
            if refused is None:
                raise ConfigError(problems) from error
            return self._base(config_name, [item for item in groups if item != refused], problems)
        return self._bases[key]

    def _refused(self, config_name: str | None, groups: list[str], message: str) -> str | None:
        """The choice that Hydra's message is about: the one that it names, or without which it composes."""
        for item in groups:
            if item.lstrip("+~").replace("=", "/") in message:
                return item
        for item in groups:
            with suppress(HydraException, YAMLError):
                super().load_configuration(config_name, [other for other in groups if other != item], RunMode.RUN)
                return item
        return None
