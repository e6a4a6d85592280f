"""Single overrides of the command line, such as `lr=0.1`, `optimizer=adam` or `~callbacks.mine`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from holdfast.config.keys import (
    FROM_PYTHON,
    did_you_mean,
    is_in_option,
    is_mapping,
    keys_under,
    may_be_added,
    no_such_key,
)
from holdfast.errors import ConfigError, Problem
from holdfast.search.space import Interval


def parse(overrides: Iterable[str], problems: list[Problem]) -> list[Override]:
    """Parse overrides by Hydra's grammar.

    Args:
        overrides: as typed.
        problems: is extended by those that cannot be parsed, which are left out of the result.
    """
    parsed = []
    for override in overrides:
        try:
            item = _parse(override)
            if item.key_or_group and not item.is_sweep_override() and _holds_interval(item.value()):
                problems.append(Problem(override, "holds an interval: an interval stands for the whole value of a key"))
            elif item.key_or_group:
                parsed.append(item)
            else:
                problems.append(Problem(override, "is not of the form key=value"))
        except OverrideParseException as error:
            problems.append(Problem(override, lesson_of(error)))
    return parsed


def text(item: Override) -> str:
    """An override as it was typed."""
    assert item.input_line is not None
    return item.input_line


def as_typed(overrides: ListConfig) -> list[str]:
    """Overrides as Hydra has recorded them: an interpolation in one of them may have no value yet."""
    return OmegaConf.to_container(overrides, resolve=False)  # type: ignore[return-value]


def choices(item: Override) -> list[str]:
    """The options that an override chooses in a config group: `callbacks=[default,mine]` chooses two."""
    value = item.value()
    return [str(name) for name in value] if isinstance(value, list) else [] if value is None else [str(value)]


def no_such_option(group: str, name: str, options: Iterable[str], *, has_flags: bool) -> str:
    """What is wrong with an option that a config group does not have.

    Args:
        group: the group.
        name: the option.
        options: those that there are.
        has_flags: whether flags say where configurations lie.
    """
    if name.startswith(FROM_PYTHON):
        same = [option for option in options if option.rpartition("-")[0] == name.rpartition("-")[0]]
        if same:
            return f"was passed from Python with another content than {group}= of this call has: pass the same again"
        return f"{name.removeprefix(FROM_PYTHON)} was passed from Python: pass it again, as {group}= of the call"
    lesson = f"no such option; {did_you_mean(name, options)}"
    return lesson if lesson.endswith("?") or has_flags else f"{lesson}; one of your own needs --config-dir FOLDER"


def apply(item: Override, config: DictConfig, problems: list[Problem]) -> None:
    """Set the value of an override in a configuration.

    Args:
        item: an override that sets a value; it chooses no config group.
        config: is changed in place.
        problems: is extended where the value cannot be set.
    """
    parent, _, key = item.key_or_group.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if item.is_delete() and key in keys_under(parent, config):
        problems.append(Problem(text(item), f"cannot be left out: give {item.key_or_group} a value"))
        return
    added = not item.is_delete() and may_be_added(item.key_or_group, config)
    # Hydra would merge, so that data.outliers={} could never empty the mapping
    replaced = is_mapping(item.key_or_group, config) or _replaces_mapping(item, config)
    try:
        if replaced or added:
            OmegaConf.update(config, item.key_or_group, item.value(), merge=not replaced, force_add=added)
        else:
            ConfigLoaderImpl._apply_overrides_to_config([item], config)
    except (HydraException, OmegaConfBaseException) as error:
        names = keys_under(parent, config) or (list(node) if isinstance(node, Mapping) else [])
        names = [str(name) for name in names if name not in ("_target_", "hydra")]
        if not names:
            is_new = parent.partition(".")[0] in ("callbacks", "logger")
            lesson = f"there is no {parent}; + adds it: +{text(item)}" if is_new else f"{parent} holds no keys"
        elif key in names or item.is_delete():
            lesson = str(error.__cause__ or error).splitlines()[0]
        else:
            lesson = no_such_key(key, names, f"{parent}." if parent else "")
            if isinstance(node, Mapping) and not keys_under(parent, config) and not lesson.endswith("?"):
                lesson += f"; + adds it: +{text(item)}"  # an argument that the YAML file leaves out, or one of **kwargs
        problems.append(Problem(text(item), lesson))


def fill(items: Iterable[Override], config: DictConfig) -> None:
    """Give the values that are left open, `???` in YAML, the first one that a sweep lists for them.

    Args:
        items: the overrides of the sweep.
        config: its own configuration, which no job is made from; changed in place.
    """
    for item in items:
        path, _, key = item.key_or_group.rpartition(".")
        parent = OmegaConf.select(config, path) if path else config
        if item.is_sweep_override() and isinstance(parent, DictConfig) and OmegaConf.is_missing(parent, key):
            first = str(_interval(item).value(0.5)) if item.is_interval_sweep() else next(item.sweep_string_iterator())
            apply(_parse(f"{item.key_or_group}={first}"), config, [])


def _replaces_mapping(item: Override, config: DictConfig) -> bool:
    """Whether an override gives a mapping to a key of a user's option that holds a mapping without `_target_`."""
    path = item.key_or_group
    if item.is_delete() or not (isinstance(item.value(), dict) and is_in_option(path)):
        return False
    node = OmegaConf.select(config, path, throw_on_resolution_failure=False)
    return isinstance(node, DictConfig) and not _has_target(OmegaConf.to_container(node))


def _has_target(node: Any) -> bool:
    """Whether plain containers name a class somewhere."""
    if isinstance(node, dict):
        return "_target_" in node or any(map(_has_target, node.values()))
    return isinstance(node, list) and any(map(_has_target, node))


class Space(NamedTuple):
    """What the overrides of a sweep ask to try.

    Attributes:
        combinations: every combination of the listed values, as the overrides of a job, with the middles of intervals.
        intervals: by their place among the overrides.
    """

    combinations: list[list[str]]
    intervals: dict[int, Interval]

    def job(self, combination: int, point: Sequence[float]) -> list[str]:
        """The overrides of a job.

        Args:
            combination: the index of its listed values.
            point: as from a sampler, with a number for each interval.
        """
        drawn = {
            place: f"{interval.key}={interval.value(share)}"
            for (place, interval), share in zip(self.intervals.items(), point, strict=True)
        }
        return [drawn.get(place, item) for place, item in enumerate(self.combinations[combination])]


def space(overrides: Sequence[str], loader: ConfigLoaderImpl | None, groups: Collection[str] = ()) -> Space:
    """What the overrides of a sweep ask to try.

    Args:
        overrides: as typed, lists spelt out.
        loader: knows the options of config groups, for `glob`.
        groups: the config groups.

    Raises:
        ConfigError: an override cannot be parsed, is given twice, lists no single values, or has a bad interval.

    >>> space(["lr=0.1,0.2", "seed=1"], None).combinations
    [['lr=0.1', 'seed=1'], ['lr=0.2', 'seed=1']]
    """
    parser = OverridesParser.create(config_loader=loader)
    try:
        parsed = parser.parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise ConfigError([Problem(error.override, lesson_of(error))]) from error
    keys = [item.get_key_element() for item in parsed]
    if repeated := [item for index, item in enumerate(parsed) if keys[index] in keys[:index]]:
        raise ConfigError([Problem(str(item.input_line), "is given twice; give it once") for item in repeated])
    intervals: dict[int, Interval] = {}
    problems = [
        Problem(text(item), "holds an interval among other values: give the interval alone")
        for item in parsed
        if not item.is_interval_sweep() and _holds_interval(item.value())
    ]
    for place, item in enumerate(parsed):
        if not item.is_interval_sweep():
            continue
        found = _interval(item)
        if (lesson := found.lesson(groups)) is not None:
            problems.append(Problem(text(item), lesson))
        intervals[place] = found
    if problems:
        raise ConfigError(problems)
    ends = parser.parse_overrides([f"{each.key}={each.value(0.5)}" for each in intervals.values()])
    single = iter(ends)
    (combinations,) = BasicSweeper.split_arguments(
        [next(single) if n in intervals else item for n, item in enumerate(parsed)], None
    )
    return Space(combinations, intervals)


def _interval(item: Override) -> Interval:
    """An override that gives an interval."""
    value: Any = item.value()
    whole = {"int"} if isinstance(value.start, int) else set()
    return Interval(
        text(item), item.get_key_element(), float(value.start), float(value.end), frozenset(value.tags | whole)
    )


def _holds_interval(value: Any) -> bool:
    """Whether a value has an interval at any depth."""
    if isinstance(value, ChoiceSweep):
        return any(map(_holds_interval, value.list))
    if isinstance(value, (list, dict)):
        return any(map(_holds_interval, value.values() if isinstance(value, dict) else value))
    return isinstance(value, IntervalSweep)


def lesson_of(error: OverrideParseException) -> str:
    """What is wrong with an override that cannot be parsed."""
    if "=" not in error.override or re.match(r"\S+\s*=\s|\S+\s+=|\S+\s+\S+=", error.override):
        return "is not of the form key=value, without spaces, each override by itself"
    if re.search(r"=(loginterval|logspace|linspace)\(", error.override):
        return "lists or draws several values: add -m to try each of them"
    if "interval(" in error.override:
        return "needs two numbers: interval(0,1)"
    if (found := _FUNCTION.search(error.override)) is not None and found["name"] not in _parser().functions.functions:
        return f"there is no function {found['name']}; an interval is interval(0,1), or loginterval(1e-5,1)"
    return str(error).splitlines()[0]


_FUNCTION = re.compile(r"=(?P<name>[A-Za-z_]\w*)\(")


@cache
def _parse(override: str) -> Override:
    # a sweep repeats its overrides from job to job, and Hydra's parser takes 0.2 ms for each
    (parsed,) = _parser().parse_overrides([override])
    return parsed


@cache
def _parser() -> OverridesParser:
    # making it takes longer than parsing
    return OverridesParser.create()
