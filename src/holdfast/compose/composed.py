"""A composed configuration as plain values: read out once, then edited without composing again."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import Container, DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from holdfast.config.job import FOLDER
from holdfast.errors import ConfigError, Problem

Plain = dict[str, Any]


class Base:
    """What a choice of groups composes to: copied for a run, and edited as plain values where no copy is needed."""

    def __init__(self, config: DictConfig) -> None:
        self._pickled = pickle.dumps(config)  # comes back six times as fast as OmegaConf copies
        self.groups = frozenset(config.hydra.runtime.choices)
        self._plain: tuple[Plain, Plain] | None = None
        self._followers: dict[str, list[str]] = {}
        self._involved = ""
        self._known: dict[str, bool] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without the plain values, which the other process reads out again."""
        return {**vars(self), "_plain": None, "_followers": {}, "_involved": "", "_known": {}}

    def copy(self) -> DictConfig:
        """The configuration, independent of every other copy."""
        config: DictConfig = pickle.loads(self._pickled)
        return config

    def edited(self, items: Iterable[Override]) -> tuple[Plain, Plain] | None:
        """The plain values with some of them set, resolved and as written; None where only OmegaConf can set them.

        Args:
            items: the overrides that set values.
        """
        if self._plain is None:
            self._look_closely()
        assert self._plain is not None
        typed: Plain = {}
        followed: Plain = {}
        for item in items:
            key, value = item.key_or_group, item.value()
            simple = not isinstance(value, (dict, list)) and "${" not in str(value) and item.type == OverrideType.CHANGE
            if not simple or item.package or not self._is_plain(key):
                return None
            typed[key] = value
            followed |= dict.fromkeys((*self._followers.get(key, ()), key), value)
        values, origin = self._plain
        # an override of the key itself replaces its interpolation, whichever of the two was typed first
        return _edit(values, followed | typed), _edit(origin, typed)

    def _is_plain(self, key: str) -> bool:
        """Whether a key is that of a value which others at most repeat."""
        if key not in self._known:
            assert self._plain is not None
            self._known[key] = key not in self._involved and _is_leaf(self._plain[0], key)
        return self._known[key]

    def _look_closely(self) -> None:
        """Find which values only repeat another key, and which are more involved than that."""
        config = self.copy()
        with as_hydras(config):
            self._plain = plain(config)
        for path, raw in _leaves(self._plain[1]):
            if isinstance(raw, str) and "${" in raw:
                name = raw[2:-1]
                if raw == f"${{{name}}}" and _is_leaf(self._plain[1], name) and "${" not in str(self._at(name)):
                    self._followers.setdefault(name, []).append(path)
                else:
                    self._involved += raw + "\n"

    def _at(self, path: str) -> Any:
        assert self._plain is not None
        return reduce(lambda node, key: node[key], path.split("."), self._plain[1])


@contextmanager
def as_hydras(config: DictConfig) -> Iterator[None]:
    """Let `${hydra:...}` find a configuration, with `FOLDER` for the folder, which is claimed only later."""
    previous = HydraConfig.instance().cfg
    with read_write(config.hydra.runtime):
        config.hydra.runtime.output_dir = FOLDER
    HydraConfig.instance().set_config(config)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = previous
        with read_write(config.hydra.runtime):
            config.hydra.runtime.output_dir = str(Path(config.hydra.run.dir or ".").absolute())
        OmegaConf.set_readonly(config.hydra, False)  # launchers still number their jobs in it


def plain(config: DictConfig) -> tuple[Plain, Plain]:
    """A configuration without Hydra's own part, as plain containers: resolved, and as written."""
    keys = [str(key) for key in config if key != "hydra"]
    try:
        values, origin = ({key: _container(config, key, resolve=resolve) for key in keys} for resolve in (True, False))
    except OmegaConfBaseException as error:
        raise ConfigError([Problem(str(error.full_key), str(error).splitlines()[0])]) from error
    return values, origin


def _container(config: DictConfig, key: str, *, resolve: bool) -> Any:
    node = config._get_node(key)
    if isinstance(node, Container):
        return OmegaConf.to_container(node, resolve=resolve, throw_on_missing=resolve)
    return config[key] if resolve else node._value()  # type: ignore[union-attr]


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for key, item in node.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for item in node:
            yield from _leaves(item, path)
    else:
        yield path, node


def _is_leaf(node: Any, path: str) -> bool:
    """Whether a path leads to a value that is there, and is neither a mapping nor a list."""
    for key in path.split("."):
        if not (isinstance(node, dict) and key in node):
            return False
        node = node[key]
    return not isinstance(node, (dict, list))


def _edit(values: Plain, edits: Mapping[str, Any]) -> Plain:
    """A copy with some leaves set; what is not on the way to one of them is shared."""
    made = dict(values)
    own = {"": made}
    for path, value in edits.items():
        node, above = made, ""
        *parents, last = path.split(".")
        for key in parents:
            above = f"{above}.{key}"
            if above not in own:
                own[above] = node[key] = dict(node[key])
            node = own[above]
        node[last] = value
    return made
