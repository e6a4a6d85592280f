"""`report.html`: which job won, by how much, and how certain that is. The page needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, StrictUndefined, Template

from holdfast.report.regression import ExactSolution
from holdfast.sweeps.effects import without_effect
from holdfast.sweeps.ended import Job, run_command, swept_keys
from holdfast.sweeps.finish import row, settings_columns, with_error
from holdfast.sweeps.rank import Ranking, varied_keys

MAX_ROWS = 10_000
"""Rows of a leaderboard; of more jobs, so many are shown, spread over all ranks."""

MAX_LISTED = 100
"""Diverged and failed jobs that are listed."""


class Image(NamedTuple):
    """A figure as a PNG file, with its file name, without `.png`, and its caption."""

    name: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Section:
    """The jobs of one data set, and what the page shows of them.

    Attributes:
        ranking: the jobs, best first.
        selection: the entry of the winner in `selection.json`; None if there is none.
        least_squares: the exact solution on the same rows; None if there is none.
        images: the figures.
        missing: why some figures could not be drawn.
    """

    ranking: Ranking
    selection: Mapping[str, Any] | None
    least_squares: ExactSolution | None = None
    images: Sequence[Image] = ()
    missing: Sequence[str] = ()

    @property
    def winner(self) -> Job | None:
        """The job that won."""
        return self.ranking.winner

    @property
    def headline(self) -> str:
        """What the winner has reached, in words."""
        best, job = self.ranking.settings[0], self.winner
        assert job is not None
        if len(best.jobs) == 1:
            jobs = f"{len(self.ranking.jobs)} job{'s' if len(self.ranking.jobs) > 1 else ''}"
            epoch = (job.result.best or {}).get("epoch")
            return f"{job.result.metric} {job.value:.6g} in epoch {epoch}, the best of {jobs}."
        repeats = f"over {len(best.jobs)} {best.kind}" + ("" if best.epoch is None else f" in epoch {best.epoch}")
        mean = f"Mean {job.result.metric} {with_error(best.estimate)} (standard error) {repeats}"
        exported = "is that of its best repeat" if not best.folds else "was trained once more, on the rows of all folds"
        return f"{mean}, the best of {len(self.ranking.settings)} settings. The model {exported}."

    @property
    def overrides(self) -> Sequence[str]:
        """The overrides that train the winner's model."""
        return (self.selection or {}).get("refit_overrides") or (self.winner.overrides if self.winner else ())

    @property
    def metric(self) -> str:
        """The metric by which jobs are ranked."""
        return self.ranking.jobs[0].result.metric

    @cached_property
    def keys(self) -> list[str]:
        """The swept keys."""
        return swept_keys(self.ranking.jobs)

    @property
    def shown(self) -> list[tuple[int | None, Job]]:
        """The jobs of the leaderboard, at most `MAX_ROWS`, with their ranks: None without a finite metric."""
        jobs = self.ranking.jobs
        shown = np.linspace(0, len(jobs) - 1, min(len(jobs), MAX_ROWS)).round().astype(int).tolist()
        return [(index + 1 if jobs[index].value is not None else None, jobs[index]) for index in shown]

    @property
    def leaderboard(self) -> list[dict[str, Any]]:
        """The rows of the leaderboard."""
        return [{"rank": rank, **row(job, self.keys)} for rank, job in self.shown]

    @property
    def settings(self) -> list[dict[str, Any]]:
        """The settings with the means over their repeats, at most `MAX_ROWS`; none where nothing was repeated."""
        if not self.ranking.has_repeats:
            return []
        best = self.ranking.settings[0]
        keys = [key for key in self.keys if key not in varied_keys(self.ranking)]
        lines = []
        for rank, each in enumerate(self.ranking.settings[:MAX_ROWS], 1):
            given, statistics = next(iter(each.jobs.values())).given, settings_columns(each, best)
            apart = None if each is best else "yes" if each.is_told_apart(best) else "no"
            rank_of_settings = {"rank": rank if each.estimate else None}
            lines.append(rank_of_settings | {key: given.get(key) for key in keys} | statistics | {"told apart": apart})
        return lines

    @property
    def not_completed(self) -> list[Job]:
        """The jobs that diverged or failed."""
        return [job for job in self.ranking.jobs if job.result.status != "completed"]

    @property
    def remarks(self) -> list[str]:
        """Sentences about how certain the choice of the winner is."""
        margin = self.ranking.margin
        if self.winner is None or self.winner.value is None:
            return []
        remarks = []
        if margin is not None and not self.ranking.has_repeats:
            better = f"{margin:.6g} better than" if margin else "No better than"
            remarks.append(f"{better} the runner-up, {self.ranking.jobs[1].name}.")
        if (ranked := sum(each.estimate is not None for each in self.ranking.settings)) > 1:
            remarks.append(_flatters(self.winner.result.metric, ranked, (self.selection or {}).get("test") or {}))
        if keys := without_effect(self.ranking.jobs):
            remarks.append(f"{', '.join(keys)} had no effect: jobs that differ only there are identical.")
        remarks += repeat_remarks(self.ranking)
        if self.least_squares is not None:
            remarks.append(_least_squares_remark(self.least_squares, self.winner.result.best or {}))
        return remarks


@dataclass(frozen=True)
class Page:
    """The content of the page.

    Attributes:
        name: name of the sweep's folder.
        command: the command line that started the sweep.
        sections: one for each data set.
        opened: number of times that test rows were made.
        why: why there is no single winner; None if there is one.
        versions: versions of Python and of packages by name.
        plan: sentences on how many stacks were trained, and why some jobs ran alone.
        config: the winner's configuration, as YAML.
        flags: those that say where configurations lie.
    """

    name: str
    command: str
    sections: Sequence[Section]
    opened: int
    why: str | None
    versions: Mapping[str, str]
    plan: Sequence[str] = ()
    config: str = ""
    flags: Sequence[str] = ()

    def run(self, overrides: Sequence[str]) -> str:
        """The command that trains a job alone."""
        return run_command(overrides, self.flags)

    def html(self) -> str:
        """Render the page, with all values escaped."""
        return _template().render(page=self, max_listed=MAX_LISTED)


def _flatters(metric: str, settings: int, test: Mapping[str, float]) -> str:
    """Say that the metric by which the best of several settings was chosen is too good."""
    name = f"test/{metric.partition('/')[2]}"
    beside = f"; its {name} is {test[name]:.6g}" if name in test else ""
    return f"It was chosen by {metric} out of {settings} settings, so its {metric} flatters{beside}."


def repeat_remarks(ranking: Ranking) -> list[str]:
    """Return sentences that compare the winner's settings with the next best ones over their repeats.

    There are none if no settings were repeated.
    """
    if ranking.winner is None or not ranking.has_repeats:
        return []
    best, *others = ranking.settings
    if len(best.jobs) < 2:
        return ["Its settings have one repeat only: how far a seed moves the result is not known."]
    remarks = []
    if best.folds:
        remarks.append("Training rows of folds overlap, so that the standard error is too small.")
    if others and others[0].estimate is not None:
        second, difference = others[0], others[0].difference(best)
        names = " ".join(item for item in second.overrides if item not in best.overrides)
        remarks.append(f"The next best settings, {names}, give {with_error(second.estimate)}.")
        if not second.is_told_apart(best):
            apart = f"Repeat by repeat they differ by {with_error(difference)}"
            remarks.append(f"{apart}, not more than one standard error: other {best.kind} may choose otherwise.")
    return remarks


def _least_squares_remark(exact: ExactSolution, best: Mapping[str, Any]) -> str:
    parts = [
        f"{name} {loss:.6g} (the winner: {best[name]:.6g}, {best[name] - loss:+.3g})"
        for name, loss in (("val/loss", exact.val), ("train/loss", exact.train))
        if best.get(name) is not None
    ]
    rows = "these" if exact.note else "the"
    return f"Least squares, solved exactly on {rows} training rows, has {' and '.join(parts)}.{exact.note}"


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = lambda value: f"{value:.6g}" if isinstance(value, float) else value
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    return environment.from_string(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
