"""`python train.py --help`, made from the schema and the YAML files alone: Hydra's own takes seconds to build."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_origin, get_type_hints

import yaml

from holdfast.config.commands import command
from holdfast.config.conversion import describe
from holdfast.config.keys import FREE, as_override
from holdfast.config.options import OPTIONS
from holdfast.config.schema import Config

_COMMANDS = {
    "[key=value ...]": "train one run",
    "-m key=value,value ...": "train one job for each value, or for each combination of values",
    "report FOLDER": "draw the figures and the page of a finished run or sweep again",
    "predict FOLDER rows.csv": "predict new rows with a model of a table; also: test, export",
    "new FOLDER": "make a project of your own",
}

_HEAD = """\
Keys, with their defaults. A group takes the name of one of its files: optimizer=adam. Each group's own keys are shown
for the files that ship with Holdfast; --config-dir FOLDER adds your own."""

_FOOT = """\
--cfg job           print the configuration, do not run        --config-dir FOLDER   your own groups
--multirun, -m      sweep                                      --hydra-help          Hydra's own flags and keys
-sc install=bash    tab completion"""


class Key(NamedTuple):
    """A key of the configuration.

    Attributes:
        path: the key.
        default: its value in the YAML file, or of the schema; `...` where the user chooses it.
        meaning: what the value is, with its unit.
        allowed: what it may be.
    """

    path: str
    default: Any
    meaning: str
    allowed: str


class Section(NamedTuple):
    """The keys of one option of a config group.

    Attributes:
        title: the option and what it is; empty where the group has no options.
        keys: its keys, without those of the options before it.
    """

    title: str
    keys: list[Key]


class Group(NamedTuple):
    """A config group; the keys at the top are one without a name.

    Attributes:
        name: of the group.
        options: the names of its files.
        sections: the keys.
    """

    name: str
    options: list[str]
    sections: list[Section]


def groups(conf: Path) -> Iterator[Group]:
    """Every key, first those at the top, then those of each group.

    Args:
        conf: the folder of the YAML files.
    """
    values, hints = _read(conf / "config.yaml"), get_type_hints(Config)
    is_group = {field.name: is_dataclass(hints[field.name]) or get_origin(hints[field.name]) is dict for field in _TOP}
    top = [_key(field.name, values[field.name], hints[field.name], field) for field in _TOP if not is_group[field.name]]
    yield Group("", [], [Section("", top)])
    for field in _TOP:
        if field.name == FREE:
            yield Group(FREE, [], [Section("", [_key(f"{FREE}.NAME", ..., Any, field)])])
        elif is_group[field.name]:
            yield Group(field.name, _names(conf, field.name), list(_sections(conf, field.name, hints[field.name])))
    yield Group("experiment", _names(conf, "experiment"), [])


_TOP = fields(Config)


def help_text(conf: Path) -> str:
    """All keys and groups, what they mean and what they may be.

    Args:
        conf: the folder of the YAML files.
    """
    lines = [f"{f'{command()} {words}':<43} {meaning}" for words, meaning in _COMMANDS.items()]
    lines += ["", _HEAD]
    for group in groups(conf):
        end = "  whole settings, one file each in conf/experiment" if group.name == "experiment" else ""
        lines += ["", f"{group.name}={'|'.join(group.options)}{end}"] if group.options else [""]
        indent = 2 if group.options else 0
        for section in group.sections:
            lines += [f"  {section.title}"] if section.title else []
            for key in section.keys:
                shown = f"{key.path}=VALUE" if key.default is ... else as_override(key.path, key.default)
                lines.append(f"{' ' * indent}{shown:<{44 - indent}} {key.meaning}: {key.allowed}")
    return "\n".join([*lines, "", _FOOT])


def _sections(conf: Path, name: str, hint: Any) -> Iterator[Section]:
    shown: set[str] = set()
    for option in _names(conf, name):
        values = _read(conf / name / f"{option}.yaml")
        values = values.get(name, values)  # a file may set keys at the top too
        cls = OPTIONS.get(values.get("_target_", "")) or (hint if is_dataclass(hint) else None)
        keys = [key for key in _keys(cls, values, f"{name}.") if str(key) not in shown] if cls else []
        shown.update(map(str, keys))
        if keys:
            is_one = is_dataclass(hint)  # a group whose options are not classes
            yield Section("" if is_one else f"{option}: {(cls.__doc__ or '').strip().splitlines()[0]}", keys)


def _keys(cls: Any, values: dict[str, Any], path: str) -> Iterator[Key]:
    hints = get_type_hints(cls)
    for field in fields(cls):
        if is_dataclass(hints[field.name]):
            yield from _keys(hints[field.name], values[field.name], f"{path}{field.name}.")
        elif field.metadata and (field.name in values or field.default is not MISSING):
            yield _key(f"{path}{field.name}", values.get(field.name, field.default), hints[field.name], field)


def _key(path: str, default: Any, hint: Any, field: Any) -> Key:
    return Key(path, default, field.metadata["meaning"], describe(hint, field.metadata))


def _names(conf: Path, group: str) -> list[str]:
    return sorted(path.stem for path in (conf / group).glob("*.yaml"))


def _read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return values
