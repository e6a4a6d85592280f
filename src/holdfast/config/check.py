"""Check a composed configuration against the schema, and report all of its problems together."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from holdfast.config.conversion import convert
from holdfast.config.options import OPTIONS
from holdfast.config.rules import conflicts
from holdfast.config.schema import SET_BY_HOLDFAST, Config
from holdfast.errors import ConfigError, Problem

_EXTRAS = "extras"
"""The field of a group for further entries of the user, each with a `_target_`."""

FREE = "vars"
"""The group whose keys the user chooses."""

_REFERENCE = re.compile(r"\$\{([\w.]+)\}")

Lessons = dict[str, str]
"""What is wrong, by the full key, such as `optimizer.lr`."""

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
        cache: filled here; top-level values in it are not checked again. The jobs of a sweep share most values.

    Raises:
        ConfigError: with every problem of the configuration.
    """
    cache = {} if cache is None else cache
    schema = _hints(Config)
    lessons: Lessons = {}
    typed, unchecked = {}, {}
    for key, value in values.items():
        text = f"{key}={value!r}"
        if text in cache:
            typed[key] = cache[text]
        elif key in schema or key not in groups:
            unchecked[key] = text
    checked = _check_fields(Config, {key: values[key] for key in unchecked}, "", lessons, typed)
    if lessons:
        raw = {key: _select(origin, key) for key in lessons}
        lessons = {
            key: lesson + _hint_at_decode(raw[key], _select(values, key))
            for key, lesson in lessons.items()
            if not _follows(raw[key], lessons)
        }
    else:
        lessons = conflicts(typed | checked)
    if lessons:
        raise ConfigError([Problem(as_override(key, _select(values, key)), text) for key, text in lessons.items()])
    for key, text in unchecked.items():
        typed[key] = cache[text] = _build(schema[key], checked[key])
    return Config(**typed)


def as_override(key: str, value: Any) -> str:
    """A key and its value as the user would type them.

    >>> as_override("model.weight", None)
    'model.weight=null'
    """
    shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
    if isinstance(value, str) and value.replace(".", "", 1).lstrip("-").isdecimal():
        shown = f"'{value}'"
    return f"{key}={shown}"


def key_of(override: str) -> str:
    """The key of an override.

    >>> key_of("++optimizer.momentum=0.9"), key_of("~scheduler")
    ('optimizer.momentum', 'scheduler')
    """
    return override.lstrip("+~").partition("=")[0]


MOST_LISTED = 25
"""Valid names that are listed where none is near to a misspelt one."""


def did_you_mean(given: str, names: Iterable[str], path: str = "") -> str:
    """The valid name nearest to a misspelt one, as the end of a sentence, or all valid names where none is near.

    Args:
        given: what was typed.
        names: the valid names.
        path: what stands before the name. Without a path, the key of a group may be meant.

    >>> did_you_mean("adma", ["adam", "sgd"])
    'did you mean adam?'
    >>> did_you_mean("momentum", ["lr", "seed"])
    'did you mean optimizer.momentum?'
    """
    valid = sorted(map(str, names))
    near = difflib.get_close_matches(given, valid, n=1)
    if not near and not path:
        near = [key for key in _keys_of_options() if key.rpartition(".")[2] == given][:1]
    if near:
        return f"did you mean {path}{near[0]}?"
    return f"there is {', '.join(valid)}" if len(valid) <= MOST_LISTED else "python train.py --help lists the keys"


@cache
def _keys_of_options() -> tuple[str, ...]:
    """Every key of the options that ship with Holdfast, with its group."""
    groups = {"holdfast.data": "data", "holdfast.model": "model", "torch.optim.lr_scheduler": "scheduler"}
    return tuple(
        f"{groups.get(target.rpartition('.')[0], 'optimizer')}.{field.name}"
        for target, cls in OPTIONS.items()
        for field in fields(cls)
    )


def no_such_key(given: str, names: Iterable[str], path: str = "") -> str:
    """What is wrong with a key that the schema does not have; arguments as for `did_you_mean`.

    >>> no_such_key("max_epochs", ["max_steps"], "trainer.")
    'is a key of its own: epochs=20'
    """
    if path == "trainer." and given in SET_BY_HOLDFAST:
        return SET_BY_HOLDFAST[given]
    return f"no such key; {did_you_mean(given, names, path)}"


def keys_under(path: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that the schema allows under a path, with their types; none where the user may choose any.

    Args:
        path: path of a group, such as `callbacks.divergence`; empty for the top level.
        values: the configuration, which holds the `_target_` of each group.

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
    """Whether the value at a path is a single mapping that is replaced as a whole, such as `data.outliers`."""
    above, _, key = path.rpartition(".")
    hint = keys_under(above, values).get(key) if above else None
    return dict in {get_origin(part) for part in (hint, *get_args(hint))}


def may_be_added(path: str, values: Mapping[str, Any]) -> bool:
    """Whether a key that no YAML file gives may be set: one that the schema has, or one of the user's own.

    >>> may_be_added("trainer.fast_dev_run", {}), may_be_added("vars.data_dir", {}), may_be_added("trainer.fats", {})
    (True, True, False)
    """
    above, _, key = path.rpartition(".")
    return path.startswith(f"{FREE}.") or (bool(above) and key in keys_under(above, values))


def is_in_option(path: str) -> bool:
    """Whether a path lies inside a group whose options are classes: an option of the user's may have any keys.

    >>> is_in_option("data.outliers"), is_in_option("data"), is_in_option("callbacks.mine")
    (True, False, False)
    """
    group, _, rest = path.partition(".")
    return bool(rest) and group != FREE and get_origin(_hints(Config).get(group)) is dict


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
    cls: type, values: Mapping[str, Any], path: str, lessons: Lessons, present: Iterable[str] = ()
) -> dict[str, Any]:
    """Convert every value under a path; keys that are `present` elsewhere are not missing here."""
    metadata = {field.name: field.metadata for field in fields(cls)}
    hints = {key: hint for key, hint in _hints(cls).items() if key != _EXTRAS}
    optional = {field.name for field in fields(cls) if field.default is not MISSING}
    checked: dict[str, Any] = {_EXTRAS: {}} if _EXTRAS in metadata else {}
    for key, value in values.items():
        full = f"{path}{key}"
        if key == "_target_" and cls in OPTIONS.values():
            checked[key] = value
        elif key in hints:
            checked[key] = _check_value(hints[key], metadata[key], value, full, lessons)
        elif _EXTRAS in metadata and isinstance(value, Mapping) and "_target_" in value:
            checked[_EXTRAS][key] = value
        else:
            lessons[full] = no_such_key(str(key), hints, path)
    # a file of the user's may leave keys of an option to the defaults of its class
    for key in () if "_target_" in values else hints.keys() - optional - values.keys() - set(present):
        lessons[f"{path}{key}"] = f"is missing ({metadata[key]['meaning']})"
    return checked


def _check_value(hint: Any, metadata: Mapping[str, Any], value: Any, path: str, lessons: Lessons) -> Any:
    """Convert one value, or all values of a group."""
    if is_dataclass(hint):
        return _check_group(hint, value, path, lessons)
    if path == FREE:
        return _check_free(value, lessons)
    if get_origin(hint) is dict and "." not in path:  # the groups whose options are classes
        return _check_option(path, value, lessons)
    try:
        return convert(value, hint, metadata)
    except ValueError as error:
        lessons[path] = f"{error} ({metadata['meaning']})"
        return value


def _check_group(cls: Any, value: Any, path: str, lessons: Lessons) -> Any:
    """Convert the values of a group that has one class."""
    if isinstance(value, Mapping):
        return _check_fields(cls, value, f"{path}.", lessons)
    lessons[path] = f"is a group of keys: {', '.join(f'{path}.{key}' for key in _hints(cls))}"
    return value


def _check_option(group: str, value: Any, lessons: Lessons) -> Any:
    """Convert the values of a group whose class is named by `_target_`; a class of the user's may take anything."""
    if not isinstance(value, Mapping) or "_target_" not in value:
        lessons[group] = "is a group: its YAML file must name a class as _target_"
        return value
    target = value["_target_"]
    if target is None and group == "scheduler":
        return value
    if not isinstance(target, str):
        lessons[f"{group}._target_"] = "must name a class, as module.Class"
        return value
    cls = OPTIONS.get(target)
    return _check_fields(cls, value, f"{group}.", lessons) if cls else value


def _check_free(value: Any, lessons: Lessons) -> Any:
    """Keys of the user's own may hold anything."""
    if not isinstance(value, Mapping):
        lessons[FREE] = f"is a group of keys of your own: {FREE}.name=value"
    return value


def _select(values: Mapping[str, Any], path: str) -> Any:
    """The value at a path; None where there is none."""
    node: Any = values
    for key in path.split("."):
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def _hint_at_decode(raw: Any, value: Any) -> str:
    """What to type where the text of an environment variable stands for another type."""
    if not (isinstance(raw, str) and isinstance(value, str) and raw.startswith("${oc.env:")):
        return ""
    return f"; {value!r} is a string, as all environment variables are: type '${{oc.decode:{raw}}}'"


def _follows(raw: Any, lessons: Lessons) -> bool:
    """Whether a value, as written, only repeats a key that is reported already."""
    return isinstance(raw, str) and any(reference in lessons for reference in _REFERENCE.findall(raw))
