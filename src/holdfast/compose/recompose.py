"""Configurations composed from overrides without running them: those that a folder recorded, or a list of them.

What lies in a folder may come from anyone. Recorded overrides that could run code are refused: a `_target_`, an
interpolation such as `${oc.env:HOME}`, a key of Hydra's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode

from holdfast.compose import overrides as parsing
from holdfast.compose.checked import Composed
from holdfast.compose.flags import in_project, search_path
from holdfast.compose.loader import CONFIG_NAME, Loader
from holdfast.config.schema import Config
from holdfast.errors import ConfigError, Problem, in_a_line


class Recomposer:
    """Composes recorded overrides against the YAML files of today.

    Args:
        conf: the folder of the primary configuration.
        flags: `--config-dir` and the like, as typed today.
        passed: a folder with the options that were passed from Python.

    Attributes:
        problems: why overrides could not be composed, or no longer give the recorded configuration.
    """

    def __init__(self, conf: Path, flags: Sequence[str] = (), passed: Path | None = None) -> None:
        version.setbase("1.3")
        arguments = in_project(get_args_parser().parse_args(list(flags)))
        self._loader = Loader(search_path(arguments, conf, passed))
        Hydra("train", self._loader)  # registers Hydra's resolvers
        name = arguments.config_name or CONFIG_NAME
        self._config = self._loader.load_configuration(name, ["hydra.mode=RUN"], RunMode.RUN)
        self.problems: dict[str, None] = {}

    def __call__(self, recorded: Sequence[str], config_hash: str) -> Composed | None:
        """The configuration of recorded overrides, or None if it is no longer the one with this digest."""
        try:
            refuse(recorded)
            composed = self.compose(recorded)
        except ConfigError as error:
            self.problems[in_a_line(error)] = None
            return None
        if composed.config_hash != config_hash:
            self.problems["the configuration in conf/ is no longer the one that was trained with"] = None
            return None
        return composed

    def compose(self, recorded: Sequence[str]) -> Composed:
        """The configuration that recorded overrides give today.

        Raises:
            ConfigError: with all problems.
        """
        return self._loader.job(self._config, recorded)


def refuse(recorded: Sequence[str]) -> None:
    """Refuse recorded overrides that could run code.

    Raises:
        ConfigError: with every such override.

    >>> refuse(["lr=0.1", "optimizer=adam"])
    >>> refuse(["+callbacks.x={_target_: os.system}"])
    Traceback (most recent call last):
    ...
    holdfast.errors.ConfigError: 1 problem in the configuration; nothing was run.
    <BLANKLINE>
      +callbacks.x={_target_: os.system}  is recorded in the folder, and could run something: type it yourself
    """
    problems: list[Problem] = []
    for item in parsing.parse(recorded, problems):
        texts = [item.key_or_group, *map(str, _texts(item))]
        if item.key_or_group.partition("/")[0].partition(".")[0] == "hydra" or any(map(could_run, texts)):
            lesson = "is recorded in the folder, and could run something: type it yourself"
            problems.append(Problem(parsing.text(item), lesson))
    if problems:
        raise ConfigError(problems)


def compose(overrides: list[str], conf: Path) -> Config:
    """The checked configuration that overrides give.

    Args:
        overrides: as typed on the command line, without flags.
        conf: the folder of the primary configuration.

    Raises:
        ConfigError: with all problems.
    """
    version.setbase("1.3")
    loader = Loader(search_path(get_args_parser().parse_args([]), conf))
    Hydra("train", loader)  # registers Hydra's resolvers
    return loader.compose(CONFIG_NAME, [*overrides, "hydra.mode=RUN"], RunMode.RUN)[1].config


def could_run(text: str) -> bool:
    """Whether a recorded text could run something: it names a `_target_`, or holds an interpolation."""
    return "_target_" in text or "${" in text


def _texts(item: Override) -> Iterator[Any]:
    """All keys and values in an override."""
    remaining = [item.value()] if not item.is_sweep_override() else [str(item.value())]
    while remaining:
        value = remaining.pop()
        if isinstance(value, Mapping):
            remaining += [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple)):
            remaining += value
        else:
            yield value
