"""Which jobs of a sweep keep a folder, and making and removing folders accordingly."""

from __future__ import annotations

import os
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from holdfast.config.job import JobSpec
from holdfast.store.files import digest
from holdfast.store.folders import RunFolder, SweepFolder
from holdfast.store.result import Result
from holdfast.sweeps.rank import Ranking
from holdfast.sweeps.spec import HydraFiles

if TYPE_CHECKING:
    from holdfast.stacked.stored import StoredStacks

MOST_WITH_FOLDER = 100
"""Largest sweep of which `sweep.keep=auto` keeps all folders."""

BEST_WITH_FOLDER = 20
"""Of larger sweeps, the folders of so many of the best jobs are kept."""

MOST_WITH_EVENTS = 1000
"""Largest sweep of which every job leaves an event file."""


def kept(rankings: Sequence[Ranking], keep: int | Literal["auto", "all"]) -> set[int]:
    """The numbers of the jobs that keep their folders: the best of each data set, and the failed for their logs.

    Args:
        rankings: the ranked jobs of each data set.
        keep: as `sweep.keep`.
    """
    jobs = [job for ranking in rankings for job in ranking.jobs]
    if keep == "all" or (keep == "auto" and len(jobs) <= MOST_WITH_FOLDER):
        return {job.number for job in jobs}
    count = BEST_WITH_FOLDER if keep == "auto" else keep
    best = {job.number for ranking in rankings for job in ranking.jobs[:count]}
    return best | {job.number for job in jobs if job.result.status == "failed"}


def write_folders(
    folder: SweepFolder,
    stacks: StoredStacks,
    jobs: Sequence[JobSpec],
    results: Mapping[int, Result],
    hydra_files: HydraFiles,
) -> dict[int, Result]:
    """Write the folders of jobs that were trained in stacks, each as if the job had been trained alone.

    Args:
        folder: folder of the sweep.
        stacks: its stacks.
        jobs: the jobs; those that are in none of the stacks, and those with a complete folder, are passed over.
        results: the results of all jobs, by number.
        hydra_files: returns what Hydra would leave in the folder of a job.

    Returns:
        The results of the jobs whose folders are complete, with the digests of their files, by number.
    """
    written = {}
    missing = []
    for job in jobs:
        if job.number in stacks:
            whole = folder.job(job.number).finished(job.config_hash)
            if whole is None:
                missing.append(job)
            else:
                written[job.number] = whole
    for job, files in stacks.run_files(missing, results):
        written[job.number] = folder.write_job(job.number, {**files, **hydra_files(job)}, results[job.number])
    return written


def remove_folders(folder: SweepFolder, numbers: Iterable[int], stacks: Container[int], *, events: bool) -> None:
    """Remove the folders of jobs that are not kept.

    Args:
        folder: folder of the sweep.
        numbers: of the jobs.
        stacks: numbers of the jobs of stacks, which have more than an event file only where an earlier attempt kept it.
        events: whether event files are removed too.
    """
    for number in set(numbers) & {int(name) for name in os.listdir(folder.path) if name.isdecimal()}:
        if number not in stacks or (folder.path / f"{number}/{RunFolder.RESULT}").exists():
            folder.job(number).remove(events=events)


def stack_digests(folder: SweepFolder) -> dict[str, str]:
    """The digest of the archive of each stack, by its name."""
    return {files.archive.name: digest(files.archive) for files in folder.all_stacks()}


def remove_stacks(folder: SweepFolder, numbers: Collection[int]) -> None:
    """Remove the archives of stacks whose first job is one of these, and what the jobs have left."""
    for files in folder.all_stacks():
        if int(files.archive.stem) in numbers:
            for file in files:
                file.unlink(missing_ok=True)
    for number in numbers:
        folder.job(number).remove()
