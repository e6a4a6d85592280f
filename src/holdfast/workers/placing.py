"""From the folder of a work to the folder of its sweep: the files of a bundle are verified, and then renamed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from holdfast.config.job import JobSpec
from holdfast.errors import StorageError
from holdfast.store.files import make_folder
from holdfast.store.folders import RunFolder, SweepFolder
from holdfast.store.work_folder import WorkFolder
from holdfast.workers.bundle import Bundle, BundledFile, verify_file, verify_folders


def place(
    work: WorkFolder,
    bundle: Bundle,
    sweep: SweepFolder,
    jobs: Sequence[JobSpec],
    hydra_files: Callable[[JobSpec], Mapping[str, bytes]],
) -> None:
    """Move the files of a bundle into the folder of the sweep.

    What makes a job or a stack count as finished is moved last. A process that is killed meanwhile leaves the bundle:
    placed again, files that are in their places stay there.

    Args:
        work: the folder of the work, which is removed at the end.
        bundle: what `bundle.json` in it says.
        sweep: folder of the sweep.
        jobs: those that get a folder of their own, with what Hydra leaves there.
        hydra_files: returns the files that Hydra would leave in the folder of a job, by their paths.

    Raises:
        BundleError: a file is not what the bundle says; nothing was moved.
        StorageError: a file cannot be moved.
    """
    waiting = [file for file in bundle.files if not _is_placed(work, sweep, file)]
    verify_folders(work.path, waiting)
    for file in waiting:
        verify_file(work.path, file)
    bundled = {file.path for file in bundle.files}
    for job in jobs:
        files = hydra_files(job)
        lacking = {path: content for path, content in files.items() if f"{job.number}/{path}" not in bundled}
        sweep.write_files(job.number, lacking)
    waiting = _move_folders(work, sweep, waiting)
    for folder in dict.fromkeys(file.path.rpartition("/")[0] for file in waiting):
        make_folder(sweep.path / folder)
    for file in sorted(waiting, key=_order):
        _rename(f"{work.path}/{file.path}", f"{sweep.path}/{file.path}")
    work.remove()


def adopt(work: WorkFolder, sweep: SweepFolder, jobs: Sequence[JobSpec], *, stacked: bool) -> None:
    """Let a work go on from what an earlier attempt in the folder of the sweep has left, such as another launcher's.

    Args:
        work: the folder of the work; one that exists already stays as it is.
        sweep: folder of the sweep.
        jobs: the jobs of the work; their results are not known.
        stacked: whether they are trained together.

    Raises:
        StorageError: a folder cannot be made, or a file cannot be moved.
    """
    if work.path.exists():
        return
    first = jobs[0].number
    make_folder(work.path)
    if not stacked:
        if sweep.job(first).path.is_dir() and not sweep.job(first).path.is_symlink():
            _move(sweep.job(first).path, work.job(first).path)
        return
    for before, after in zip(sweep.stack(first), work.stack(first), strict=True):
        if before.is_file():
            _move(before, after)


def _is_placed(work: WorkFolder, sweep: SweepFolder, file: BundledFile) -> bool:
    """Whether an earlier process has moved a file before it was killed."""
    if os.path.lexists(f"{work.path}/{file.path}") or not (sweep.path / file.path).is_file():
        return False
    verify_file(sweep.path, file)
    return True


def _move_folders(work: WorkFolder, sweep: SweepFolder, files: Sequence[BundledFile]) -> list[BundledFile]:
    """Move whole folders of jobs that have no result and are new in the sweep; returns the files of the others.

    A stack leaves one file in the folder of each of its thousand jobs: to make and remove folders takes longer than to
    move one.
    """
    by_folder: dict[str, list[BundledFile]] = {}
    for file in files:
        by_folder.setdefault(file.path.partition("/")[0], []).append(file)
    rest: list[BundledFile] = []
    for folder, inside in by_folder.items():
        source, target = f"{work.path}/{folder}", f"{sweep.path}/{folder}"
        names = {file.path.rpartition("/")[2] for file in inside}
        is_whole = len(inside) == 1 and os.listdir(source) == list(names)
        if folder.isdecimal() and is_whole and RunFolder.RESULT not in names and not os.path.lexists(target):
            _rename(source, target)
        else:
            rest.extend(inside)
    return rest


def _order(file: BundledFile) -> int:
    """Results come last, and archives after the curves that they name."""
    name = file.path.rpartition("/")[2]
    return 2 if name == RunFolder.RESULT else 1 if file.path.startswith("stacks/") and name.endswith(".pt") else 0


def _move(source: Path, target: Path) -> None:
    make_folder(target.parent)
    _rename(str(source), str(target))


def _rename(source: str, target: str) -> None:
    try:
        os.replace(source, target)  # noqa: PTH105  (for thousands of files a Path takes longer to make)
    except OSError as error:
        raise StorageError(f"{target} cannot be written: {error.strerror}.") from error
