"""Check a composed configuration against the schema, and report all of its problems together."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, get_origin

from holdfast.config.conversion import convert
from holdfast.config.fold import FOLD, FOLD_KEY, check_fold, fold_of
from holdfast.config.keys import EXTRAS, FREE, as_override, hints_of, no_such_key, value_at
from holdfast.config.options import OPTIONS
from holdfast.config.rules import conflicts
from holdfast.config.schema import Config
from holdfast.errors import ConfigError, Problem

_NUMBER = r"-?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?"
_TWO_NUMBERS = re.compile(rf"(?P<low>{_NUMBER})(\.\.|:)(?P<high>{_NUMBER})", re.IGNORECASE)
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")

Lessons = dict[str, str]
"""What is wrong, by the full key, such as `optimizer.lr`."""

Cache = dict[str, Any]
"""Checked top-level values by the text of key and value, such as `lr=0.1`; 1, 1.0 and True have different texts."""


def validate(
    values: Mapping[str, Any],
    origin: Mapping[str, Any],
    groups: Iterable[str] = (),
    cache: Cache | None = None,
    already_checked: Mapping[str, Any] | None = None,
) -> Config:
    """Check a composed configuration against the schema.

    Args:
        values: the configuration as plain containers, interpolations resolved.
        origin: the same with interpolations as written, so that a mistake in `lr` is reported once and not again for
            every key that follows it.
        groups: config groups that the schema lacks: the user's own, which may hold anything.
        cache: filled here; top-level values in it are not checked again. The jobs of a sweep share most values.
        already_checked: checked values, by their top-level key.

    Raises:
        ConfigError: with every problem of the configuration.
    """
    cache = {} if cache is None else cache
    schema = hints_of(Config)
    lessons: Lessons = {}
    typed, unchecked = dict(already_checked or {}), {}
    for key, value in values.items():
        if key in typed:
            continue
        text = f"{key}={value!r}"
        if text in cache:
            typed[key] = cache[text]
        elif key in schema or key not in groups:
            unchecked[key] = text
    checked = _check_fields(Config, {key: values[key] for key in unchecked}, "", lessons, typed)
    if lessons:
        raw = {key: value_at(origin, key) for key in lessons}
        lessons = {
            key: lesson + _hint(raw[key], value_at(values, key))
            for key, lesson in lessons.items()
            if not _follows(raw[key], lessons)
        }
    else:
        lessons = conflicts(typed | checked)
    if lessons:
        raise ConfigError([Problem(as_override(key, value_at(values, key)), text) for key, text in lessons.items()])
    for key, text in unchecked.items():
        typed[key] = cache[text] = _build(schema[key], checked[key])
    return Config(**typed)


def _build(cls: Any, value: Any) -> Any:
    """A checked value; where the schema names a dataclass, an instance of it."""
    if not isinstance(cls, type) or not is_dataclass(cls):
        return value
    hints = hints_of(cls)
    return cls(**{key: _build(hints[key], item) for key, item in value.items()})


def _check_fields(
    cls: type, values: Mapping[str, Any], path: str, lessons: Lessons, present: Container[str] = ()
) -> dict[str, Any]:
    """Convert every value under a path; keys that are `present` elsewhere are not missing here."""
    metadata, hints, required = _form(cls)
    checked: dict[str, Any] = {EXTRAS: {}} if EXTRAS in metadata else {}
    for key, value in values.items():
        full = f"{path}{key}"
        if key == "_target_" and cls in OPTIONS.values():
            checked[key] = value
        elif key in hints:
            checked[key] = _check_value(hints[key], metadata[key], value, full, lessons)
        elif EXTRAS in metadata and isinstance(value, Mapping) and "_target_" in value:
            checked[EXTRAS][key] = value
        else:
            lessons[full] = no_such_key(str(key), hints, path)
    # a file of the user's may leave keys of an option to the defaults of its class
    for key in () if "_target_" in values else required:
        if key not in values and key not in present:
            lessons[f"{path}{key}"] = f"is missing ({metadata[key]['meaning']})"
    return checked


@cache
def _form(cls: type) -> tuple[dict[str, Any], dict[str, Any], frozenset[str]]:
    """Of the fields of a class: the metadata, the types, and the names of those without a default."""
    metadata = {field.name: field.metadata for field in fields(cls)}
    hints = {key: hint for key, hint in hints_of(cls).items() if key != EXTRAS}
    optional = {field.name for field in fields(cls) if field.default is not MISSING}
    return metadata, hints, frozenset(hints.keys() - optional)


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
    lessons[path] = f"is a group of keys: {', '.join(f'{path}.{key}' for key in hints_of(cls))}"
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
    if cls is None and group == "data" and fold_of(value) and (lesson := check_fold(value[FOLD])) is not None:
        lessons[FOLD_KEY] = lesson
    return _check_fields(cls, value, f"{group}.", lessons) if cls else value


def _check_free(value: Any, lessons: Lessons) -> Any:
    """Keys of the user's own may hold anything."""
    if not isinstance(value, Mapping):
        lessons[FREE] = f"holds keys that you choose: {FREE}.NAME=VALUE"
    return value


def _hint(raw: Any, value: Any) -> str:
    """What to type where text stands for a number: that of an environment variable, or two numbers as an interval."""
    if isinstance(value, str) and (ends := _TWO_NUMBERS.fullmatch(value)):
        return f"; an interval is interval({ends['low']},{ends['high']})"
    if not (isinstance(raw, str) and isinstance(value, str) and raw.startswith("${oc.env:")):
        return ""
    return f"; {value!r} is a string, as all environment variables are: type '${{oc.decode:{raw}}}'"


def _follows(raw: Any, lessons: Lessons) -> bool:
    """Whether a value, as written, only repeats a key that is reported already."""
    return isinstance(raw, str) and any(reference in lessons for reference in _REFERENCE.findall(raw))
