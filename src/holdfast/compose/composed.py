"""A composed configuration as plain containers: read once, then edited for each job without composing again."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import Container, DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from holdfast.config.fold import FOLD, FOLD_KEY
from holdfast.config.job import FOLDER
from holdfast.errors import ConfigError, Problem

PlainDict = dict[str, Any]


class Edited(NamedTuple):
    """Plain containers in which some values were set.

    Attributes:
        values, origin: interpolations resolved, and as written.
        changed: the top-level keys in which they differ from the base.
    """

    values: PlainDict
    origin: PlainDict
    changed: frozenset[str]


class Base:
    """The configuration that a choice of config groups composes to.

    A run gets a copy of it. For the jobs of a sweep, which mostly differ in single values, it is edited as plain
    containers, which is forty times as fast as composing.

    Args:
        config: as Hydra has composed it.

    Attributes:
        groups: the names of all config groups.
        checked, hashed: values as jobs have checked them, and their part of the digest, by the top-level key.
    """

    def __init__(self, config: DictConfig) -> None:
        self._pickled = pickle.dumps(config)  # loads six times as fast as OmegaConf copies
        self.groups = frozenset(config.hydra.runtime.choices)
        self.checked: dict[str, Any] = {}
        self.hashed: dict[str, str] = {}
        self._containers: tuple[PlainDict, PlainDict] | None = None
        self._missing: frozenset[str] = frozenset()  # paths of values that overrides have to give: `???` in YAML
        self._is_readable = True  # False where an interpolation leads to one of them
        self._followers: dict[str, list[str]] = {}  # keys whose value is that of another key, by this key
        self._interpolations = ""  # the text of all others: a key that occurs in it cannot be edited
        self._editable: dict[tuple[str, bool], bool] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without the plain containers, which the other process reads again."""
        return {
            **vars(self),
            "checked": {},
            "hashed": {},
            "_containers": None,
            "_missing": frozenset(),
            "_followers": {},
            "_interpolations": "",
            "_editable": {},
        }

    def copy(self) -> DictConfig:
        """The configuration, independent of every other copy."""
        config: DictConfig = pickle.loads(self._pickled)
        return config

    def edited(self, items: Iterable[Override]) -> Edited | None:
        """The plain containers with some values set, interpolations resolved and as written.

        Args:
            items: the overrides that set values.

        Returns:
            None where only OmegaConf can set a value, such as one in another interpolation than `${key}`, and where a
            value that has to be given is not.
        """
        if self._containers is None and self._is_readable:
            self._read()
        if self._containers is None:
            return None
        typed: PlainDict = {}
        followed: PlainDict = {}
        for item in items:
            key, value = item.key_or_group, item.value()
            simple = _is_plain(value) and "${" not in str(value) and item.type == OverrideType.CHANGE
            if not simple or item.package or not self._is_editable(key, is_list=isinstance(value, list)):
                return None
            typed[key] = value
            followed |= dict.fromkeys((*self._followers.get(key, ()), key), value)
        if not self._missing <= typed.keys():
            return None
        values, origin = self._containers
        # an override of the key itself replaces its interpolation, whichever of the two was typed first
        changed = frozenset(path.partition(".")[0] for path in (*followed, *typed))
        return Edited(_edit(values, followed | typed), _edit(origin, typed), changed)

    def _is_editable(self, key: str, *, is_list: bool) -> bool:
        """Whether a key holds a single value, or a list, and no interpolation but `${key}` refers to it.

        The fold of a job is added to its data group, where no YAML file gives one.
        """
        if (key, is_list) not in self._editable:
            assert self._containers is not None
            fits = (_is_list if is_list else _is_value)(self._containers[0], key)
            is_added = key == FOLD_KEY and FOLD not in self._containers[0]["data"]
            self._editable[key, is_list] = key not in self._interpolations and (fits or is_added)
        return self._editable[key, is_list]

    def _read(self) -> None:
        """Read the containers, and sort the interpolations."""
        config = self.copy()
        with as_hydra_config_without_folder(config):
            try:
                self._containers = containers(config, complete=False)
            except ConfigError:
                self._is_readable = False
                return
        origin = self._containers[1]
        self._missing = frozenset(_missing(origin))
        for path, raw in _leaves(origin):
            if isinstance(raw, str) and "${" in raw:
                key = raw[2:-1]
                if raw == f"${{{key}}}" and _is_value(origin, key) and "${" not in str(_at(origin, key)):
                    self._followers.setdefault(key, []).append(path)
                else:
                    self._interpolations += raw + "\n"


@contextmanager
def as_hydra_config(config: DictConfig) -> Iterator[None]:
    """Let `${hydra:...}` refer to a configuration."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


@contextmanager
def as_hydra_config_without_folder(config: DictConfig) -> Iterator[None]:
    """The same, with `FOLDER` as the folder, which is claimed only later."""
    with read_write(config.hydra.runtime):
        config.hydra.runtime.output_dir = FOLDER
    try:
        with as_hydra_config(config):
            yield
    finally:
        with read_write(config.hydra.runtime):
            config.hydra.runtime.output_dir = str(Path(config.hydra.run.dir or ".").absolute())
        OmegaConf.set_readonly(config.hydra, False)  # launchers still number their jobs in it


def containers(config: DictConfig, *, complete: bool = True) -> tuple[PlainDict, PlainDict]:
    """A configuration without Hydra's part, as plain containers: interpolations resolved, and as written.

    Args:
        config: as Hydra has composed it.
        complete: whether values that have to be given, `???` in YAML, must have been given.

    Raises:
        ConfigError: an interpolation cannot be resolved, or a value is missing.
    """
    keys = [str(key) for key in config if key != "hydra"]
    origin = {key: _container(config, key, resolve=False, complete=False) for key in keys}
    if complete and (missing := _missing(origin)):
        raise ConfigError([Problem(path, f"has no value: give it one, as {path}=VALUE") for path in missing])
    try:
        values = {key: _container(config, key, resolve=True, complete=complete) for key in keys}
    except OmegaConfBaseException as error:
        raise ConfigError([Problem(str(error.full_key), str(error).splitlines()[0])]) from error
    return values, origin


def _container(config: DictConfig, key: str, *, resolve: bool, complete: bool) -> Any:
    node = config._get_node(key)
    if isinstance(node, Container):
        return OmegaConf.to_container(node, resolve=resolve, throw_on_missing=complete)
    return config[key] if resolve else node._value()  # type: ignore[union-attr]


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every single value with its path; those in a list have the path of the list."""
    if isinstance(node, Mapping):
        for key, item in node.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for item in node:
            yield from _leaves(item, path)
    else:
        yield path, node


def _missing(origin: PlainDict) -> list[str]:
    """The paths of the values that have to be given, `???` in YAML, and are not."""
    return [path for path, raw in _leaves(origin) if raw == "???"]


def _at(node: PlainDict, path: str) -> Any:
    return reduce(lambda inner, key: inner[key], path.split("."), node)


def _is_value(node: Any, path: str) -> bool:
    """Whether a path leads to a value that is neither a mapping nor a list."""
    for key in path.split("."):
        if not (isinstance(node, dict) and key in node):
            return False
        node = node[key]
    return not isinstance(node, (dict, list))


def _is_list(node: Any, path: str) -> bool:
    """Whether a path leads to a list of plain values."""
    *above, key = path.split(".")
    for name in above:
        if not (isinstance(node, dict) and name in node):
            return False
        node = node[name]
    return isinstance(node, dict) and isinstance(node.get(key), list) and _is_plain(node[key])


def _is_plain(value: Any) -> bool:
    """Whether a value is a single one, or a list of single ones."""
    inner = value if isinstance(value, list) else [value]
    return not any(isinstance(each, (dict, list)) for each in inner)


def _edit(values: PlainDict, edits: Mapping[str, Any]) -> PlainDict:
    """A copy with some values set; containers on the way to none of them are shared with the original."""
    edited = dict(values)
    copies = {"": edited}
    for path, value in edits.items():
        node, parent = edited, ""
        *keys, last = path.split(".")
        for key in keys:
            parent = f"{parent}.{key}"
            if parent not in copies:
                copies[parent] = node[key] = dict(node[key])
            node = copies[parent]
        node[last] = value
    return edited
