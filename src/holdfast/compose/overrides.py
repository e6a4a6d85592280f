"""What one word of the command line says: `lr=0.1`, `optimizer=adam`, `~callbacks.own`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from holdfast.config.check import did_you_mean, is_in_option, is_mapping, keys_under
from holdfast.errors import ConfigError, Problem


def parse(words: Iterable[str], problems: list[Problem]) -> list[Override]:
    """Read words by Hydra's grammar; those it cannot read are told and left out."""
    parsed = []
    for word in words:
        try:
            item = _parse(word)
            if item.key_or_group:
                parsed.append(item)
            else:
                problems.append(Problem(word, "is not of the form key=value"))
        except OverrideParseException as error:
            lesson = "is not of the form key=value" if "=" not in word else str(error).splitlines()[0]
            problems.append(Problem(word, lesson))
    return parsed


def text(item: Override) -> str:
    """A word as it was typed."""
    assert item.input_line is not None
    return item.input_line


def choices(item: Override) -> list[str]:
    """The options that a word chooses of a group: `callbacks=[default,mine]` chooses two."""
    value = item.value()
    return [str(name) for name in value] if isinstance(value, list) else [] if value is None else [str(value)]


def apply(item: Override, config: DictConfig, problems: list[Problem]) -> None:
    """Set one value in a configuration, or say why it cannot be set."""
    above, _, key = item.key_or_group.rpartition(".")
    node = OmegaConf.select(config, above) if above else config
    if item.is_delete() and key in keys_under(above, config):
        problems.append(Problem(text(item), f"cannot be left out: give {item.key_or_group} a value"))
        return
    try:
        if is_mapping(item.key_or_group, config) or _replaces(item, config):
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
        problems.append(Problem(text(item), lesson))


def _replaces(item: Override, config: DictConfig) -> bool:
    """Whether a mapping was typed for a key that holds one, in a user's option, with nothing in it that is built."""
    path = item.key_or_group
    if item.is_delete() or not (isinstance(item.value(), dict) and is_in_option(path)):
        return False
    node = OmegaConf.select(config, path, throw_on_resolution_failure=False)
    return isinstance(node, DictConfig) and not _is_built(OmegaConf.to_container(node))


def _is_built(node: Any) -> bool:
    """Whether a class is named somewhere in plain containers."""
    if isinstance(node, dict):
        return "_target_" in node or any(map(_is_built, node.values()))
    return isinstance(node, list) and any(map(_is_built, node))


def product(words: Sequence[str], loader: ConfigLoaderImpl) -> list[list[str]]:
    """Every combination of the values listed, as the words of a job each."""
    parser = OverridesParser.create(config_loader=loader)
    try:
        overrides = parser.parse_overrides(list(words))
    except OverrideParseException as error:
        raise ConfigError([Problem(error.override, str(error).splitlines()[0])]) from error
    keys = [item.get_key_element() for item in overrides]
    twice = [item for place, item in enumerate(overrides) if keys[place] in keys[:place]]
    if twice:
        raise ConfigError([Problem(str(item.input_line), "is given twice; give it once") for item in twice])
    if continuous := [item for item in overrides if item.is_sweep_override() and not item.is_discrete_sweep()]:
        raise ConfigError([Problem(str(item.input_line), "needs single values to try") for item in continuous])
    (jobs,) = BasicSweeper.split_arguments(overrides, None)
    return jobs


@cache
def _parse(word: str) -> Override:
    # a sweep repeats its words from job to job, and Hydra's grammar takes 0.2 ms for each
    (parsed,) = OverridesParser.create().parse_overrides([word])
    return parsed
