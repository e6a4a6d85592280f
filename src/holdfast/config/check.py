"""Hold a composed configuration against the schema, and find everything that is wrong with it at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from holdfast.config.conversion import Wrong, fit
from holdfast.config.options import OPTIONS
from holdfast.config.rules import conflicts
from holdfast.config.schema import Config
from holdfast.errors import ConfigError, Problem

_EXTRAS = "extras"  # the field that takes a group's further entries, each with a `_target_` of the user's own
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")

Cache = dict[str, Any]
"""Checked top-level values by the text of key and value, such as `lr=0.1`; 1, 1.0 and True have different texts."""


def validate(
    values: Mapping[str, Any], origin: Mapping[str, Any], groups: Iterable[str] = (), cache: Cache | None = None
) -> Config:
    """Check a composed configuration against the schema.

    Args:
        values: the configuration as plain containers, interpolations resolved.
        origin: the same with interpolations as written, so that a mistake in `lr` is reported once and not again for
            every key that follows it.
        groups: config groups that the schema lacks: the user's own, which may hold anything.
        cache: filled here; top-level values that it holds are not checked again. Most jobs of a sweep share most.

    Raises:
        ConfigError: with every problem of the configuration.
    """
    cache = {} if cache is None else cache
    schema = _hints(Config)
    problems: dict[str, str] = {}
    fields, new = {}, {}
    for key, value in values.items():
        if key in schema or key not in groups:
            text = f"{key}={value!r}"
            if text in cache:
                fields[key] = cache[text]
            else:
                new[key] = text
    checked = _check_fields(Config, {key: values[key] for key in new}, "", problems, fields)
    if not problems:
        problems = conflicts(fields | checked)
    else:
        problems = {key: lesson for key, lesson in problems.items() if not _follows(_select(origin, key), problems)}
    if problems:
        raise ConfigError([Problem(word(key, _select(values, key)), lesson) for key, lesson in problems.items()])
    for key, text in new.items():
        fields[key] = cache[text] = _build(schema[key], checked[key])
    return Config(**fields)


def word(key: str, value: Any) -> str:
    """A key and its value as the user would type them.

    >>> word("model.weight", None)
    'model.weight=null'
    """
    shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
    if isinstance(value, str) and value.replace(".", "", 1).lstrip("-").isdecimal():
        shown = f"'{value}'"
    return f"{key}={shown}"


def key_of(typed: str) -> str:
    """The key of a word as the user typed it.

    >>> key_of("++optimizer.momentum=0.9"), key_of("~scheduler")
    ('optimizer.momentum', 'scheduler')
    """
    return typed.lstrip("+~").partition("=")[0]


def did_you_mean(given: str, known: Iterable[str], path: str = "") -> str:
    """The nearest known name, as the end of a sentence, or all of them where none is near.

    Args:
        given: what was typed.
        known: the names there are.
        path: what stands before the name. A top-level key may also be meant for one of the groups.

    >>> did_you_mean("adma", ["adam", "sgd"])
    'did you mean adam?'
    >>> did_you_mean("momentum", ["lr", "seed"])
    'did you mean optimizer.momentum?'
    """
    names = sorted(map(str, known))
    near = difflib.get_close_matches(given, names, n=1)
    if not near and not path:
        near = [full for full in _grouped() if full.rpartition(".")[2] == given][:1]
    return f"did you mean {path}{near[0]}?" if near else f"there is {', '.join(names)}"


@cache
def _grouped() -> tuple[str, ...]:
    """Every key of the groups that ship with Holdfast, with its group."""
    groups = {"holdfast.data": "data", "holdfast.model": "model", "torch.optim.lr_scheduler": "scheduler"}
    return tuple(
        f"{groups.get(target.rpartition('.')[0], 'optimizer')}.{field.name}"
        for target, cls in OPTIONS.items()
        for field in fields(cls)
    )


def keys_under(path: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that may stand under a path, with their types; none where they are the user's own to choose.

    >>> keys_under("callbacks.divergence", {})
    {'threshold': <class 'float'>}
    """
    cls: Any = Config
    above = ""
    for part in path.split(".") if path else ():
        above = f"{above}.{part}".lstrip(".")
        node = _select(values, above)
        target = node.get("_target_") if isinstance(node, Mapping) else None
        cls = OPTIONS.get(target) if target else _hints(cls).get(part)
        if not is_dataclass(cls):
            return {}
    return {key: hint for key, hint in _hints(cls).items() if key != _EXTRAS}


def is_mapping(path: str, values: Mapping[str, Any]) -> bool:
    """Whether the value at a path is one mapping, or none, to be replaced whole, such as `data.outliers`."""
    above, _, key = path.rpartition(".")
    hint = keys_under(above, values).get(key) if above else None
    return dict in {get_origin(part) for part in (hint, *get_args(hint))}


def is_in_option(path: str) -> bool:
    """Whether a path lies inside a group whose option is a class, where an option of the user's own has any keys.

    >>> is_in_option("data.outliers"), is_in_option("data"), is_in_option("callbacks.mine")
    (True, False, False)
    """
    group, _, rest = path.partition(".")
    return bool(rest) and get_origin(_hints(Config).get(group)) is dict


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _build(cls: Any, value: Any) -> Any:
    """A checked value; where the schema names a dataclass, an instance of it."""
    if not isinstance(cls, type) or not is_dataclass(cls):
        return value
    hints = _hints(cls)
    return cls(**{key: _build(hints[key], item) for key, item in value.items()})


def _check_fields(
    cls: type, values: Mapping[str, Any], path: str, problems: dict[str, str], beside: Iterable[str] = ()
) -> dict[str, Any]:
    """Check every key under a path, but for those beside them; returns the values as the schema's types."""
    hints = {key: hint for key, hint in _hints(cls).items() if key != _EXTRAS}
    own = {field.name: field.metadata for field in fields(cls)}
    checked: dict[str, Any] = {_EXTRAS: {}} if _EXTRAS in own else {}
    for key, value in values.items():
        full = f"{path}{key}"
        if key == "_target_":
            checked[key] = value
        elif key not in hints:
            if _EXTRAS in own and isinstance(value, Mapping) and "_target_" in value:
                checked[_EXTRAS][key] = value
            else:
                problems[full] = f"no such key; {did_you_mean(str(key), hints, path)}"
        elif is_dataclass(hints[key]):
            checked[key] = _check_group(hints[key], value, full, problems)
        elif cls is Config and get_origin(hints[key]) is dict:
            checked[key] = _check_option(key, value, problems)
        else:
            fitted = fit(value, hints[key], own[key])
            if isinstance(fitted, Wrong):
                problems[full] = f"{fitted.lesson} ({own[key]['meaning']})"
            checked[key] = fitted
    # an option may leave keys to the defaults of its class, as a file of the user's own does
    for key in () if "_target_" in values else hints.keys() - values.keys() - set(beside):
        problems[f"{path}{key}"] = f"is missing ({own[key]['meaning']})"
    return checked


def _check_group(cls: type, value: Any, path: str, problems: dict[str, str]) -> Any:
    if isinstance(value, Mapping):
        return _check_fields(cls, value, f"{path}.", problems)
    problems[path] = f"is a group of keys: {', '.join(f'{path}.{key}' for key in _hints(cls))}"
    return value


def _check_option(key: str, value: Any, problems: dict[str, str]) -> Any:
    """Check a group whose option is known by its `_target_`; an option of the user's own is left as it is."""
    if not isinstance(value, Mapping) or "_target_" not in value:
        problems[key] = "is a group: its YAML file must name a class as _target_"
        return value
    target = value["_target_"]
    if target is None and key == "scheduler":
        return value
    if not isinstance(target, str):
        problems[f"{key}._target_"] = "must name a class, as module.Class"
        return value
    cls = OPTIONS.get(target)
    return _check_fields(cls, value, f"{key}.", problems) if cls else value


def _select(values: Mapping[str, Any], path: str) -> Any:
    node: Any = values
    for part in path.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _follows(raw: Any, problems: Mapping[str, str]) -> bool:
    """Whether a value only repeats another key that is told of already."""
    return isinstance(raw, str) and any(reference in problems for reference in _REFERENCE.findall(raw))
