"""The keys of the schema: which there are, which one was meant, and how they are typed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from holdfast.config.commands import command
from holdfast.config.fold import FOLD_KEY
from holdfast.config.options import OPTIONS
from holdfast.config.schema import SET_BY_HOLDFAST, Config

EXTRAS = "extras"
"""The field of a group for further entries of the user, each with a `_target_`."""

FREE = "vars"
"""The group whose keys the user chooses."""

FROM_PYTHON = "python."
"""Begins the names of options that were passed from Python, as classes or objects, and lie in no YAML file."""

MOST_LISTED = 25
"""Valid names that are listed where none is near to a misspelt one."""


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
    return f"there is {', '.join(valid)}" if len(valid) <= MOST_LISTED else f"{command('--help')} lists the keys"


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
    'is a key at the top: epochs=N'
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
        node = value_at(values, above)
        target = node.get("_target_") if isinstance(node, Mapping) else None
        cls = OPTIONS.get(target) if target else hints_of(cls).get(part)
        if not is_dataclass(cls):
            return {}
    return {key: hint for key, hint in hints_of(cls).items() if key != EXTRAS}


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
    return path.startswith(f"{FREE}.") or path == FOLD_KEY or (bool(above) and key in keys_under(above, values))


def is_in_option(path: str) -> bool:
    """Whether a path lies inside a group whose options are classes: an option of the user's may have any keys.

    >>> is_in_option("data.outliers"), is_in_option("data"), is_in_option("callbacks.mine")
    (True, False, False)
    """
    group, _, rest = path.partition(".")
    return bool(rest) and group != FREE and get_origin(hints_of(Config).get(group)) is dict


@cache
def hints_of(cls: type) -> dict[str, Any]:
    """The fields of a class of the schema, with their types."""
    return get_type_hints(cls)


def value_at(values: Mapping[str, Any], path: str) -> Any:
    """The value at a path; None where there is none."""
    node: Any = values
    for key in path.split("."):
        node = node.get(key) if isinstance(node, Mapping) else None
    return node
