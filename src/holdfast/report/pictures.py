"""Which figures a run or a sweep gets, and which numbers they show."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from holdfast.errors import in_a_line
from holdfast.report import figures
from holdfast.report import read as reading
from holdfast.report.choice import PANELS, Choice, number
from holdfast.report.read import ConfigOf, LeastSquares, Numbers, Table
from holdfast.report.style import Curve
from holdfast.store.folders import RunFolder
from holdfast.sweeps.rank import Job, Ranking

AXES = 3
"""Swept keys that get a figure each."""

GRID = 40
"""Values of each parameter of a cost surface."""


@dataclass(frozen=True)
class Picture:
    """A figure with its file name and what it shows."""

    name: str
    caption: str
    figure: Figure


class Pictures:
    """The figures of jobs that are compared with each other.

    Args:
        ranking: the jobs, best first.
        folder_of: the folder of a job.
        config_of: the configuration of a job.

    Attributes:
        missing: why some figures are not there.
    """

    def __init__(self, ranking: Ranking, folder_of: Callable[[int], RunFolder], config_of: ConfigOf) -> None:
        self._ranking, self._folder_of, self._config_of = ranking, folder_of, config_of
        self._choice = Choice(ranking, folder_of)
        self._known: Table | None = None
        self.missing: list[str] = []

    def all(self) -> Iterator[Picture]:
        """Every figure for which the numbers are there; why one is not is kept, and ends nothing."""
        made = (self._losses, self._heatmap, self._fits, self._residuals, self._surface, self._curves)
        for figure in made:
            try:
                yield from figure()
            except Exception as error:  # a figure that cannot be drawn says so, and holds up no other
                self.missing.append(f"{figure.__name__.lstrip('_')}: {in_a_line(error)}")

    def least_squares(self) -> LeastSquares | None:
        """The exact solution on these jobs' training rows, if they can be had and are for regression."""
        try:
            table = self._table()
            return None if table is None else table.least_squares()
        except Exception as error:
            self.missing.append(f"least squares: {in_a_line(error)}")
            return None

    # ---------------------------------------------------------------------------------- against what was swept

    def _losses(self) -> Iterator[Picture]:
        """The loss against every swept key, a line for each batch size."""
        if all(job.result.status == "failed" for job in self._ranking.jobs):
            return
        for key in self._choice.axes()[:AXES]:
            by = self._choice.beside(key)
            values = self._choice.values(key)
            numbers = [number(value) for value in values]
            named = any(number is None for number in numbers)  # such as batch_size=full, or optimizer=adam
            place = {value: float(values.index(value)) if named else number(value) for value in values}
            groups: dict[str, list[tuple[float, float, float]]] = {}
            for job in self._ranking.jobs:
                at, label = place[job.given[key]], f"{by}={job.given[by]}" if by else ""
                if job.value is not None:
                    training = _training(job)
                    groups.setdefault(label, []).append((at, job.value, training))  # type: ignore[arg-type]
            order = [f"{by}={value}" for value in self._choice.values(by)] if by else [""]
            outcomes = [
                figures.Outcomes(label, *zip(*sorted(groups[label]), strict=True)) for label in order if label in groups
            ]
            winner = self._ranking.winner
            yield Picture(
                f"loss_{key.rpartition('.')[2]}",
                f"Validation (filled) and training loss against {key}; the chosen job is the star.",
                figures.losses(
                    key,
                    outcomes,
                    metric=self._ranking.jobs[0].result.metric,
                    chosen=(place[winner.given[key]], winner.value) if winner else None,  # type: ignore[arg-type]
                    diverged=[place[job.given[key]] for job in self._choice.diverged()],  # type: ignore[misc]
                    ticks=values if named else None,
                ),
            )

    def _heatmap(self) -> Iterator[Picture]:
        """The metric over two swept keys."""
        keys = self._choice.axes()
        if len(keys) != 2 or self._ranking.winner is None:
            return
        across, up = sorted(keys, key=lambda key: -len(self._choice.values(key)))
        names = [self._choice.values(key) for key in (across, up)]
        found: dict[tuple[int, int], list[float]] = {}
        for job in self._ranking.jobs:
            place = (names[1].index(job.given[up]), names[0].index(job.given[across]))
            found.setdefault(place, []).extend([] if job.value is None else [job.value])
        table = np.full((len(names[1]), len(names[0])), np.nan)
        for place, values in found.items():
            table[place] = np.median(values) if values else np.nan
        winner = self._ranking.winner
        chosen = (names[1].index(winner.given[up]), names[0].index(winner.given[across])) if winner else None
        seeds = " (the median over seeds)" if "seed" in self._choice.keys else ""
        caption = f"{self._ranking.jobs[0].result.metric} over {across} and {up}{seeds}; the star marks the winner."
        yield Picture("heatmap", caption, figures.heatmap((across, names[0]), (up, names[1]), table, chosen))

    # ------------------------------------------------------------------------------------------ what was fitted

    def _fits(self) -> Iterator[Picture]:
        """Every job's fitted line over the rows, where x is one number."""
        table = self._table()
        if table is None or table.x("val").shape[1] != 1:
            return
        x = np.linspace(float(table.x("train").min()), float(table.x("train").max()), 100)
        lines = []
        for job, curve in self._choice.lines(lambda job: self._folder_of(job.number).weights.exists()):
            if (config := self._config_of(job.number)) is not None:
                module = reading.fitted(config, self._folder_of(job.number))
                y = reading.predict(module, table.x("val").new_tensor(x[:, None]))
                lines.append(replace(curve, x=x, y=y))
        exact = table.least_squares()
        line = Curve("least squares", x, x * exact.weight[0] + exact.bias)
        validation, training = (
            (table.x(split)[:, 0].numpy(), table.y(split)[:, 0].numpy()) for split in ("val", "train")
        )
        told = f"What was fitted, over the rows.{table.note('train', 'val')}"
        yield Picture("fit", told, figures.fits(validation, training, lines, line))

    def _residuals(self) -> Iterator[Picture]:
        """Predicted against actual, where x is more than one number."""
        table, first = self._table(), self._choice.first()
        if table is None or table.x("val").shape[1] == 1 or first is None:
            return
        config = self._config_of(first.number)
        assert config is not None
        guess = reading.predict(reading.fitted(config, self._folder_of(first.number)), table.x("val"))
        step = -(-len(guess) // 2000)
        figure = figures.residuals(table.y("val")[::step, 0].numpy(), guess[::step], self._choice.label(first))
        shown = f", one in {step} of them" if step > 1 else ""
        yield Picture("residuals", f"Predictions of validation rows{shown}.{table.note('val')}", figure)

    def _surface(self) -> Iterator[Picture]:
        """The cost over two parameters, and the way down it."""
        table = self._table()
        chosen = self._choice.panels(lambda job: self._folder_of(job.number).parameter_path.exists())
        if table is None or not chosen or (config := self._config_of(chosen[0].number)) is None:
            return
        ways = [reading.descent(self._folder_of(job.number)) for job in chosen]
        points = np.concatenate(ways)
        if table.x("val").shape[1] == 1:
            exact = table.least_squares()
            points = np.concatenate([points, [[exact.weight[0], exact.bias]]])
        low, high = np.percentile(points[np.isfinite(points).all(1)], [0.5, 99.5], axis=0)
        low, high = np.minimum(low, points[-1]), np.maximum(high, points[-1])
        margin = np.maximum(0.15 * (high - low), 0.5)
        first, second = (np.linspace(low[k] - margin[k], high[k] + margin[k], GRID) for k in range(2))
        made = reading.cost(config, table, first, second)
        if made is not None:
            names, cost = made
            labels = [self._choice.label(job) for job in chosen]
            figure = figures.surface(names, (first, second, cost), list(zip(labels, ways, strict=True)))
            note = table.note("train")
            rows = "these" if note else "all"
            told = f"The cost over {rows} training rows, and the way of each job down it.{note}"
            yield Picture("surface", told, figure)

    # ---------------------------------------------------------------------------------------------- how it went

    def _curves(self) -> Iterator[Picture]:
        """The loss of every iteration, a panel for each batch size, and the metric of every epoch."""
        metric = self._ranking.jobs[0].result.metric
        order = self._choice.groups()
        groups: dict[str, list[Curve]] = {}
        epochs = []
        for job, curve in self._choice.lines():
            found = reading.curves(self._folder_of(job.number), ("train/loss_step", metric))
            if "train/loss_step" in found:
                steps, values = _within(*found["train/loss_step"])
                groups.setdefault(self._choice.group(job), []).append(replace(curve, x=steps, y=values))
            if metric in found:
                steps, values = _within(*found[metric])
                epochs.append(replace(curve, x=steps, y=values))
        if groups:
            panels = sorted(groups.items(), key=lambda group: order.index(group[0]))
            figure = figures.curves(panels[:PANELS], epochs, metric)
            yield Picture("curves", "Learning curves: of every iteration, and of every epoch.", figure)
        elif self._choice.present:
            self.missing.append("curves: there is no event file (logger.tensorboard=false)")

    # ------------------------------------------------------------------------------------------------ which jobs

    def _table(self) -> Table | None:
        """The rows, if they are numbers with one target each."""
        if (first := self._choice.first()) is None or (config := self._config_of(first.number)) is None:
            return None
        if self._known is None:
            self._known = Table(config)
        return self._known if self._known.is_regression() else None


def _training(job: Job) -> float:
    value = (job.result.best or {}).get("train/" + job.result.metric.partition("/")[2])
    return math.nan if value is None else float(value)


def _within(steps: Numbers, values: Any) -> tuple[Numbers, Numbers]:
    """A curve without what cannot be drawn, and of a long one so many points that none is missed by the eye."""
    finite = np.isfinite(values) & (np.abs(values) < 1e30)
    steps, values = steps[finite], values[finite]
    step = -(-len(steps) // 2000)
    return (steps, values) if step <= 1 else (steps[::step], values[::step])
