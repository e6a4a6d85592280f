"""Jobs as plain JSON, and back: how they reach another process, which composes nothing.

Jobs of a sweep share most of their values, so that each value is written once, and named by its index.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.config.job import JobSpec
from holdfast.config.keys import hints_of
from holdfast.config.schema import Config

Plain = dict[str, Any]
"""What JSON can hold; numbers that are not finite are `NaN` and `Infinity`, as Python's own JSON writes them."""

_TAG = "__holdfast__"
"""The key of a mapping that stands for a value which JSON lacks."""


def jobs_as_plain(jobs: Sequence[JobSpec]) -> Plain:
    """Jobs as plain values; `jobs_from_plain` makes equal ones of them, types included.

    Args:
        jobs: some jobs.

    Raises:
        TypeError: a configuration holds an object that is no plain value.
    """
    values: list[Any] = []
    by_identity: dict[int, int] = {}  # values are alive as long as the jobs are
    by_text: dict[str, int] = {}
    indexes = []
    for job in jobs:
        row = []
        for name, value in vars(job.config).items():
            if id(value) not in by_identity:
                plain = encoded(value)
                text = f"{name} {plain!r}"  # 1, 1.0 and True have different texts
                if text not in by_text:
                    by_text[text] = len(values)
                    values.append(plain)
                by_identity[id(value)] = by_text[text]
            row.append(by_identity[id(value)])
        indexes.append(row)
    return {
        "keys": list(vars(jobs[0].config)),
        "values": values,
        "swept": jobs[0].swept,
        "jobs": [
            {"number": job.number, "overrides": list(job.overrides), "config_hash": job.config_hash, "config": row}
            for job, row in zip(jobs, indexes, strict=True)
        ],
    }


def jobs_from_plain(plain: Mapping[str, Any]) -> tuple[JobSpec, ...]:
    """The jobs that `jobs_as_plain` made plain values of.

    Args:
        plain: what it returned, maybe written as JSON and read again.
    """
    hints, keys = hints_of(Config), plain["keys"]
    swept = None if plain["swept"] is None else tuple(plain["swept"])
    built: dict[tuple[str, int], Any] = {}
    jobs = []
    for entry in plain["jobs"]:
        config = {}
        for key, index in zip(keys, entry["config"], strict=True):
            if (key, index) not in built:
                built[key, index] = _built(hints[key], decoded(plain["values"][index]))
            config[key] = built[key, index]
        jobs.append(JobSpec(entry["number"], tuple(entry["overrides"]), Config(**config), entry["config_hash"], swept))
    return tuple(jobs)


def encoded(value: Any) -> Any:
    """A value as JSON can hold it.

    >>> encoded({"a": (1, 2.0)})
    {'a': {'__holdfast__': 'tuple', 'items': [1, 2.0]}}
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return encoded(vars(value))
    if isinstance(value, list):
        return [encoded(item) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value) and _TAG not in value:
        return {key: encoded(item) for key, item in value.items()}
    return _tagged(value)


def _tagged(value: Any) -> Plain:
    """A mapping that stands for a value which JSON lacks."""
    if isinstance(value, Mapping):
        return {_TAG: "mapping", "items": [[encoded(key), encoded(item)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {_TAG: "tuple", "items": [encoded(item) for item in value]}
    if isinstance(value, bytes):
        return {_TAG: "bytes", "items": base64.b64encode(value).decode()}
    raise TypeError(f"{value!r} is no plain value, and cannot be sent to another process")


def decoded(value: Any) -> Any:
    """The value that `encoded` made this of.

    >>> decoded(encoded({1: b"a", "b": [(2,)]}))
    {1: b'a', 'b': [(2,)]}
    """
    if isinstance(value, list):
        return [decoded(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    kind = value.get(_TAG)
    if kind is None:
        return {key: decoded(item) for key, item in value.items()}
    if kind == "bytes":
        return base64.b64decode(value["items"])
    items = decoded(value["items"])
    return tuple(items) if kind == "tuple" else dict(items)


def _built(hint: Any, value: Any) -> Any:
    """A value; where the schema names a dataclass, an instance of it."""
    if not isinstance(hint, type) or not dataclasses.is_dataclass(hint):
        return value
    hints = hints_of(hint)
    return hint(**{key: _built(hints[key], item) for key, item in value.items()})
