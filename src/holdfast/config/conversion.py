"""A value as the type that the schema asks for, or what would fit instead."""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin


@dataclass(frozen=True)
class Wrong:
    """A value that does not fit; `lesson` says what would."""

    lesson: str


def fit(value: Any, hint: Any, bounds: Mapping[str, Any]) -> Any:
    """The value as the type the schema asks for, or what is wrong with it."""
    fitted = _convert(value, hint)
    if isinstance(fitted, Wrong):
        return Wrong(f"must be {describe(hint, bounds)}{_nearest(value, hint)}")
    if isinstance(fitted, (int, float)) and not isinstance(fitted, bool):
        above, least, most = bounds["above"], bounds["least"], bounds["most"]
        if (
            not math.isfinite(fitted)
            or (above is not None and fitted <= above)
            or (least is not None and fitted < least)
            or (most is not None and fitted > most)
        ):
            return Wrong(f"must be {describe(hint, bounds)}")
    lesson = bounds["check"](fitted) if bounds["check"] and fitted is not None else None
    return Wrong(lesson) if lesson else fitted


def _convert(value: Any, hint: Any) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        # an exact match comes first, so that 2 stays a whole number where `int | float` is asked for
        options = [_convert(value, part) for part in sorted(inner, key=lambda part: part is float)]
        return next((option for option in options if not isinstance(option, Wrong)), Wrong(""))
    if origin is Literal:
        return value if value in inner and not isinstance(value, bool) else Wrong("")
    if origin is list:
        items = [_convert(item, inner[0]) for item in value] if isinstance(value, list) else [Wrong("")]
        return Wrong("") if any(isinstance(item, Wrong) for item in items) else items
    if origin is dict:
        pairs = value.items() if isinstance(value, Mapping) else [(None, None)]
        made = {_convert(key, inner[0]): _convert(item, inner[1]) for key, item in pairs}
        return Wrong("") if any(isinstance(part, Wrong) for pair in made.items() for part in pair) else made
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    exact = (hint is type(None) and value is None) or (hint is not type(None) and type(value) is hint)
    return value if exact else Wrong("")


def describe(hint: Any, bounds: Mapping[str, Any]) -> str:
    """What a value may be, in words: `a number above 0`."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(part, bounds) for part in inner)
    if origin is Literal:
        return " or ".join(", ".join(map(str, inner)).rsplit(", ", 1))
    if origin is list:
        return f"a list of {describe(inner[0], _UNBOUNDED)}s, as [1,2]".replace("a list of a ", "a list of ")
    if origin is dict:
        return "a mapping, as {0:20.0}"
    names = {bool: "true or false", str: "text", type(None): "null", int: "a whole number", float: "a number"}
    if hint not in (int, float):
        return names[hint]
    ends = [f"above {bounds['above']:g}"] if bounds["above"] is not None else []
    ends += [f"from {bounds['least']:g}"] if bounds["least"] is not None else []
    ends += [f"to {bounds['most']:g}"] if bounds["most"] is not None else []
    return " ".join([names[hint], *ends]) + (" on" if ends and ends[-1].startswith("from") else "")


_UNBOUNDED: dict[str, Any] = {"above": None, "least": None, "most": None}


def _nearest(value: Any, hint: Any) -> str:
    """The nearest of the words allowed, where the value is nearly one of them."""
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    words = [str(item) for part in parts if get_origin(part) is Literal for item in get_args(part)]
    near = difflib.get_close_matches(str(value), words, n=1, cutoff=0.3)
    return f"; did you mean {near[0]}?" if near else ""
