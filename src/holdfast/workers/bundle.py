"""What a worker hands back: the files of a work in one folder, and `bundle.json`, written last, that lists them.

Inside, the folder of a work looks like that of a sweep: `stacks/N.pt`, `stacks/N.history`, and a folder for each job.
Nothing in it is executed or unpickled. Whoever receives it believes only what matches: sizes, digests, and paths that
stay inside the folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.config.job import JobSpec
from holdfast.errors import BundleError
from holdfast.store.files import PARTIAL, digest, replacing
from holdfast.store.result import Result
from holdfast.store.work_folder import WorkFolder

MOST_FILES = 200_000
"""Largest number of files in a bundle: a stack leaves at most one for each of its jobs, and two of its own."""

MOST_BYTES = 1 << 38
"""Largest size of all files of a bundle together: 256 GiB."""

MOST_LIST_BYTES = 1 << 29
"""Largest size of `bundle.json`; the result of a job takes 1 kB."""

MOST_CHARACTERS = 1000
"""Longest path of a file in a bundle."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


class BundledFile(NamedTuple):
    """A file of a bundle.

    Attributes:
        path: inside the folder of the work, with `/` between its parts.
        size: in bytes.
        sha256: digest of its content, in hex.
    """

    path: str
    size: int
    sha256: str


class Bundle(NamedTuple):
    """What `bundle.json` says.

    Attributes:
        hashes: digest of the configuration of each job, by its number.
        results: how jobs ended, by number.
        errors: why the other jobs left no result, by number.
        files: all files, in the order of their paths.
    """

    hashes: dict[int, str]
    results: dict[int, Result]
    errors: dict[int, str]
    files: tuple[BundledFile, ...]

    def is_of(self, jobs: Sequence[JobSpec]) -> bool:
        """Whether the bundle has the result, or the error, of exactly these jobs."""
        return self.hashes == {job.number: job.config_hash for job in jobs}


def write_bundle(
    folder: WorkFolder, jobs: Sequence[JobSpec], results: Mapping[int, Result], errors: Mapping[int, str]
) -> Bundle:
    """List all files in the folder of a work, and write `bundle.json`.

    Links to files inside the folder are replaced by the files; other links, and what is neither file nor folder, are
    left out.

    Args:
        folder: the folder; nothing writes to it any more.
        jobs: the jobs of the work whose results are needed.
        results: how jobs ended, by number.
        errors: why the other jobs left no result, by number.

    Raises:
        StorageError: the file cannot be written.
        BundleError: the files are too many, or too large.
    """
    _resolve_links(folder.path)
    files = tuple(
        BundledFile(path.relative_to(folder.path).as_posix(), path.stat().st_size, digest(path))
        for path in _files(folder)
    )
    bundle = Bundle({job.number: job.config_hash for job in jobs}, dict(results), dict(errors), files)
    text = json.dumps(
        {
            "version": 1,
            "jobs": bundle.hashes,
            "results": {number: vars(result) for number, result in results.items()},
            "errors": bundle.errors,
            "files": [file._asdict() for file in files],
        }
    )
    _check_limits(bundle, len(text), folder.path)
    with replacing(folder.bundle) as stream:
        stream.write(text.encode())
    return bundle


def read_bundle(folder: WorkFolder) -> Bundle | None:
    """What `bundle.json` in the folder of a work says; None where there is no such file.

    Raises:
        BundleError: it is not what `write_bundle` writes, or its files are too many or too large.
    """
    try:
        status = folder.bundle.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{folder.bundle} is no file")
        if status.st_size > MOST_LIST_BYTES:
            raise BundleError(f"{folder.bundle} is too large: {status.st_size} bytes, at most {MOST_LIST_BYTES}")
        text = folder.bundle.read_bytes()
    except FileNotFoundError:
        return None
    return parse_bundle(text, folder.path)


def parse_bundle(text: bytes, path: Path) -> Bundle:
    """A bundle from the content of `bundle.json`.

    Args:
        text: the content.
        path: the folder of the work, for messages.

    Raises:
        BundleError: as `read_bundle`.
    """
    try:
        told = json.loads(text)
        if told["version"] != 1:
            raise ValueError(f"its version is {told['version']!r}")
        files = tuple(BundledFile(str(file["path"]), int(file["size"]), str(file["sha256"])) for file in told["files"])
        results = {int(number): Result(**_checked(result)) for number, result in told["results"].items()}
        errors = {int(number): str(error) for number, error in told["errors"].items()}
        bundle = Bundle({int(number): str(sha256) for number, sha256 in told["jobs"].items()}, results, errors, files)
        if results.keys() | errors.keys() != bundle.hashes.keys() or results.keys() & errors.keys():
            raise ValueError("not every job has either a result or an error")
        if any(result.config_hash != bundle.hashes[number] for number, result in results.items()):
            raise ValueError("a result is of another configuration")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BundleError(f"the bundle in {path} is torn or altered: {error!r}") from None
    for file in files:
        if problem := _problem(file):
            raise BundleError(f"the bundle in {path} names a file that it may not: {file.path!r} {problem}")
    if len({file.path for file in files}) < len(files):
        raise BundleError(f"the bundle in {path} is torn or altered: it names a file twice")
    _check_limits(bundle, len(text), path)
    return bundle


def verify_folders(root: Path, files: Iterable[BundledFile]) -> None:
    """Check that no folder on the way to the files of a bundle is a link.

    Args:
        root: the folder that the paths of the bundle start from.
        files: some files.

    Raises:
        BundleError: a folder is a link.
    """
    for folder in dict.fromkeys(file.path.rpartition("/")[0] for file in files):
        parts = folder.split("/")
        for count in range(1, len(parts) + 1):
            if Path(root, *parts[:count]).is_symlink():
                raise BundleError(f"{root}/{folder} is a link, so that its files may be anywhere")


def verify_file(root: Path, file: BundledFile) -> None:
    """Check one file of a bundle, after the folders on its way.

    Args:
        root: the folder that the paths of the bundle start from.
        file: the file.

    Raises:
        BundleError: it is missing, no ordinary file, or of another size or content.
    """
    path = f"{root}/{file.path}"  # text, since for thousands of files `Path` doubles the time
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path} is no ordinary file")
        if status.st_size != file.size:
            raise BundleError(f"{path} is torn or altered: it has {status.st_size} bytes instead of {file.size}")
        if digest(Path(path)) != file.sha256:
            raise BundleError(f"{path} was altered: its digest differs")
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None


def _files(folder: WorkFolder) -> Iterator[Path]:
    """The files of a work, in the order of their paths; not what serves the worker alone."""
    for parent, folders, names in os.walk(folder.path):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            is_partial = name.startswith(".") and name.endswith(PARTIAL)
            if path not in folder.of_worker and not is_partial and stat.S_ISREG(path.lstat().st_mode):
                yield path


def _resolve_links(root: Path) -> None:
    """Replace links to files inside a folder by the files, such as that of Lightning's `save_last="link"`."""
    inside = root.resolve()
    for parent, _, names in os.walk(root):
        for path in (Path(parent, name) for name in names):
            if path.is_symlink() and path.is_file() and path.resolve().is_relative_to(inside):
                target = path.resolve()
                path.unlink()
                shutil.copyfile(target, path)


def _problem(file: BundledFile) -> str:
    """What is wrong with the entry of a file, or ""."""
    parts = file.path.split("/")
    if len(file.path) > MOST_CHARACTERS:
        return "is too long"
    if file.path.startswith("/") or "\\" in file.path or "\0" in file.path or ":" in parts[0]:
        return "is not relative"
    if any(part in ("", ".", "..") for part in parts):
        return "leaves the folder"
    if len(parts) < 2 or not (parts[0] == "stacks" or (parts[0].isascii() and parts[0].isdecimal())):
        return "is not in the folder of a stack or of a job"
    return "" if file.size >= 0 and _SHA256.fullmatch(file.sha256) else "has no size or no digest"


def _checked(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """The entry of a result, if its values have the types that others rely on."""
    is_sound = (
        result["status"] in ("completed", "diverged", "failed")
        and isinstance(result["overrides"], list)
        and isinstance(result["config_hash"], str)
        and isinstance(result["best"], (dict, type(None)))
        and isinstance(result["sha256"], dict)
    )
    if not is_sound:
        raise ValueError("a result has values of other types")
    return result


def _check_limits(bundle: Bundle, list_bytes: int, path: Path) -> None:
    total = sum(file.size for file in bundle.files)
    for what, given, most in (
        ("files", len(bundle.files), MOST_FILES),
        ("bytes", total, MOST_BYTES),
        ("bytes in its list", list_bytes, MOST_LIST_BYTES),
    ):
        if given > most:
            raise BundleError(f"the bundle in {path} is too large: {given} {what}, at most {most}")
