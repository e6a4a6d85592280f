"""What a run and a sweep print on the terminal."""

from __future__ import annotations

import logging
import math
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from holdfast.errors import in_a_line
from holdfast.report.leaderboard_table import ALL_SHOWN, leaderboard_table, number
from holdfast.runtime.screen import is_watched
from holdfast.store.folders import RunFolder, SweepFolder
from holdfast.store.result import Result
from holdfast.sweeps.ended import job_name, run_command
from holdfast.sweeps.finish import Finished

if TYPE_CHECKING:
    from tqdm import tqdm

GROUP_SHOWN = 5
"""Largest number of identical jobs that are named."""


class BriefFormatter(logging.Formatter):
    """Leaves out the traceback of records that say all that concerns the user; the log has it."""

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record."""
        if not getattr(record, "brief", False):
            return super().format(record)
        return record.getMessage()


class BelowError(logging.Filter):
    """Keeps errors off standard output; they go to standard error."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record belongs on standard output."""
        return record.levelno < logging.ERROR


def summary(result: Result, folder: RunFolder, epochs: int) -> str:
    """The end of a run in a few lines: its best epoch, its files, and the command for TensorBoard.

    Args:
        result: how the run ended.
        folder: folder of the run.
        epochs: how many were asked for.
    """
    lines = []
    if result.status == "diverged":
        lines.append(f"This run {result.error}. A smaller learning rate may help.")
    trained = f"{result.epochs}" if result.epochs == epochs else f"{result.epochs} of {epochs}"
    lines.append(f"{_best(result)}  ({trained} epochs, {result.iterations} iterations, {result.seconds:.1f} s)")
    if result.test is not None:
        lines.append(f"test rows opened {result.test_opened}x: {_metrics(result.test)}")
    files = [path.name for path in (folder.best, folder.last, folder.weights, folder.result) if path.exists()]
    lines += _location(folder.path, files)
    return "\n".join(lines)


def leaderboard(folder: SweepFolder, finished: Finished, flags: Sequence[str] = ()) -> str:
    """The end of a sweep: a table that marks the winner, why it won, its test metrics, and the jobs that failed.

    Args:
        folder: folder of the sweep.
        finished: its rankings and selections.
        flags: those of the command line that say where configurations lie.
    """
    jobs = sorted((job for ranking in finished.rankings for job in ranking.jobs), key=lambda job: job.number)
    lines = ["", *leaderboard_table(finished.rankings, jobs), ""]
    for entry in finished.selections:
        winner = jobs[entry["winner"]]
        lines.append(f"winner: {winner.name}{_exported(entry)}: {entry['why']}")
        if entry["test"] is not None:
            lines.append(f"test rows opened {entry['test_opened']}x, for the winner alone: {_metrics(entry['test'])}")
        if "test_error" in entry:
            lines.append(f"its test failed: {entry['test_error']}")
        lines.append(f"alone:  {run_command(entry.get('refit_overrides', winner.overrides), flags)}")
        lines += _effects(entry)
    if not finished.selections:
        lines.append("no job completed with a finite metric: there is no winner, and the test rows stay sealed")
    for job in jobs:
        if job.result.status == "failed":
            lines.append(f"{job.name} failed: {job.result.error}")
    lines += _location(folder.path, sorted(path.name for path in folder.path.glob("[!.]*") if path.is_file()))
    return "\n".join(lines)


def report_failed(error: Exception, path: Path) -> str:
    """What is printed where the report of a finished run or sweep could not be drawn."""
    return f"the report could not be drawn: {in_a_line(error)}; holdfast report {path} tries again"


def _exported(selection: dict[str, Any]) -> str:
    """What stands for the winner's settings, where they were trained more than once."""
    if selection.get("refit"):
        return ", whose settings were trained once more on the rows of all folds"
    return ", the best repeat of its settings" if "repeats" in selection else ""


def _effects(selection: dict[str, Any]) -> list[str]:
    """The swept keys that changed nothing, and jobs that are identical for that reason."""
    keys, groups = selection.get("without_effect") or [], selection.get("identical") or []
    if not keys:
        return []
    numbers = ", ".join(map(str, groups[0][:GROUP_SHOWN])) + (" ..." if len(groups[0]) > GROUP_SHOWN else "")
    return [f"no effect: {', '.join(keys)}: jobs that differ only there are identical, such as jobs {numbers}"]


def _location(path: Path, files: Sequence[str]) -> list[str]:
    """The folder with its files, and the command that shows it in TensorBoard."""
    relative = Path(os.path.relpath(path))
    shown = path.absolute() if ".." in relative.parts or relative == Path() else relative
    root = shown.parent.parent if shown.parent.name in ("runs", "sweeps") else shown
    return [f"{shown}: {' '.join(files)}", f"tensorboard --logdir {shlex.quote(str(root))}"]


class SweepProgress:
    """Prints a line for every job that ends, if there are few, and on a terminal draws one bar for the sweep.

    Args:
        jobs: the swept overrides of every job.
        mode: whether a lower ("min") or a higher ("max") metric is better.
    """

    def __init__(self, jobs: Sequence[Sequence[str]], mode: Literal["min", "max"]) -> None:
        self._jobs, self._better = jobs, min if mode == "min" else max
        self._bar: tqdm[Any] | None = None
        self._done = 0.0  # jobs, and fractions of the jobs that train
        self._ended = 0
        self._best = math.nan

    def __enter__(self) -> SweepProgress:
        if is_watched():
            from tqdm import tqdm

            self._bar = tqdm(total=len(self._jobs), mininterval=0.1, unit="job", leave=False, dynamic_ncols=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def add(self, jobs: Sequence[Sequence[str]]) -> None:
        """Another round was drawn.

        Args:
            jobs: the swept overrides of every job, those of earlier rounds included.
        """
        self._jobs = jobs
        if self._bar is not None:
            self._bar.total = len(jobs)

    def epoch(self, jobs: int, epochs: int, epoch: int, best: float) -> None:
        """Jobs that are trained together have finished an epoch; see `holdfast.execute.work.Progress`."""
        if self._bar is not None:
            values = [value for value in (best, self._best) if not math.isnan(value)]
            self._best = self._better(values, default=math.nan)
            self._bar.set_description(f"epoch {epoch + 1}/{epochs}, best {number(self._best)}", refresh=False)
            self._advance(self._done + jobs / epochs)

    def ended(self, number: int, result: Result | None) -> None:
        """The job with this number has ended, with a result if it left one."""
        self._ended += 1
        self._advance(max(self._done, self._ended))
        if len(self._jobs) <= ALL_SHOWN and result is not None:
            line = f"{job_name(number, self._jobs[number])}: {_outcome(result)}"
            if self._bar is None or not sys.stderr.isatty():  # in a notebook a line does not disturb the bar
                print(line, flush=True)
            else:
                self._bar.write(line, file=sys.stdout)

    def _advance(self, done: float) -> None:
        self._done = done
        if self._bar is not None:
            self._bar.update(int(done) - self._bar.n)


def _outcome(result: Result) -> str:
    if result.status == "failed":
        return f"failed: {result.error}"
    if result.status == "diverged":
        return str(result.error)
    return f"{_best(result)}  ({result.seconds:.1f} s)"


def _best(result: Result) -> str:
    if result.best is None:
        return f"no epoch had a finite {result.metric}: there is no best epoch"
    text = f"best {result.metric} {number(result.best[result.metric])} in epoch {result.best['epoch']}"
    training = result.best.get("train/loss")
    return text if training is None else f"{text}, train/loss {number(training)}"


def _metrics(metrics: dict[str, Any]) -> str:
    return ", ".join(f"{name} {number(value)}" for name, value in metrics.items())
