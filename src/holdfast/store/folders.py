"""The folders of runs and sweeps: the names of their files, and when a run counts as finished."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from holdfast.errors import FolderError
from holdfast.store.files import as_json, as_line, digest, remove_partial, replacing, write_json, write_whole
from holdfast.store.result import Result


class StackFiles(NamedTuple):
    """The files of a stack: its archive, and the curves of its jobs."""

    archive: Path
    history: Path


class RunFolder:
    """The folder of one run. No other module spells the names of its files.

    Args:
        path: the folder, which need not exist.

    >>> RunFolder(Path("outputs/runs/a")).best.as_posix()
    'outputs/runs/a/best.ckpt'
    """

    BEST, LAST, WEIGHTS, PARAMETER_PATH, RESULT = "best.ckpt", "last.ckpt", "model.pth", "descent.npy", "result.json"
    LOCK = ".lock"
    EVENTS = ".holdfast"
    """Suffix of the event files that Holdfast writes; other writers put a number there. TensorBoard reads both."""
    FIGURES = tuple(f"{name}.png" for name in ("coefficients", "confusion", "curves", "fit", "residuals", "surface"))

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best = path / self.BEST
        self.last = path / self.LAST
        self.midway = path / "midway.ckpt"
        self.lean = StackFiles(path / "lean.pt", path / "lean.history")
        self.weights = path / self.WEIGHTS
        self.parameter_path = path / self.PARAMETER_PATH
        self.result = path / self.RESULT
        self.started = path / "run.json"
        self.test_ledger = path / "test.json"
        self.config = path / ".hydra" / "config.yaml"
        self.log = path / "train.log"
        self.figures = path / "figures"
        self.test_events = path / "events.out.tfevents.test"
        self.report_events = path / "events.out.tfevents.report"
        self.experiment = path / "experiment"

    @staticmethod
    def events_name(started: float, host: str) -> str:
        """Name of an event file, as TensorBoard's writer names it except for the suffix.

        Args:
            started: start of the run, in seconds since 1970.
            host: name of the machine.
        """
        return f"events.out.tfevents.{int(started)}.{host}.{os.getpid()}{RunFolder.EVENTS}"

    def events(self, started: float, host: str) -> Path:
        """Path of the event file of a run on a machine, see `events_name`."""
        return self.path / self.events_name(started, host)

    def event_files(self) -> list[Path]:
        """All event files written during training, the oldest first: those of Holdfast and those of other loggers."""
        return sorted(
            file
            for file in self.path.glob("events.out.tfevents.*")
            if file not in (self.test_events, self.report_events)
        )

    def curves(self) -> list[Path]:
        """The event files that Holdfast wrote, the oldest first.

        Where there are none, as in folders of earlier versions, all event files.
        """
        files = self.event_files()
        return [file for file in files if file.suffix == self.EVENTS] or files

    def clear(self, *, events: bool = True, midway: bool = True) -> None:
        """Remove the files of an earlier attempt at this run.

        Here and in `remove`, a file with a name that Holdfast does not use is the user's and stays.

        Args:
            events: whether the event files are removed too.
            midway: whether the checkpoint inside an epoch, or the snapshot of the lean loop, is removed too.
        """
        files = [self.result, self.last, self.best, self.weights, self.parameter_path]
        files += [self.report_events, self.test_events, *([self.midway, *self.lean] if midway else [])]
        for folder in (self.path, self.experiment):
            if events and not folder.is_symlink():
                files += folder.glob(f"events.out.tfevents.*{self.EVENTS}")
        for file in files:
            file.unlink(missing_ok=True)

    def remove(self, *, events: bool = True) -> None:
        """Remove all files of the run, those of Hydra and the figures included, and each folder that is then empty.

        Args:
            events: whether the event files are removed too.
        """
        remove_partial(self.path)
        self.clear(events=events)
        hydras = [self.config.with_name(f"{name}.yaml") for name in ("config", "hydra", "overrides")]
        for file in (self.started, self.log, *hydras, *(self.figures / name for name in self.FIGURES)):
            if not file.parent.is_symlink():  # a link: its files are elsewhere
                file.unlink(missing_ok=True)
        for folder in (self.config.parent, self.figures, self.experiment, self.path):
            with suppress(OSError):  # missing, or not empty
                folder.rmdir()

    def config_text(self) -> str:
        """The configuration as YAML; empty where Hydra wrote none."""
        try:
            return self.config.read_text(encoding="utf-8")
        except OSError:
            return ""

    def commit(self, result: Result) -> Result:
        """Write `result.json` with the digests of the files of the run; from then on the run is finished."""
        files = (self.best, self.last, self.weights, self.parameter_path)
        result = dataclasses.replace(result, sha256={file.name: digest(file) for file in files if file.exists()})
        write_json(self.result, vars(result))
        return result

    def read(self) -> Result | None:
        """The result; None where `result.json` is missing or cannot be parsed."""
        try:
            result = Result(**json.loads(self.result.read_bytes()))
        except (OSError, ValueError, TypeError):
            return None
        valid = isinstance(result.sha256, dict) and isinstance(result.best, (dict, type(None)))
        return result if valid and isinstance(result.overrides, list) else None

    def recorded_digest(self, file: Path) -> str | None:
        """The digest that `result.json` records for a file; None if the run is not finished."""
        result = self.read()
        return None if result is None else result.sha256.get(file.name)

    def finished(self, config_hash: str) -> Result | None:
        """The result of a finished run.

        None unless `result.json` can be parsed, has this `config_hash`, and every file matches its digest.
        """
        result = self.read()
        if result is None or result.config_hash != config_hash:
            return None
        return result if all(_matches(self.path / name, sha256) for name, sha256 in result.sha256.items()) else None


class SweepFolder:
    """The folder of a sweep, with a numbered folder for each job.

    Args:
        path: the folder, which need not exist.

    >>> SweepFolder(Path("outputs/sweeps/a")).selection.as_posix()
    'outputs/sweeps/a/selection.json'
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sweep = path / "sweep.json"
        self.results = path / "results.jsonl"
        self.stacks = path / "stacks"
        self.leaderboard = path / "leaderboard.csv"
        self.test_ledger = path / "test.json"
        self.selection = path / "selection.json"
        self.hydra = path / "multirun.yaml"
        self.figures = path / "figures"
        self.page = path / "report.html"
        self.report_events = path / "events.out.tfevents.report"

    def job(self, number: int) -> RunFolder:
        """The folder of the job with a number."""
        return RunFolder(self.path / str(number))

    def refit(self, number: int | None = None) -> RunFolder:
        """The folder of a winner that is trained once more; with the number of the winner where there are several."""
        return RunFolder(self.path / ("refit" if number is None else f"refit_{number}"))

    def stack(self, first: int) -> StackFiles:
        """The files of the stack whose first job has this number."""
        return StackFiles(self.stacks / f"{first}.pt", self.stacks / f"{first}.history")

    def all_stacks(self) -> list[StackFiles]:
        """The files of all stacks that have an archive."""
        numbers = sorted(int(file.stem) for file in self.stacks.glob("*.pt") if file.stem.isdigit())
        return [self.stack(number) for number in numbers]

    def write_job(self, number: int, files: Mapping[str, bytes], result: Result) -> Result:
        """Write the folder of a job; `result.json` is written last, and replaces one that is there.

        The files are not flushed to disk: they can be made again from the archive of the job's stack.

        Args:
            number: number of the job.
            files: contents of the files by their paths inside the folder.
            result: how the job ended, without digests.

        Returns:
            The result with the digests of the files.
        """
        names = (RunFolder.BEST, RunFolder.LAST, RunFolder.WEIGHTS, RunFolder.PARAMETER_PATH)
        digests = {name: hashlib.sha256(files[name]).hexdigest() for name in names if name in files}
        result = dataclasses.replace(result, sha256=digests)
        self.write_files(number, {**files, RunFolder.RESULT: as_json(vars(result))})
        return result

    def write_files(self, number: int, files: Mapping[str, bytes]) -> None:
        """Write files, by their paths, into the folder of a job; the folder is made if needed."""
        folder = f"{self.path}/{number}"  # text, since for thousands of files `Path` doubles the time
        for name in dict.fromkeys(("", *(name.rpartition("/")[0] for name in files))):
            with suppress(FileExistsError):
                os.mkdir(f"{folder}/{name}")
        for name, content in files.items():
            write_whole(f"{folder}/{name}", content)

    def write_results(self, results: Mapping[int, Result]) -> None:
        """Write the results of all jobs, by number, into one table; its first line is the digest of the others."""
        text = b"".join(as_line({"job": number, **vars(result)}) for number, result in sorted(results.items()))
        head = json.dumps({"jobs": len(results), "sha256": hashlib.sha256(text).hexdigest()})
        with replacing(self.results) as stream:
            stream.write(f"{head}\n".encode() + text)

    def read_results(self) -> dict[int, Result]:
        """The results in `results.jsonl`, by the number of the job; empty where there is no such file.

        Raises:
            FolderError: the file does not match its digest.
        """
        file = self.results if self.results.exists() else self.path / "dropped.jsonl"  # an earlier version's
        try:
            head, _, text = file.read_bytes().partition(b"\n")
        except OSError:
            return {}
        try:
            if json.loads(head)["sha256"] != hashlib.sha256(text).hexdigest():
                raise ValueError("its digest differs")
            entries = [json.loads(line) for line in text.splitlines()]
            return {entry.pop("job"): Result(**entry) for entry in entries}
        except (ValueError, TypeError, KeyError) as error:
            raise FolderError(
                f"{file} cannot be read: it was changed after it was written ({error}). Remove it, and resume the "
                "sweep: what is not found elsewhere is trained again."
            ) from None

    def copy_winner(self, winner: RunFolder) -> None:
        """Copy the best checkpoint and the weights of the winner into the folder of the sweep."""
        for file in (winner.best, winner.weights):
            with replacing(self.path / file.name) as stream:
                stream.write(file.read_bytes())

    def digests(self) -> dict[str, str]:
        """Digests of the copies that `copy_winner` made, by the name of the file."""
        return {file.name: digest(file) for file in (self.path / RunFolder.BEST, self.path / RunFolder.WEIGHTS)}


def _matches(path: Path, sha256: str) -> bool:
    try:
        return digest(path) == sha256
    except OSError:
        return False
