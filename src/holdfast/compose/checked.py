"""A configuration that is composed, checked and hashed."""

from __future__ import annotations

from typing import NamedTuple

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from holdfast.compose.composed import Base, PlainDict, containers
from holdfast.config.check import validate
from holdfast.config.job import config_hash
from holdfast.config.schema import Config


class Composed(NamedTuple):
    """A configuration that is composed, checked and hashed.

    Attributes:
        config: the checked configuration.
        config_hash: its digest.
        origin: the configuration as plain containers, with interpolations as written.
        base: what it was edited from; None where it was composed by itself.
        typed: the keys that the edits have set.
    """

    config: Config
    config_hash: str
    origin: PlainDict
    base: Base | None = None
    typed: frozenset[str] = frozenset()


def checked(config: DictConfig) -> Composed:
    """Check and hash a configuration that Hydra has composed.

    Raises:
        ConfigError: a value does not fit the schema, or an interpolation cannot be resolved.
    """
    values, origin = containers(config)
    groups = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    return Composed(validate(values, origin, groups), config_hash(values, origin), origin)
