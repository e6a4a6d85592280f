"""`resume=FOLDER`: from what a folder recorded to the words that go on with it."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra._internal.utils import get_args_parser

from holdfast.compose import overrides as words
from holdfast.compose.recompose import Recall, refuse
from holdfast.config.check import as_override, key_of
from holdfast.config.job import CONTROLS, differences
from holdfast.errors import ConfigError, FolderError, Problem
from holdfast.store.folders import RunFolder, SweepFolder
from holdfast.store.versions import changed

ABOUT_RESUMING = CONTROLS - {"report"}
"""Keys that say nothing of a run itself, and are not recorded."""


ASKED = ("retry_failed", "test_again")


class Resumed(NamedTuple):
    """What is gone on with.

    Attributes:
        path: the folder.
        words: those that were recorded, and those typed today that change no value.
    """

    path: Path
    words: list[str]


def command(key: str, path: Path) -> str:
    """The command that goes on with the work in a folder, with the flags of the present one."""
    many = ["-m"] if key == "hydra.sweep.dir" else []
    place = str(path) if re.fullmatch(r"[\w./+@-]+", str(path)) else _quoted(path)
    return shlex.join(["python", "train.py", *flags(), *many, f"resume={place}"])


def flags() -> list[str]:
    """What today's command line says of where configurations lie."""
    arguments, _ = get_args_parser().parse_known_args(sys.argv[1:])
    given = {
        "--config-path": arguments.config_path,
        "--config-dir": arguments.config_dir,
        "--config-name": arguments.config_name,
    }
    return [part for flag, value in given.items() if value is not None for part in (flag, value)]


def own(typed: Sequence[str]) -> list[str]:
    """Words without those that are about resuming."""
    return [item for item in typed if key_of(item) not in ABOUT_RESUMING]


def asked(typed: Sequence[str]) -> dict[str, bool]:
    """What was asked for of a sweep that is gone on with.

    Raises:
        ConfigError: the value of such a word is neither true nor false.
    """
    given = {item.key_or_group: item for item in words.parse(typed, [])}
    found: dict[str, Any] = {key: given[key].value() if key in given else False for key in ASKED}
    wrong = [given[key] for key, value in found.items() if not isinstance(value, bool)]
    if wrong:
        raise ConfigError([Problem(words.text(item), "must be true or false") for item in wrong])
    return found


def resumed(typed: list[str], recall: Any, *, sweep: bool) -> Resumed | None:
    """What the words ask to go on with; None if they do not.

    Args:
        typed: the words of the command line.
        recall: makes a `Recall`, called only if it is needed.
        sweep: whether the command line is that of a sweep.

    Raises:
        FolderError: the folder holds nothing to go on with.
        ConfigError: a typed word, or what lies in conf/ today, gives another value than was recorded.
    """
    given = [item for item in words.parse(typed, []) if item.key_or_group == "resume"]
    if wrong := [item for item in given if item.is_sweep_override() or item.value() == ""]:
        lesson = "must name one folder, such as outputs/runs/NAME"
        raise ConfigError([Problem(words.text(item), lesson) for item in wrong])
    places = [item.value() for item in given if item.value() is not None]
    if not places:
        return None
    path = Path(str(places[-1]))
    told = _told(path, sweep=sweep)
    first = told["jobs"][0] if sweep else told
    refuse(first["overrides"])
    refuse(told["overrides"])
    for line in changed(told.get("versions", {})):
        print(f"{line}: the numbers may differ from here on", file=sys.stderr)
    recorded = {key_of(item): item for item in told["overrides"]}
    controls = [item for item in typed if key_of(item) in ABOUT_RESUMING - {"resume"}]
    rest = [item for item in own(typed) if key_of(item) not in ("report", _key(sweep))]
    hydras = [item for item in rest if re.match(r"\+*hydra[./]", item)]  # what is typed today is trusted
    others = [item for item in rest if item not in hydras]
    problems = [
        Problem(item, f"this {_kind(sweep)} was started with {recorded[key]}; {_ANEW}")
        for item in others
        if (key := key_of(item)) in recorded and recorded[key] != item
    ]
    if problems:
        raise ConfigError(problems)
    new = [item for item in others if item not in told["overrides"]]
    check(recall(), [*first["overrides"], *new], first["config_hash"], told["config"], _kind(sweep))
    launcher = [f"hydra/launcher={told['plan']['launcher']}"] if sweep else []
    if not all(item.partition("=")[2].isidentifier() for item in launcher):
        raise FolderError(f"{path} names a launcher that cannot be one; it was not made by Holdfast.")
    return Resumed(path, [*told["overrides"], *controls, *launcher, *hydras, f"{_key(sweep)}={_quoted(path)}"])


_ANEW = "leave it out, or start anew, without resume, for other values"


def check(
    recall: Recall, recorded: Sequence[str], config_hash: str, config: Mapping[str, Any], kind: str = "sweep"
) -> None:
    """Hold what the words give today against what they gave.

    Raises:
        ConfigError: with every key whose value is another, and both values.
    """
    composed = recall.compose(recorded)
    if composed.config_hash == config_hash:
        return
    now = json.loads(json.dumps(composed.origin))
    found = [
        Problem(as_override(key, value), f"this {kind} was started with {as_override(key, before)}; {_ANEW}")
        for key, before, value in differences(config, now)
    ]
    why = "what an interpolation in conf/ gives is no longer what it gave; start anew, without resume"
    raise ConfigError(found or [Problem("resume", why)])


def _told(path: Path, *, sweep: bool) -> dict[str, Any]:
    """What a folder recorded before anything was trained."""
    run, many = RunFolder(path).begun, SweepFolder(path).sweep
    if (run if sweep else many).exists() and not (many if sweep else run).exists():
        other = "is a single run: leave -m out" if sweep else "is a sweep: add -m"
        raise FolderError(f"resume={path} {other}.")
    file = many if sweep else run
    try:
        told: dict[str, Any] = json.loads(file.read_bytes())
        first = told["jobs"][0] if sweep else told
        texts = [
            *told["overrides"],
            *first["overrides"],
            first["config_hash"],
            *([told["plan"]["launcher"]] if sweep else []),
        ]
        if not all(isinstance(item, str) for item in texts) or not isinstance(told["config"], dict):
            raise TypeError("it holds something else")
    except FileNotFoundError:
        raise FolderError(f"resume={path} holds no {_kind(sweep)} that was begun: there is no {file.name}.") from None
    except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
        raise FolderError(f"{file} cannot be read: {error}. Start anew, without resume.") from None
    return told


def _quoted(path: Path) -> str:
    """A path as Hydra's grammar reads any text."""
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


def _kind(sweep: bool) -> str:
    return "sweep" if sweep else "run"


def _key(sweep: bool) -> str:
    return "hydra.sweep.dir" if sweep else "hydra.run.dir"
