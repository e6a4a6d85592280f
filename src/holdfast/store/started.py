"""What a run and a sweep write before anything is trained, `run.json` and `sweep.json`, read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast.errors import FolderError
from holdfast.store.folders import RunFolder, SweepFolder

Record = dict[str, Any]


def read_run(folder: RunFolder) -> Record:
    """The content of a run's `run.json`: its overrides, configuration and digest.

    Raises:
        FolderError: the folder holds no run, or the file cannot be read.
    """
    return _read(folder.started, "run", "is a sweep: add -m", SweepFolder(folder.path).sweep, _check_run)


def read_sweep(folder: SweepFolder) -> Record:
    """The content of `sweep.json`: the sweep's overrides, its configuration, its jobs and their plan.

    Raises:
        FolderError: the folder holds no sweep, or the file cannot be read.
    """
    other = RunFolder(folder.path).started
    return _read(folder.sweep, "sweep", "is a single run: leave -m out", other, _check_sweep)


def _read(file: Path, kind: str, hint: str, other: Path, check: Callable[[Record], None]) -> Record:
    """Read one of the two files; the hint is for a folder that holds only the other."""
    if other.exists() and not file.exists():
        raise FolderError(f"resume={file.parent} {hint}.")
    try:
        record: Record = json.loads(file.read_bytes())
        check(record)
    except FileNotFoundError:
        raise FolderError(f"resume={file.parent} holds no {kind} that was begun: there is no {file.name}.") from None
    except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
        raise FolderError(f"{file} cannot be read: {error}. Choose another folder, or start anew.") from None
    return record


def _check_run(record: Record) -> None:
    _require_text([*record["overrides"], record["config_hash"]])
    if not isinstance(record["config"], dict):
        raise TypeError("config is no mapping")


def _check_sweep(record: Record) -> None:
    jobs = record["jobs"]
    _check_run({**record, **jobs[0]})
    _require_text([*record["overrides"], record["plan"]["launcher"], *(job["data"] for job in jobs)])
    _require_text([text for job in jobs for text in (job["config_hash"], *job["overrides"])])
    if record["mode"] not in ("min", "max"):
        raise ValueError("mode is neither min nor max")


def _require_text(values: list[Any]) -> None:
    if not all(isinstance(value, str) for value in values):
        raise TypeError("it holds something else than text")


def is_in_run_or_sweep(path: Path) -> bool:
    """Whether a folder is that of a run or a sweep, or lies in one. Code in such a folder is never executed."""
    return any(
        file.exists()
        for folder in (path.absolute(), *path.absolute().parents)
        for run, sweep in [(RunFolder(folder), SweepFolder(folder))]
        for file in (run.started, run.result, sweep.sweep, sweep.selection)
    )
