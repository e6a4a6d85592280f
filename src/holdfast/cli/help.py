"""`python train.py --help`, made from the schema and the YAML files alone: Hydra's own takes seconds to build."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import yaml

from holdfast.config.conversion import describe
from holdfast.config.keys import FREE, as_override
from holdfast.config.options import OPTIONS
from holdfast.config.schema import Config

_HEAD = """\
python train.py [key=value ...]             train one run
python train.py -m key=value,value ...      train one job for each value, or for each combination of values
python train.py report FOLDER               draw the figures and the page of a finished run or sweep again
python train.py predict FOLDER rows.csv     predict new rows with a model of a table; also: test, export
holdfast new FOLDER                         make a project of your own

Keys, with their defaults. A group takes the name of one of its files: optimizer=adam. Each group's own keys are shown
for the files that ship with Holdfast; --config-dir FOLDER adds your own."""

_FOOT = """\
--cfg job           print the configuration, do not run        --config-dir FOLDER   your own groups
--multirun, -m      sweep                                      --hydra-help          Hydra's own flags and keys
-sc install=bash    tab completion"""


def help_text(conf: Path) -> str:
    """All keys and groups, what they mean and what they may be.

    Args:
        conf: the folder of the primary configuration.
    """
    values = _read(conf / "config.yaml")
    lines = [_HEAD, ""]
    hints = get_type_hints(Config)
    for field in fields(Config):
        if not (is_dataclass(hints[field.name]) or get_origin(hints[field.name]) is dict):
            lines.append(_line(as_override(field.name, values[field.name]), hints[field.name], field.metadata, 0))
    for field in fields(Config):
        if field.name == FREE:
            lines += ["", _line(f"{FREE}.NAME=VALUE", Any, field.metadata, 0)]
        elif is_dataclass(hints[field.name]) or get_origin(hints[field.name]) is dict:
            lines += _group(conf, field.name, hints[field.name])
    experiments = "|".join(_names(conf, "experiment"))
    lines += ["", f"experiment={experiments}  whole settings, one file each in conf/experiment"]
    return "\n".join([*lines, "", _FOOT])


def _group(conf: Path, name: str, hint: Any) -> Iterator[str]:
    yield ""
    yield f"{name}={'|'.join(_names(conf, name))}"
    shown: set[str] = set()
    for option in _names(conf, name):
        values = _read(conf / name / f"{option}.yaml")
        values = values.get(name, values)  # a file may set keys at the top too
        cls = OPTIONS.get(values.get("_target_", "")) or (hint if is_dataclass(hint) else None)
        lines = [line for line in _keys(cls, values, f"{name}.") if line not in shown] if cls else []
        shown.update(lines)
        if lines and not is_dataclass(hint):
            yield f"  {option}: {(cls.__doc__ or '').strip().splitlines()[0]}"
        yield from lines


def _keys(cls: Any, values: dict[str, Any], path: str) -> Iterator[str]:
    hints = get_type_hints(cls)
    for field in fields(cls):
        if is_dataclass(hints[field.name]):
            yield from _keys(hints[field.name], values[field.name], f"{path}{field.name}.")
        elif field.metadata and (field.name in values or field.default is not MISSING):
            shown = as_override(f"{path}{field.name}", values.get(field.name, field.default))
            yield _line(shown, hints[field.name], field.metadata, 2)


def _line(shown: str, hint: Any, metadata: Any, indent: int) -> str:
    return f"{' ' * indent}{shown:<{44 - indent}} {metadata['meaning']}: {describe(hint, metadata)}"


def _names(conf: Path, group: str) -> list[str]:
    return sorted(path.stem for path in (conf / group).glob("*.yaml"))


def _read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return values
