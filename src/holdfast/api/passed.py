"""Classes, objects and rows that are passed to `holdfast.run` and `holdfast.sweep`: as options of config groups."""

from __future__ import annotations

import inspect
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from holdfast.api import rows_file
from holdfast.api.kept_objects import Kept, again, keep
from holdfast.config.fold import FOLD_KEY
from holdfast.config.keys import FROM_PYTHON, key_of
from holdfast.errors import ConfigError, HoldfastError, Problem
from holdfast.usercode.packages import note_users

ONE_AT_A_TIME = threading.RLock()
"""Held while something is trained or a module is built, which sets the random states of the process."""

_TOP = ("lr", "batch_size", "epochs")
"""Arguments of a class that follow the key of the same name at the top of the configuration."""

_DIGITS = 12
"""Length of the digests in the names of options."""

_IN_THIS_PROCESS = ("stacked", "basic")
"""The launchers that train in the process in which an object exists."""


class Option(NamedTuple):
    """An option of a config group, as a YAML file would give it.

    Attributes:
        group: `model` or `data`.
        name: the prefix of all options that come from Python, the qualified name of the class, and a digest of the
            class or of the object.
        values: its keys.
        defaults: values of keys at the top of the configuration, from the signature of the class.
        only_here: whether it exists in this process alone.
        passed: what was passed: a class, or the copy of an object that is kept.
    """

    group: str
    name: str
    values: dict[str, Any]
    defaults: Mapping[str, Any]
    only_here: bool
    passed: type | Kept

    def reads_optimizer(self) -> bool:
        """Whether the optimizer of the configuration trains it."""
        from holdfast.model import Module

        cls = type(self.passed.value) if isinstance(self.passed, Kept) else self.passed
        return getattr(cls, "configure_optimizers", None) is Module.configure_optimizers

    def yaml(self) -> str:
        """The text of the YAML file. It may set keys at the top, as `conf/data/table.yaml` does."""
        values = {**self.defaults, self.group: self.values}
        return "# @package _global_\n" + OmegaConf.to_yaml(OmegaConf.create(values))


class Passed:
    """What was passed to a call beside its overrides.

    Args:
        config_dir: a folder with config groups of the user's own, or None.
        model: a LightningModule, or its class, or None.
        data: a LightningDataModule, or its class; rows as a pair `(X, y)`; or None.

    Raises:
        HoldfastError: it is none of these, or cannot be named.
    """

    def __init__(self, config_dir: str | os.PathLike[str] | None, model: Any = None, data: Any = None) -> None:
        self.flags = [] if config_dir is None else ["--config-dir", os.fspath(config_dir)]
        self._rows = data if isinstance(data, (tuple, list)) else None
        if data is not None and self._rows is None and not _is_module(data, "LightningDataModule"):
            lesson = "pass a LightningDataModule of lightning.pytorch or its class, or rows as a pair (X, y)"
            raise HoldfastError(f"data={type(data).__name__} cannot be trained on: {lesson}.")
        if model is not None and not _is_module(model, "LightningModule"):
            lesson = "pass a LightningModule of lightning.pytorch, or its class"
            raise HoldfastError(f"model={type(model).__name__} cannot be trained: {lesson}.")
        for value in (model, data):
            if value is not None and value is not self._rows:  # also where their packages are installed
                note_users((value if isinstance(value, type) else type(value)).__module__)
        given = {"model": model, "data": data if self._rows is None else None}
        self._options = [_option(group, value) for group, value in given.items() if value is not None]

    def arguments(self, *texts: str) -> str:
        """The arguments of a call with the same, as they would be typed."""
        names = {each.group: each.passed.__name__ if isinstance(each.passed, type) else "..." for each in self._options}
        flags = {"config_dir": repr(self.flags[1])} if self.flags else {}
        return ", ".join([*map(repr, texts), *(f"{key}={value}" for key, value in {**flags, **names}.items())])

    def overrides(self, typed: Sequence[str]) -> list[str]:
        """The overrides of the call, with those that choose what was passed.

        Rows are written to a file, which is a table like any other.

        Raises:
            ConfigError: a group is given twice, or a launcher starts processes in which an object does not exist.
        """
        groups = {option.group for option in self._options} | ({"data"} if self._rows is not None else set())
        problems = [
            Problem(item, f"{key_of(item)} is passed as an object too: give one of the two")
            for item in typed
            if key_of(item) in groups
        ]
        launchers = [item for item in typed if key_of(item) == "hydra/launcher"]
        problems += [
            Problem(
                item, f"{option.name} exists in this process alone: put it into a module, or leave the launcher out"
            )
            for item in launchers
            for option in self._options
            if option.only_here and item.partition("=")[2] not in _IN_THIS_PROCESS
        ]
        problems += self._conflicts(set(map(key_of, typed)))
        problems += self._without_effect(typed)
        if problems:
            raise ConfigError(problems)
        chosen = [f"{option.group}={option.name}" for option in self._options]
        return [*chosen, *(rows_file.overrides(*_pair(self._rows)) if self._rows is not None else []), *typed]

    def _conflicts(self, typed: set[str]) -> list[Problem]:
        """The keys at the top for which model and data have different defaults, and which nothing gives."""
        if len(self._options) < 2 or typed & {"experiment", "resume"}:
            return []
        first, second = (option.defaults for option in self._options)
        return [
            Problem(key, f"model has the default {first[key]} and data {second[key]}: give {key}={second[key]}")
            for key in first.keys() & second.keys()
            if first[key] != second[key] and key not in typed
        ]

    def _without_effect(self, typed: Sequence[str]) -> list[Problem]:
        """The overrides that an object does not read, since it has its values already."""
        objects = {each.group: each for each in self._options if isinstance(each.passed, Kept)}
        keys = {key for option in self._options for key in option.values}
        problems = []
        for item in typed:
            key = key_of(item)
            group = {"lr": "model", "batch_size": "data"}.get(key, key.partition(".")[0])
            if group not in objects or key == FOLD_KEY or (key in ("lr", "batch_size") and key in keys):
                continue
            if key == "lr" and objects[group].reads_optimizer():
                continue
            problems.append(Problem(item, f"has no effect on the object that is passed as {group}: pass its class"))
        return problems

    @contextmanager
    def written(self) -> Iterator[Path | None]:
        """A folder with a YAML file for each option, which exists within the block; None where none was passed.

        Within it the names of classes lead to what was passed, though they may have been defined anew.

        Raises:
            HoldfastError: code that a class uses is another than when it was passed.
        """
        classes = {each.name: each.passed for each in self._options if isinstance(each.passed, type)}
        for recorded, cls in classes.items():
            if not recorded.endswith(_code_digest(cls)[:_DIGITS]):
                raise HoldfastError(
                    f"the code of {cls.__name__}, or code that it uses, was changed since it was passed: restore it, "
                    "or train again."
                )
        with tempfile.TemporaryDirectory() as name:
            for option in self._options:
                file = Path(name, option.group, f"{option.name}.yaml")
                file.parent.mkdir(exist_ok=True)
                file.write_text(option.yaml())
            before = {cls: getattr(_home(cls), cls.__name__, None) for cls in classes.values()}
            for cls in before:
                setattr(_home(cls), cls.__name__, cls)
            try:
                yield Path(name) if self._options else None
            finally:
                for cls, value in before.items():
                    setattr(_home(cls), cls.__name__, value)


def _home(cls: type) -> Any:
    """The module, or the class, in which a class is defined."""
    home: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split(".")[:-1]:
        home = getattr(home, part, None)
    return home


def _is_module(value: Any, name: str) -> bool:
    """Whether a value is Lightning's class of this name, derived from it, or an object of it."""
    cls = value if isinstance(value, type) else type(value)
    return any(base.__name__ == name and base.__module__.startswith("lightning.") for base in cls.__mro__)


def _pair(rows: Sequence[Any]) -> tuple[Any, Any]:
    if len(rows) != 2:
        raise HoldfastError(f"data has {len(rows)} parts: rows are a pair (X, y), the inputs and the targets.")
    return rows[0], rows[1]


def _option(group: str, value: Any) -> Option:
    cls = value if isinstance(value, type) else type(value)
    path = f"{cls.__module__}.{cls.__qualname__}"
    of_main = cls.__module__ == "__main__"
    if not isinstance(value, type):
        kept = keep(value)
        values = {"_target_": f"{again.__module__}.again", "name": path, "digest": kept.digest}
        name = f"{FROM_PYTHON}{path}-object-{kept.digest[:_DIGITS]}"
        return Option(group, name, values, {}, only_here=True, passed=kept)
    if getattr(_home(cls), cls.__name__, None) is not cls:
        lesson = "define it at the top of a module or of a notebook, where it can be found by its name"
        raise HoldfastError(f"{group}={path} is defined within a function, or was defined anew: {lesson}.")
    keys, defaults = _arguments(cls)
    name = f"{FROM_PYTHON}{path}-{_code_digest(cls)[:_DIGITS]}"
    return Option(group, name, {"_target_": path, **keys}, defaults, only_here=of_main, passed=cls)


def _arguments(cls: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of a class as keys of its group, and its defaults of keys at the top."""
    keys, defaults = dict[str, Any](), dict[str, Any]()
    for name, argument in inspect.signature(cls).parameters.items():
        if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD, argument.POSITIONAL_ONLY):
            continue
        has_default = argument.default is not argument.empty
        if name in _TOP and not has_default:
            keys[name] = f"${{{name}}}"
        elif name in _TOP and type(argument.default) in (int, float):
            keys[name], defaults[name] = f"${{{name}}}", argument.default
        elif not has_default:
            keys[name] = "???"  # OmegaConf's mark of a value that has to be given
        elif _is_plain(argument.default):
            keys[name] = argument.default
    return keys, defaults


def _is_plain(value: Any) -> bool:
    """Whether a value can stand in a YAML file, so that it is the same when it is read."""
    if isinstance(value, dict):
        return "_target_" not in value and all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    is_text = type(value) is str and "${" not in value and value != "???"
    return value is None or type(value) in (bool, int, float) or is_text


def _code_digest(cls: type) -> str:
    """The digest of the code of a class, and of all that it uses of the user's."""
    from holdfast.usercode.content_digest import content_digest

    try:
        return content_digest(cls)
    except (TypeError, RuntimeError) as error:
        raise HoldfastError(f"the class {cls.__name__} cannot be recorded: {error}.") from None
