"""What is left to do of a sweep that was begun, told by its files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.config.options import UNKNOWN_ROWS
from holdfast.errors import FolderError
from holdfast.store.folders import SweepFolder
from holdfast.store.result import Result

Batch = tuple[int, list[list[str]]]
"""Jobs that a launcher is given together, with the number of the first."""


def read(folder: SweepFolder) -> dict[str, Any]:
    """What `sweep.json` says.

    Raises:
        FolderError: it cannot be read.
    """
    try:
        told: dict[str, Any] = json.loads(folder.sweep.read_bytes())
        if told["mode"] not in ("min", "max") or not isinstance(told["jobs"], list):
            raise ValueError("it holds something else")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise FolderError(f"{folder.sweep} cannot be read: {error}. Choose another folder.") from None
    return told


def hold_against(
    folder: SweepFolder, told: Mapping[str, Any], jobs: Sequence[list[str]], hashes: Sequence[str], data: Sequence[str]
) -> None:
    """Make sure that a folder holds these jobs.

    Raises:
        FolderError: the first job that is another, or has other rows, with both.
    """
    before = told["jobs"]
    if len(before) != len(jobs):
        raise FolderError(f"{folder.path} holds a sweep of {len(before)} jobs, this one has {len(jobs)}. {_OTHER}")
    for number, (entry, words, config_hash, rows) in enumerate(zip(before, jobs, hashes, data, strict=True)):
        if entry["overrides"] != words:
            was, now = " ".join(entry["overrides"]), " ".join(words)
            raise FolderError(f"{folder.path} holds another sweep: its job {number} was {was}, and is {now}. {_OTHER}")
        if entry["config_hash"] != config_hash:
            raise FolderError(f"{folder.path}: what conf/ gives for job {number} is no longer what it gave. {_OTHER}")
        if entry["data"] != rows and not entry["data"].startswith(UNKNOWN_ROWS):
            raise FolderError(f"{folder.path}: the validation rows of job {number} are no longer the same. {_OTHER}")


def hold_code_against(folder: SweepFolder, told: Mapping[str, Any], code: Mapping[str, str]) -> None:
    """Make sure that the user's modules are those that the finished jobs were trained with.

    Raises:
        FolderError: the first file that is another.
    """
    for name, sha256 in code.items():
        if told.get("code", {}).get(name, sha256) != sha256:
            raise FolderError(
                f"{folder.path}: the module {name} is no longer the one that this sweep was begun with, and jobs "
                f"trained by two versions of it cannot be compared. {_OTHER}\n"
                "To train only what failed with the new one, and compare all the same: retry_failed=true"
            )


_OTHER = "Nothing was run; choose another folder for another sweep."


def finished(folder: SweepFolder, hashes: Sequence[str], *, retry_failed: bool) -> dict[int, Result]:
    """The jobs that have nothing left to do, by number: their results parse, are theirs, and their files are whole."""
    found = {number: result for number, result in folder.read_dropped().items() if _counts(result, hashes, number)}
    for number, config_hash in enumerate(hashes):
        run = folder.job(number)
        if number not in found and (result := run.finished(config_hash)) is not None:
            found[number] = result
    return {number: result for number, result in found.items() if not (retry_failed and result.status == "failed")}


def missing(first: int, jobs: Sequence[list[str]], done: Mapping[int, Result]) -> list[Batch]:
    """The jobs that are not done, in runs without gaps."""
    found: list[Batch] = []
    for number, words in enumerate(jobs, start=first):
        if number not in done:
            if found and found[-1][0] + len(found[-1][1]) == number:
                found[-1][1].append(words)
            else:
                found.append((number, [words]))
    return found


def selections(folder: SweepFolder) -> list[dict[str, Any]] | None:
    """What `selection.json` says of every data set that has a winner; None if a sweep has not got so far."""
    try:
        selection = json.loads(folder.selection.read_bytes())
        return list(selection["data_sets"]) if selection["winner"] is None else [selection]
    except (OSError, ValueError, TypeError, KeyError):
        return None


def is_whole(folder: SweepFolder, selected: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the winner's weights, kept as the sweep's own, are those that were selected."""
    try:
        return all(folder.digests() == entry["sha256"] for entry in selected if "sha256" in entry)
    except OSError:
        return False


def _counts(result: Result, hashes: Sequence[str], number: int) -> bool:
    return number < len(hashes) and result.config_hash == hashes[number]
