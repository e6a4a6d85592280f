"""Convert one value to the type that the schema gives it, and describe what that type allows."""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal, Union, get_args, get_origin

_UNIONS = (Union, types.UnionType)
_UNBOUNDED: dict[str, Any] = {"above": None, "least": None, "most": None}


def convert(value: Any, hint: Any, bounds: Mapping[str, Any]) -> Any:
    """A value as the type of its field: whole numbers become floats where floats are expected, text never a number.

    Args:
        value: a plain value, as read from YAML or from an override.
        hint: type of the field.
        bounds: metadata of the field, see `options.setting`.

    Raises:
        ValueError: the value does not fit; the message says what would.

    >>> convert(1, float, {"above": 0, "least": None, "most": None, "check": None})
    1.0
    """
    try:
        converted = _convert(value, hint)
    except (ValueError, OverflowError):
        raise ValueError(f"must be {describe(hint, bounds)}{_nearest(value, hint)}") from None
    is_number = isinstance(converted, (int, float)) and not isinstance(converted, bool)
    if is_number and not _is_in_range(converted, bounds):
        raise ValueError(f"must be {describe(hint, bounds)}")
    if bounds["check"] and converted is not None and (lesson := bounds["check"](converted)):
        raise ValueError(lesson)
    return converted


def _convert(value: Any, hint: Any) -> Any:
    """A value as a type; raises a ValueError without a message where it does not fit."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in _UNIONS:
        # float comes last, so that 2 stays a whole number where `int | float` is expected
        for part in sorted(inner, key=lambda part: part is float):
            with suppress(ValueError, OverflowError):
                return _convert(value, part)
    elif origin is Literal:
        if value in inner and not isinstance(value, bool):
            return value
    elif origin is list:
        if isinstance(value, list):
            return [_convert(item, inner[0]) for item in value]
    elif origin is dict:
        if isinstance(value, Mapping):
            return {_convert(key, inner[0]): _convert(item, inner[1]) for key, item in value.items()}
    elif hint is float and type(value) in (int, float):  # bool is a subclass of int
        return float(value)
    elif hint is Any or type(value) is hint:
        return value
    raise ValueError


def _is_in_range(number: float, bounds: Mapping[str, Any]) -> bool:
    above, least, most = bounds["above"], bounds["least"], bounds["most"]
    return (
        abs(number) < math.inf  # False for NaN
        and (above is None or number > above)
        and (least is None or number >= least)
        and (most is None or number <= most)
    )


def describe(hint: Any, bounds: Mapping[str, Any]) -> str:
    """What a field allows, in English.

    Args:
        hint: type of the field.
        bounds: metadata of the field, see `options.setting`.

    >>> describe(float | None, {"above": 0, "least": None, "most": None})
    'a number above 0 or null'
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin in _UNIONS:
        return " or ".join(describe(part, bounds) for part in inner)
    if origin is Literal:
        return " or ".join(", ".join(map(str, inner)).rsplit(", ", 1))
    if origin is list:
        return f"a list of {describe(inner[0], _UNBOUNDED)}s, as [1,2]".replace("a list of a ", "a list of ")
    if origin is dict:
        return "a mapping, as {0:20.0}" if inner[0] is not str else "a mapping"
    names = {bool: "true or false", str: "text", type(None): "null", int: "a whole number", float: "a number"}
    return f"{names.get(hint, 'anything')}{_range(bounds) if hint in (int, float) else ''}"


def _range(bounds: Mapping[str, Any]) -> str:
    """The range of a number: ` above 0`, ` from 1 on`, ` from 0 to 1`."""
    prepositions = {"above": "above", "least": "from", "most": "to"}
    ends = [f" {word} {bounds[key]:g}" for key, word in prepositions.items() if bounds[key] is not None]
    return "".join(ends) + (" on" if ends and ends[-1].startswith(" from") else "")


def _nearest(value: Any, hint: Any) -> str:
    """A hint at the name that a value resembles, where the field allows names."""
    parts = get_args(hint) if get_origin(hint) in _UNIONS else (hint,)
    names = [str(item) for part in parts if get_origin(part) is Literal for item in get_args(part)]
    near = difflib.get_close_matches(str(value), names, n=1, cutoff=0.3)
    return f"; did you mean {near[0]}?" if near else ""
