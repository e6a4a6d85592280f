"""The folders of runs and sweeps: the names of their files, and when a run counts as finished."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from holdfast.store.files import PARTIAL, as_json, as_line, digest, remove_partial, replacing, write_json, write_new
from holdfast.store.result import Result


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
    FIGURES = tuple(f"{name}.png" for name in ("curves", "fit", "residuals", "surface"))

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best = path / self.BEST
        self.last = path / self.LAST
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

    def clear(self) -> None:
        """Remove the files of an earlier attempt at this run.

        Here and in `remove`, a file with a name that Holdfast does not use is the user's and stays.
        """
        files = [
            self.result,
            self.last,
            self.best,
            self.weights,
            self.parameter_path,
            self.report_events,
            self.test_events,
        ]
        for folder in (self.path, self.experiment):
            if not folder.is_symlink():
                files += folder.glob(f"events.out.tfevents.*{self.EVENTS}")
        for file in files:
            file.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove all files of the run, those of Hydra and the figures included, and each folder that is then empty."""
        remove_partial(self.path)
        self.clear()
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
        self.dropped = path / "dropped.jsonl"
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

    def write_job(self, number: int, files: Mapping[str, bytes], result: Result) -> Result:
        """Write the complete folder of a job: under a temporary name, then renamed.

        The files are not flushed to disk; `files.sync` does that once for all jobs.

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
        part = f"{self.path}/.{number}.{os.getpid()}{PARTIAL}"
        try:
            for name in dict.fromkeys(("", *(name.rpartition("/")[0] for name in files))):
                os.mkdir(f"{part}/{name}")
            for name, content in (*files.items(), (RunFolder.RESULT, as_json(vars(result)))):
                write_new(f"{part}/{name}", content)
            if os.path.isdir(f"{self.path}/{number}"):  # a callback of the user has written files there
                shutil.copytree(part, f"{self.path}/{number}", dirs_exist_ok=True)
                shutil.rmtree(part)
            else:
                os.rename(part, f"{self.path}/{number}")
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        return result

    def drop(self, results: Mapping[int, Result]) -> None:
        """Move the results of jobs into one table, `dropped.jsonl`, and remove their folders.

        A row of the table counts as much as a `result.json`. The first line is the digest of the others.

        Args:
            results: the results by the number of the job.
        """
        text = b"".join(as_line({"job": number, **vars(result)}) for number, result in results.items())
        head = json.dumps({"jobs": len(results), "sha256": hashlib.sha256(text).hexdigest()})
        with replacing(self.dropped) as stream:
            stream.write(f"{head}\n".encode() + text)
        for number in results:
            if os.path.isdir(f"{self.path}/{number}"):  # most jobs of a stack never had a folder
                with suppress(OSError):
                    self.job(number).remove()

    def read_dropped(self) -> dict[int, Result]:
        """The results in `dropped.jsonl`, by the number of the job.

        Empty where the file is missing or does not match its digest.
        """
        try:
            head, _, text = self.dropped.read_bytes().partition(b"\n")
            if json.loads(head)["sha256"] != hashlib.sha256(text).hexdigest():
                return {}
            entries = [json.loads(line) for line in text.splitlines()]
            return {entry.pop("job"): Result(**entry) for entry in entries}
        except (OSError, ValueError, TypeError, KeyError):
            return {}

    def copy_winner(self, winner: RunFolder) -> None:
        """Copy the best checkpoint and the weights of the winner into the folder of the sweep."""
        for file in (winner.best, winner.weights):
            with replacing(self.path / file.name) as stream:
                stream.write(file.read_bytes())

    def digests(self) -> dict[str, str]:
        """Digests of the copies that `copy_winner` made, by the name of the file."""
        return {file.name: digest(file) for file in (self.path / RunFolder.BEST, self.path / RunFolder.WEIGHTS)}


def is_run_or_sweep(path: Path) -> bool:
    """Whether a folder holds a run or a sweep. Code in such a folder is never executed."""
    run, sweep = RunFolder(path), SweepFolder(path)
    return any(file.exists() for file in (run.started, run.result, sweep.sweep, sweep.selection))


def _matches(path: Path, sha256: str) -> bool:
    try:
        return digest(path) == sha256
    except OSError:
        return False
