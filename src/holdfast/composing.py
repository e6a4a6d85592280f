"""Composing a configuration: groups once a choice, words one by one, and all that is wrong with them at once."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from holdfast.errors import ConfigError, Problem
from holdfast.schema import Config
from holdfast.validation import did_you_mean, is_mapping, keys_under, validate, word

CONFIG_NAME = "config"


def settings(config: DictConfig) -> tuple[Config, dict[str, Any], dict[str, Any]]:
    """A composed configuration as typed values, with its plain containers resolved and as written.

    Raises:
        ConfigError: something in it does not fit the schema, or cannot be resolved.
    """
    with open_dict(config):
        hydra = config.pop("hydra", None)
    try:
        origin: Any = OmegaConf.to_container(config, resolve=False)
        values: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError([Problem(str(error.full_key), str(error).splitlines()[0])]) from error
    finally:
        if hydra is not None:
            with open_dict(config):
                config.hydra = hydra
    groups = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    return validate(values, origin, groups), values, origin


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
        hydra_words = [_text(item) for item in parsed if item.is_hydra_override()]
        _, repository = self._parse_overrides_and_create_caching_repo(config_name, hydra_words)
        groups, values, seen = [], [], set()
        for item in parsed:
            if item.is_hydra_override():
                groups.append(_text(item))
                continue
            key = (item.key_or_group, item.package)
            if key in seen:
                problems.append(Problem(_text(item), f"{item.key_or_group} is given twice; give it once"))
            seen.add(key)
            if item.is_sweep_override():
                if run_mode == RunMode.RUN:
                    problems.append(Problem(_text(item), "lists several values: add -m to try each of them"))
            elif repository.group_exists(item.key_or_group) and not isinstance(item.value(), dict):
                options = repository.get_group_options(item.key_or_group)
                if unknown := [name for name in _choices(item) if name not in options]:
                    problems.append(Problem(_text(item), f"no such option; {did_you_mean(unknown[0], options)}"))
                else:
                    groups.append(_text(item))
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
        except (HydraException, YAMLError) as error:
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
        config.hydra.overrides.task = [_text(item) for item in task]
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
    loader = Hydra("train", Loader(search_path(get_args_parser().parse_args([]), conf))).config_loader
    config = loader.load_configuration(CONFIG_NAME, [*words, "hydra.mode=RUN"], RunMode.RUN)
    return settings(config)[0]


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


def _parse(words: list[str], problems: list[Problem]) -> list[Override]:
    parser, parsed = OverridesParser.create(), []
    for item in words:
        try:
            parsed += parser.parse_overrides([item])
        except OverrideParseException as error:
            text = "is not of the form key=value" if "=" not in item else str(error).splitlines()[0]
            problems.append(Problem(item, text))
    return parsed


def _text(item: Override) -> str:
    """A word as it was typed."""
    assert item.input_line is not None
    return item.input_line


def _choices(item: Override) -> list[str]:
    """The options that a word chooses of a group: `callbacks=[default,mine]` chooses two."""
    value = item.value()
    return [str(name) for name in value] if isinstance(value, list) else [] if value is None else [str(value)]


def _apply(item: Override, config: DictConfig, problems: list[Problem]) -> None:
    """Set one value, or say why it cannot be set."""
    above, _, key = item.key_or_group.rpartition(".")
    node = OmegaConf.select(config, above) if above else config
    if item.is_delete() and key in keys_under(above, config):
        problems.append(Problem(_text(item), f"cannot be left out: give {item.key_or_group} a value"))
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
        problems.append(Problem(_text(item), lesson))


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
