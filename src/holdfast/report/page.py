"""`report.html`: which job won, by how much, and whether that can be trusted, on one page that needs nothing else."""

from __future__ import annotations

import base64
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from holdfast.config.check import key_of
from holdfast.report.read import LeastSquares
from holdfast.sweeps.effects import without_effect
from holdfast.sweeps.finish import row
from holdfast.sweeps.rank import Job, Ranking, swept_keys

LISTED = 100
"""Jobs that diverged or failed and are told one by one."""


@dataclass(frozen=True)
class Section:
    """Jobs that are compared with each other, with all that the page says of them.

    Attributes:
        ranking: the jobs, best first.
        selection: what `selection.json` says of their winner; None while nothing was selected.
        least_squares: the exact solution on the same rows, where there is one.
        images: name, caption and PNG file of each figure.
        missing: why some figures are not there.
    """

    ranking: Ranking
    selection: Mapping[str, Any] | None
    least_squares: LeastSquares | None = None
    images: Sequence[tuple[str, str, bytes]] = ()
    missing: Sequence[str] = ()

    @property
    def winner(self) -> Job | None:
        """The job that won."""
        return self.ranking.winner

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The leaderboard."""
        keys = swept_keys(self.ranking.jobs)
        return [
            {"rank": place if job.value is not None else None, **row(job, keys)}
            for place, job in enumerate(self.ranking.jobs, start=1)
        ]

    @property
    def lost(self) -> list[Job]:
        """Jobs that diverged or failed."""
        return [job for job in self.ranking.jobs if job.result.status != "completed"]

    @property
    def doubts(self) -> list[str]:
        """What is known of how certain the choice is."""
        told = []
        winner, margin = self.winner, self.ranking.margin
        if winner is None or winner.value is None:
            return []
        if margin is not None:
            better = f"{margin:.6g} better than" if margin else "No better than"
            told.append(f"{better} the runner-up, {self.ranking.jobs[1].name}.")
        if keys := without_effect(self.ranking.jobs):
            told.append(f"{', '.join(keys)} had no effect: jobs that differ only there are identical.")
        told += spread(self.ranking)
        if self.least_squares is not None:
            best = winner.result.best or {}
            exact = (("val/loss", self.least_squares.val), ("train/loss", self.least_squares.train))
            parts = [
                f"{name} {value:.6g} (the winner: {best[name]:.6g}, {best[name] - value:+.3g})"
                for name, value in exact
                if best.get(name) is not None
            ]
            note = self.least_squares.note
            rows = "these" if note else "the"
            told.append(f"Least squares, solved exactly on {rows} training rows, has {' and '.join(parts)}.{note}")
        return told


@dataclass(frozen=True)
class Page:
    """All of the page.

    Attributes:
        name: of the sweep's folder.
        command: what started it.
        sections: one for each data set.
        opened: how often test rows were opened.
        why: why there is no single winner, if there is none.
        versions: of Python and of packages.
        plan: how many stacks were trained, and why jobs ran alone.
        config: the configuration of the winner, as YAML.
    """

    name: str
    command: str
    sections: Sequence[Section]
    opened: int
    why: str | None
    versions: Mapping[str, str]
    plan: Sequence[str] = ()
    config: str = ""
    listed: int = field(default=LISTED, init=False)

    def html(self) -> str:
        """The page; whatever stands in names and words is escaped."""
        return _template().render(page=self)


def spread(ranking: Ranking) -> list[str]:
    """How the winner's settings do over seeds, beside the next best settings."""
    groups: dict[tuple[str, ...], list[float]] = {}
    for job in ranking.jobs:
        if job.value is not None:
            settings = tuple(word for word in job.overrides if key_of(word) != "seed")
            groups.setdefault(settings, []).append(job.value)
    if ranking.winner is None or max(map(len, groups.values())) < 2:
        return []
    # jobs are in order of rank, so the first group is that of the winner
    (_, mine), *others = groups.items()
    if len(mine) < 2:
        return ["Its settings completed with one seed only: how far a seed moves the result is not known."]
    deviation = statistics.stdev(mine)
    told = [f"Over {len(mine)} seeds its settings give {_mean(mine)} (mean ± standard deviation)."]
    if others:
        words, values = others[0]
        told.append(f"The next best settings, {' '.join(words)}, give {_mean(values)}.")
        gap = abs(statistics.mean(values) - statistics.mean(mine))
        if gap < deviation:
            told.append("The means differ by less than one standard deviation: other seeds may choose otherwise.")
    return told


def command(words: Sequence[str]) -> str:
    """What started a sweep."""
    return shlex.join(["python", "train.py", "-m", *words])


def _mean(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.6g} (one seed)"
    return f"{statistics.mean(values):.6g} ± {statistics.stdev(values):.2g}"


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = lambda value: f"{value:.6g}" if isinstance(value, float) else value
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    return environment.from_string(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
