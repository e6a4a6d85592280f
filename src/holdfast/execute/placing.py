"""From the folder of a work to the folder of its sweep: the files of a bundle are verified, and then renamed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from holdfast.config.job import JobSpec
from holdfast.errors import StorageError
from holdfast.execute.bundle import Bundle, BundledFile, verify_file
from holdfast.store.folders import RunFolder, SweepFolder
from holdfast.store.work_folder import WorkFolder


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
    for file in waiting:
        verify_file(work.path, file)
    bundled = {file.path for file in bundle.files}
    for job in jobs:
        files = hydra_files(job)
        lacking = {path: content for path, content in files.items() if f"{job.number}/{path}" not in bundled}
        sweep.write_files(job.number, lacking)
    for file in sorted(waiting, key=_order):
        _move(work.path / file.path, sweep.path / file.path)
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
    try:
        work.path.mkdir(parents=True)
    except OSError as error:
        raise StorageError(f"{work.path} cannot be made: {error.strerror}.") from error
    if not stacked:
        if sweep.job(first).path.is_dir() and not sweep.job(first).path.is_symlink():
            _move(sweep.job(first).path, work.job(first).path)
        return
    for before, after in zip(sweep.stack(first), work.stack(first), strict=True):
        if before.is_file():
            _move(before, after)


def _is_placed(work: WorkFolder, sweep: SweepFolder, file: BundledFile) -> bool:
    """Whether an earlier process has moved a file before it was killed."""
    target = sweep.path / file.path
    if (work.path / file.path).exists() or not target.is_file():
        return False
    verify_file(sweep.path, file)
    return True


def _order(file: BundledFile) -> int:
    """Results come last, and archives after the curves that they name."""
    name = file.path.rpartition("/")[2]
    return 2 if name == RunFolder.RESULT else 1 if file.path.startswith("stacks/") and name.endswith(".pt") else 0


def _move(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
    except OSError as error:
        raise StorageError(f"{target} cannot be written: {error.strerror}.") from error
