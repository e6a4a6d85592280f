"""The folders of runs and sweeps: the names in them, what is written there, and when a run counts as finished."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from holdfast.store.files import (
    HALF_WRITTEN,
    as_json,
    as_line,
    digest,
    replacing,
    sweep_leftovers,
    write_json,
    write_new,
)

Status = Literal["completed", "diverged", "failed"]


@dataclass(frozen=True)
class Result:
    """How a run ended; `result.json`, written last, is the mark that the run is finished.

    Epochs count from 0. A value that is not finite is None, since JSON has no NaN.

    Attributes:
        status: `completed`, `diverged` or `failed`.
        overrides: the words the run was started with.
        config_hash: digest of the resolved configuration.
        metric: what the best epoch was chosen by.
        best: the best epoch and its metrics; None if no epoch was finite.
        last: the last epoch and its metrics.
        epochs: epochs trained.
        iterations: updates of the parameters.
        seconds: duration of the fit; where jobs were trained together, of all of them.
        error: why it diverged or failed.
        sha256: digest of each file the run left.
        test: metrics of the best weights on the test rows, where they were opened.
        test_opened: how often the test rows were opened.
        versions: of Python and of the packages that decide the numbers.
    """

    status: Status
    overrides: list[str]
    config_hash: str
    metric: str
    best: dict[str, Any] | None = None
    last: dict[str, Any] | None = None
    epochs: int = 0
    iterations: int = 0
    seconds: float = 0.0
    error: str | None = None
    sha256: dict[str, str] = field(default_factory=dict)
    test: dict[str, Any] | None = None
    test_opened: int = 0
    versions: dict[str, str] = field(default_factory=dict)


class RunFolder:
    """The folder of one run; no other module spells the names of its files.

    >>> RunFolder(Path("outputs/runs/a")).best.as_posix()
    'outputs/runs/a/best.ckpt'
    """

    BEST, LAST, WEIGHTS, DESCENT, RESULT = "best.ckpt", "last.ckpt", "model.pth", "descent.npy", "result.json"
    LOCK = ".lock"
    EVENTS = ".holdfast"
    """Ends the name of an event file of ours, where other writers put a number: TensorBoard reads both."""
    DRAWN = tuple(f"{name}.png" for name in ("curves", "fit", "residuals", "surface"))

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best = path / self.BEST
        self.last = path / self.LAST
        self.weights = path / self.WEIGHTS
        self.descent = path / self.DESCENT
        self.result = path / self.RESULT
        self.begun = path / "run.json"
        self.opening = path / "test.json"
        self.config = path / ".hydra" / "config.yaml"
        self.log = path / "train.log"
        self.figures = path / "figures"
        self.tested = path / "events.out.tfevents.test"
        self.seen = path / "events.out.tfevents.report"
        self.experiment = path / "experiment"

    @staticmethod
    def events_name(started: float, host: str) -> str:
        """The event file's, as TensorBoard's own writer names it, but for its end."""
        return f"events.out.tfevents.{int(started)}.{host}.{os.getpid()}{RunFolder.EVENTS}"

    def events(self, started: float, host: str) -> Path:
        """The event file."""
        return self.path / self.events_name(started, host)

    def event_files(self) -> list[Path]:
        """The event files that were written during training, by whomever, the oldest first."""
        return sorted(file for file in self.path.glob("events.out.tfevents.*") if file not in (self.tested, self.seen))

    def curves(self) -> list[Path]:
        """The event files of the run, the oldest first; in a folder of an earlier version none bears our name."""
        files = self.event_files()
        return [file for file in files if file.suffix == self.EVENTS] or files

    def clear(self) -> None:
        """Remove what an earlier attempt at this run left, so that nothing old is mixed with the new.

        Here and in `remove` a file that bears none of our names stays: it is the user's.
        """
        files = [self.result, self.last, self.best, self.weights, self.descent, self.seen, self.tested]
        for folder in (self.path, self.experiment):
            if not folder.is_symlink():
                files += folder.glob(f"events.out.tfevents.*{self.EVENTS}")
        for file in files:
            file.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove a job's files, with those that Hydra left and the figures, and each folder that is empty then."""
        sweep_leftovers(self.path)
        self.clear()
        hydras = [self.config.with_name(f"{name}.yaml") for name in ("config", "hydra", "overrides")]
        for file in (self.begun, self.log, *hydras, *(self.figures / name for name in self.DRAWN)):
            if not file.parent.is_symlink():  # its files lie elsewhere
                file.unlink(missing_ok=True)
        for folder in (self.config.parent, self.figures, self.experiment, self.path):
            with suppress(OSError):  # it is not there, or not empty
                folder.rmdir()

    def told(self) -> str:
        """The configuration, as YAML; nothing where Hydra left none."""
        try:
            return self.config.read_text(encoding="utf-8")
        except OSError:
            return ""

    def commit(self, result: Result) -> Result:
        """Write `result.json` with the digests of the run's files: from here on the run is finished."""
        files = (self.best, self.last, self.weights, self.descent)
        sealed = dataclasses.replace(result, sha256={file.name: digest(file) for file in files if file.exists()})
        write_json(self.result, vars(sealed))
        return sealed

    def read(self) -> Result | None:
        """The result, if there is one that parses."""
        try:
            result = Result(**json.loads(self.result.read_bytes()))
        except (OSError, ValueError, TypeError):
            return None
        whole = isinstance(result.sha256, dict) and isinstance(result.best, (dict, type(None)))
        return result if whole and isinstance(result.overrides, list) else None

    def sealed(self, file: Path) -> str | None:
        """The digest that a file of the run was left with, if the run has ended."""
        result = self.read()
        return None if result is None else result.sha256.get(file.name)

    def finished(self, config_hash: str) -> Result | None:
        """The result, if it parses, belongs to this configuration, and every file matches its digest."""
        result = self.read()
        if result is None or result.config_hash != config_hash:
            return None
        return result if all(_matches(self.path / name, sha256) for name, sha256 in result.sha256.items()) else None


class SweepFolder:
    """The folder of a sweep; its jobs' folders are numbered.

    >>> SweepFolder(Path("outputs/sweeps/a")).selection.as_posix()
    'outputs/sweeps/a/selection.json'
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sweep = path / "sweep.json"
        self.dropped = path / "dropped.jsonl"
        self.leaderboard = path / "leaderboard.csv"
        self.opening = path / "test.json"
        self.selection = path / "selection.json"
        self.hydra = path / "multirun.yaml"
        self.figures = path / "figures"
        self.page = path / "report.html"
        self.seen = path / "events.out.tfevents.report"

    def job(self, number: int) -> RunFolder:
        """The folder of one job."""
        return RunFolder(self.path / str(number))

    def place(self, number: int, files: Mapping[str, bytes], result: Result) -> Result:
        """Write the folder of a job that was trained with others: beside its name, and renamed when it is whole.

        Nothing is synced here; `sync` does that for all jobs at once.

        Args:
            number: the job's.
            files: by their paths inside the folder, which has one more for each that holds a slash.
            result: how the job ended, without digests.
        """
        sealed = (RunFolder.BEST, RunFolder.LAST, RunFolder.WEIGHTS, RunFolder.DESCENT)
        digests = {name: hashlib.sha256(files[name]).hexdigest() for name in sealed if name in files}
        result = dataclasses.replace(result, sha256=digests)
        part = f"{self.path}/.{number}.{os.getpid()}{HALF_WRITTEN}"
        try:
            for name in dict.fromkeys(("", *(name.rpartition("/")[0] for name in files))):
                os.mkdir(f"{part}/{name}")
            for name, content in (*files.items(), (RunFolder.RESULT, as_json(vars(result)))):
                write_new(f"{part}/{name}", content)
            if os.path.isdir(f"{self.path}/{number}"):  # a callback of the user's own has files there
                shutil.copytree(part, f"{self.path}/{number}", dirs_exist_ok=True)
                shutil.rmtree(part)
            else:
                os.rename(part, f"{self.path}/{number}")
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        return result

    def drop(self, results: Mapping[int, Result]) -> None:
        """Keep the results of some jobs in one table with its digest, and no folders; as good as each `result.json`."""
        text = b"".join(as_line({"job": number, **vars(result)}) for number, result in results.items())
        head = json.dumps({"jobs": len(results), "sha256": hashlib.sha256(text).hexdigest()})
        with replacing(self.dropped) as stream:
            stream.write(f"{head}\n".encode() + text)
        for number in results:
            if os.path.isdir(f"{self.path}/{number}"):  # of a stack, most were never there
                with suppress(OSError):
                    self.job(number).remove()

    def read_dropped(self) -> dict[int, Result]:
        """The results of the table, by job; none where it is not there, or does not match its digest."""
        try:
            head, _, text = self.dropped.read_bytes().partition(b"\n")
            if json.loads(head)["sha256"] != hashlib.sha256(text).hexdigest():
                return {}
            entries = [json.loads(line) for line in text.splitlines()]
            return {entry.pop("job"): Result(**entry) for entry in entries}
        except (OSError, ValueError, TypeError, KeyError):
            return {}

    def adopt(self, winner: RunFolder) -> None:
        """Keep the winner's best checkpoint and weights as the sweep's own."""
        for file in (winner.best, winner.weights):
            with replacing(self.path / file.name) as stream:
                stream.write(file.read_bytes())

    def digests(self) -> dict[str, str]:
        """Of the winner's checkpoint and weights, which are the sweep's own."""
        return {file.name: digest(file) for file in (self.path / RunFolder.BEST, self.path / RunFolder.WEIGHTS)}


def is_left_behind(path: Path) -> bool:
    """Whether a folder is that of a run or a sweep, where nothing may be executed."""
    run, sweep = RunFolder(path), SweepFolder(path)
    return any(file.exists() for file in (run.begun, run.result, sweep.sweep, sweep.selection))


def _matches(path: Path, sha256: str) -> bool:
    try:
        return digest(path) == sha256
    except OSError:
        return False
