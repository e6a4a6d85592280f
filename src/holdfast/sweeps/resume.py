"""What is left to do of an interrupted sweep, read from its files."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from holdfast.config.job import GROWS, JobSpec
from holdfast.config.keys import key_of
from holdfast.config.options import TABLE, UNKNOWN_ROWS
from holdfast.config.schema import Config
from holdfast.errors import FolderError
from holdfast.single.startup import BufferRows
from holdfast.store.folders import SweepFolder
from holdfast.store.result import Result
from holdfast.sweeps.spec import SweepSpec
from holdfast.usercode.packages import code_of

if TYPE_CHECKING:
    from holdfast.stacked.stored import StoredStacks


def with_rounds(folder: SweepFolder, recorded: Mapping[str, Any], spec: SweepSpec) -> SweepSpec:
    """A sweep with the jobs of all rounds that its folder records.

    Args:
        folder: the folder of the sweep.
        recorded: the content of its `sweep.json`.
        spec: the sweep as the command line asks for it, with the jobs of the first round.

    Raises:
        FolderError: the folder holds another sweep.
    """
    if spec.rounds is None:
        return spec
    before, now = (
        [item for item in overrides if key_of(item) not in (GROWS, "report")]
        for overrides in (recorded["overrides"], spec.overrides)
    )
    if before != now:
        was, typed = " ".join(before), " ".join(now)
        raise FolderError(
            f"{folder.path} holds another sweep: it was started with {was}, this one with {typed}. {_REMEDY}"
        )
    try:
        return replace(spec, jobs=tuple(spec.rounds.recorded(recorded["jobs"])))
    except FolderError as error:
        raise FolderError(f"{folder.path} holds another sweep: {error}. {_REMEDY}") from None


def check_jobs(
    folder: SweepFolder, recorded: Mapping[str, Any], jobs: Sequence[JobSpec], data: Sequence[str], *, can_grow: bool
) -> None:
    """Check that a folder holds the sweep of these jobs.

    Args:
        folder: the folder of the sweep.
        recorded: the content of its `sweep.json`.
        jobs: the jobs as they are composed today.
        data: digest of the validation rows of each job, as they are today.
        can_grow: whether there may be more jobs than recorded ones.

    Raises:
        FolderError: a job differs from the recorded one, or has other rows; the message names the first such job.
    """
    before = recorded["jobs"]
    if len(jobs) < len(before) or (len(jobs) > len(before) and not can_grow):
        raise FolderError(f"{folder.path} holds a sweep of {len(before)} jobs, this one has {len(jobs)}. {_REMEDY}")
    for job, entry, rows in zip(jobs, before, data, strict=False):
        if entry["overrides"] != list(job.overrides):
            was, now = " ".join(entry["overrides"]), " ".join(job.overrides)
            raise FolderError(
                f"{folder.path} holds another sweep: its job {job.number} was {was}, and is {now}. {_REMEDY}"
            )
        if entry["config_hash"] != job.config_hash:
            raise FolderError(
                f"{folder.path}: conf/ gives job {job.number} another configuration than the recorded one. {_REMEDY}"
            )
        if entry["data"] != rows and not entry["data"].startswith(UNKNOWN_ROWS):
            raise FolderError(
                f"{folder.path}: the validation rows of job {job.number} differ from the recorded ones. {_REMEDY}"
            )


def check_tables(folder: SweepFolder, recorded: Mapping[str, Any], jobs: Iterable[JobSpec]) -> None:
    """Check that tables are what they were when the sweep began.

    Jobs that trained on other rows must not be compared, and the folder of a job of a stack holds the encoding of the
    table as it is when the folder is written.

    Args:
        folder: the folder of the sweep.
        recorded: the content of its `sweep.json`.
        jobs: some of its jobs.

    Raises:
        FolderError: the table of a job has changed.
    """
    from holdfast.sweeps.row_digests import data_digests

    some = [job for job in jobs if job.config.data["_target_"] == TABLE]
    for job, rows in zip(some, data_digests([job.config.data for job in some]), strict=True):
        before = recorded["jobs"][job.number]["data"]
        if before != rows and not before.startswith(UNKNOWN_ROWS):
            raise FolderError(
                f"{folder.path}: the table of job {job.number} has changed since the sweep was begun, so that its jobs "
                "cannot be compared, and no folder can be written. Begin a new sweep in another folder."
            )


def code_of_jobs(configs: Collection[Config]) -> dict[str, str]:
    """The digests of the user's modules that some jobs name, by the name of the module."""
    groups = ("data", "model", "optimizer", "scheduler")
    targets = {getattr(config, group)["_target_"] for group in groups for config in configs}
    return code_of(targets - {None})


def check_code(folder: SweepFolder, recorded: Mapping[str, Any], configs: Collection[Config], remedy: str) -> None:
    """Check that the user's modules are those with which the finished jobs were trained.

    Args:
        folder: the folder of the sweep.
        recorded: the content of its `sweep.json`.
        configs: configurations of the jobs whose modules are checked.
        remedy: what the user can do otherwise, as the end of the message.

    Raises:
        FolderError: a module has changed; the message names the first one.
    """
    for name, sha256 in code_of_jobs(configs).items():
        if recorded.get("code", {}).get(name, sha256) != sha256:
            raise FolderError(
                f"{folder.path}: the module {name} has changed since this sweep was started, and jobs trained by two "
                f"versions of a module cannot be compared. {remedy}"
            )


def buffers(recorded: Mapping[str, Any] | None, jobs: Sequence[JobSpec]) -> list[BufferRows]:
    """The rows of the jobs' tables in memory at a time, as a sweep that is resumed has settled them."""
    before = recorded["jobs"] if recorded else []
    return [before[job.number].get("buffer_rows", "auto") if job.number < len(before) else "auto" for job in jobs]


_REMEDY = "Nothing was run; choose another folder for another sweep."


def finished(
    folder: SweepFolder, jobs: Sequence[JobSpec], stacks: StoredStacks, *, retry_failed: bool
) -> dict[int, Result]:
    """The results of the jobs that have nothing left to do, by number.

    A job is finished when its stack is, or when its result has the job's configuration hash, and the files that it
    names match their digests.

    Args:
        folder: the folder of the sweep.
        jobs: all jobs of the sweep.
        stacks: its finished stacks.
        retry_failed: whether a failed job counts as unfinished.
    """
    table, in_stacks, results = folder.read_results(), stacks.results(jobs), dict[int, Result]()
    for job in jobs:
        result = folder.job(job.number).finished(job.config_hash) or in_stacks.get(job.number)
        row = table.get(job.number)
        if result is None and row is not None and row.config_hash == job.config_hash:
            kept_nothing = row.status != "failed" and not row.sha256
            result = row if kept_nothing else None
        if result is not None and not (retry_failed and result.status == "failed"):
            results[job.number] = result
    return results


def selections(folder: SweepFolder) -> list[dict[str, Any]] | None:
    """What `selection.json` says of every data set that has a winner; None where it is not written yet."""
    try:
        selection = json.loads(folder.selection.read_bytes())
        return list(selection["data_sets"]) if selection["winner"] is None else [selection]
    except (OSError, ValueError, TypeError, KeyError):
        return None


def is_whole(folder: SweepFolder, selected: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the winner's weights in the sweep's folder are those that were selected."""
    try:
        return all(folder.digests() == entry["sha256"] for entry in selected if "sha256" in entry)
    except OSError:
        return False
