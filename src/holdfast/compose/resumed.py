"""`resume=FOLDER`: from what a folder recorded to the overrides that resume it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.compose import overrides as parsing
from holdfast.compose.recompose import Recomposer, refuse
from holdfast.config.commands import quoted
from holdfast.config.job import CONTROLS, GROWS, differences
from holdfast.config.keys import as_override, key_of
from holdfast.errors import ConfigError, FolderError, Problem
from holdfast.store.folders import RunFolder, SweepFolder
from holdfast.store.started import read_run, read_sweep
from holdfast.store.versions import changed

ABOUT_RESUMING = CONTROLS - {"report"}
"""Keys that control how a run or sweep is resumed; they are not recorded."""

ANEW = "leave it out, or start anew, without resume, for other values"


class Resumed(NamedTuple):
    """A run or a sweep that is being resumed.

    Attributes:
        path: its folder.
        overrides: those that were recorded, and those typed today that change no value.
    """

    path: Path
    overrides: list[str]


class Kind(NamedTuple):
    """How messages and keys differ between resuming a run and resuming a sweep.

    Attributes:
        name: what is resumed.
        dir_key: the key that names its folder.
    """

    name: str
    dir_key: str


RUN = Kind("run", "hydra.run.dir")
SWEEP = Kind("sweep", "hydra.sweep.dir")


def user_overrides(typed: Sequence[str]) -> list[str]:
    """The overrides that are recorded: all but those that control how a run or sweep is resumed."""
    return [item for item in typed if key_of(item) not in ABOUT_RESUMING]


def sweep_controls(typed: Sequence[str]) -> dict[str, bool]:
    """The values of `retry_failed` and `test_again`, which a sweep reads from the overrides themselves.

    Raises:
        ConfigError: a value is neither true nor false.
    """
    given = {item.key_or_group: item for item in parsing.parse(typed, [])}
    values: dict[str, Any] = {
        key: given[key].value() if key in given else False for key in ("retry_failed", "test_again")
    }
    invalid = [given[key] for key, value in values.items() if not isinstance(value, bool)]
    if invalid:
        raise ConfigError([Problem(parsing.text(item), "must be true or false") for item in invalid])
    return values


def resumed(typed: Sequence[str], make_recomposer: Callable[[], Recomposer], kind: Kind) -> Resumed | None:
    """The run or sweep that the overrides ask to resume; None if they do not.

    Args:
        typed: the overrides of the command line.
        make_recomposer: called only where something is resumed.
        kind: whether the command line is that of a run or of a sweep.

    Raises:
        FolderError: the folder holds nothing that could be resumed.
        ConfigError: an override typed today, or the YAML files of today, give another value than was recorded.
    """
    path = _folder(typed)
    if path is None:
        return None
    recorded = read_sweep(SweepFolder(path)) if kind is SWEEP else read_run(RunFolder(path))
    first = recorded["jobs"][0] if kind is SWEEP else recorded
    refuse(first["overrides"])
    refuse(recorded["overrides"])
    for line in changed(recorded.get("versions", {})):
        print(f"{line}: the numbers may differ from here on", file=sys.stderr)
    controls = [item for item in typed if key_of(item) in ABOUT_RESUMING - {"resume"}]
    rest = [item for item in user_overrides(typed) if key_of(item) not in ("report", kind.dir_key)]
    hydras = [item for item in rest if re.match(r"\+*hydra[./]", item)]  # what is typed today is trusted
    others = [item for item in rest if item not in hydras]
    _check_typed(others, recorded["overrides"], kind)
    new = [item for item in others if item not in recorded["overrides"] and key_of(item) != GROWS]
    grown = {key_of(item): item for item in others if key_of(item) == GROWS}
    overrides = [grown.get(key_of(item), item) for item in recorded["overrides"]]
    _check_values(make_recomposer(), [*first["overrides"], *new], first["config_hash"], recorded["config"], kind)
    launcher = [f"hydra/launcher={recorded['plan']['launcher']}"] if kind is SWEEP else []
    if not all(item.partition("=")[2].isidentifier() for item in launcher):
        raise FolderError(f"{path} names a launcher that cannot be one; it was not made by Holdfast.")
    return Resumed(path, [*overrides, *controls, *launcher, *hydras, f"{kind.dir_key}={quoted(path)}"])


def _folder(typed: Sequence[str]) -> Path | None:
    """The folder that `resume` names; None where nothing is resumed."""
    items = [item for item in parsing.parse(typed, []) if item.key_or_group == "resume"]
    if invalid := [item for item in items if item.is_sweep_override() or item.value() == ""]:
        lesson = "must name one folder, such as outputs/runs/NAME"
        raise ConfigError([Problem(parsing.text(item), lesson) for item in invalid])
    paths = [Path(str(item.value())) for item in items if item.value() is not None]
    return paths[-1] if paths else None


def _check_typed(typed: Sequence[str], recorded: Sequence[str], kind: Kind) -> None:
    """Refuse overrides that were recorded with other values."""
    by_key = {key_of(item): item for item in recorded}
    problems = [
        Problem(item, f"this {kind.name} was not started with it, and is no search; {ANEW}")
        for item in typed
        if key_of(item) == GROWS and GROWS not in by_key
    ]
    problems += [
        Problem(item, f"this {kind.name} was started with {by_key[key]}; {ANEW}")
        for item in typed
        if by_key.get(key := key_of(item), item) != item and key != GROWS
    ]
    if problems:
        raise ConfigError(problems)


def _check_values(
    recomposer: Recomposer, overrides: Sequence[str], config_hash: str, config: Mapping[str, Any], kind: Kind
) -> None:
    """Compose overrides against the YAML files of today, and refuse every value that is no longer the recorded one."""
    composed = recomposer.compose(overrides)
    same, given = composed.config_hash == config_hash, set(map(key_of, overrides))
    now = json.loads(json.dumps(composed.origin))
    problems = [
        Problem(as_override(key, value), f"this {kind.name} was started with {as_override(key, before)}; {ANEW}")
        for key, before, value in differences(config, now)
        if not same or key in given  # with the same digest, such as `sweep.keep=all` where the default is recorded
    ]
    if same and not problems:
        return
    lesson = "an interpolation in conf/ has another value than when this started; start anew, without resume"
    raise ConfigError(problems or [Problem("resume", lesson)])
