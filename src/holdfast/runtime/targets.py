"""Classes and functions that the `_target_` keys of a configuration name: checked, imported and called."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pkgutil import resolve_name
from typing import Any, NamedTuple

import hydra.utils
from hydra.errors import InstantiationException

from holdfast.config.fold import without_fold
from holdfast.config.schema import Config
from holdfast.errors import Problem, in_a_line
from holdfast.runtime.isolation import GLOBAL_SETTINGS, GlobalSetting, global_settings_restored
from holdfast.usercode.variables import note_module


class Target(NamedTuple):
    """A `_target_` of a configuration.

    Attributes:
        group: where it stands, such as `model` or `callbacks.mine`.
        path: the dotted path of a class or function.
        keys: names of the arguments that it is given.
    """

    group: str
    path: str
    keys: tuple[str, ...]


def targets_of(config: Config) -> Iterator[Target]:
    """The targets of all groups, and of the user's callbacks, loggers and arguments of the Trainer."""
    groups = {name: getattr(config, name) for name in ("data", "model", "optimizer", "scheduler")}
    for name in ("callbacks", "logger"):
        groups |= {f"{name}.{key}": node for key, node in getattr(config, name).extras.items()}
    for name, node in trainer_objects(config).items():
        groups |= {f"trainer.{name}": item for item in (node if isinstance(node, list) else [node])}
    for name, node in groups.items():
        if node.get("_target_") is not None:
            own = without_fold(node) if name == "data" else node
            keys = tuple(key for key in map(str, own) if not (key.startswith("_") and key.endswith("_")))
            yield Target(name, str(node["_target_"]), keys)


def trainer_objects(config: Config) -> dict[str, Any]:
    """The arguments of the Trainer that are objects, by name: mappings with a `_target_`, or lists of them."""
    return {name: value for name, value in vars(config.trainer).items() if _has_target(value)}


def check_target(target: Target) -> list[Problem]:
    """Import a target and compare its keys with its signature; global settings are restored."""
    given = f"{target.group}._target_={target.path}"
    try:
        with global_settings_restored():
            function = import_target(target.path)
    except Exception as error:  # whatever the user's module raises while it is imported
        return [Problem(given, f"cannot be imported: {in_a_line(error)}")]
    # an optimizer is also given parameters, a scheduler the optimizer
    positional = [None] if target.group in ("optimizer", "scheduler") else []
    try:
        inspect.signature(function).bind(*positional, **dict.fromkeys(target.keys))
    except TypeError as error:
        return [Problem(given, f"does not take these keys: {error}")]
    except ValueError:  # a callable whose signature Python does not know
        return []
    return []


def takes(group: Mapping[str, Any], key: str) -> bool:
    """Whether the class that a group names has an argument of this name; False where its signature is not known."""
    try:
        return key in inspect.signature(import_target(group["_target_"])).parameters
    except (TypeError, ValueError):
        return False


_set_by_import: dict[str, list[tuple[GlobalSetting, Any]]] = {}  # by module: the settings its import changed, and how


def import_target(path: str) -> Any:
    """Import the class or function at a dotted path.

    A module that changes a global setting while it is imported, such as `torch.set_default_dtype`, changes it for the
    jobs that use the module. A process imports it once; so the setting is written again at every call.
    """
    module = path.rpartition(".")[0]
    if module not in _set_by_import:
        before = [setting.read() for setting in GLOBAL_SETTINGS]
        resolve_name(path)
        after = [setting.read() for setting in GLOBAL_SETTINGS]
        _set_by_import[module] = [
            (setting, new) for setting, old, new in zip(GLOBAL_SETTINGS, before, after, strict=True) if new != old
        ]
        note_module(module)
    for setting, value in _set_by_import[module]:
        setting.write(value)
    return resolve_name(path)


def instantiate(group: Mapping[str, Any], *args: Any) -> Any:
    """Call what a group's `_target_` names, with the group's other keys as arguments.

    Args:
        group: a group of a configuration, or an entry of one.
        args: positional arguments, such as the optimizer that a scheduler is given.

    >>> instantiate({"_target_": "builtins.complex", "real": 1.0, "imag": 2.0})
    (1+2j)
    """
    function = import_target(group["_target_"])
    arguments = {key: value for key, value in group.items() if key != "_target_"}
    if any(key.startswith("_") for key in arguments) or _has_target(list(arguments.values())):
        try:
            return hydra.utils.instantiate(group, *args, _convert_="all")
        except InstantiationException as error:
            raise (error.__cause__ or error) from None  # what the user's class raised
    return function(*args, **arguments)  # the same, without the 8 ms in which Hydra looks for nested targets


def _has_target(value: Any) -> bool:
    """Whether a value holds a `_target_`, at any depth."""
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(_has_target, value.values()))
    return isinstance(value, list) and any(map(_has_target, value))
