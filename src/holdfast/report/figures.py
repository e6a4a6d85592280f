"""The figures of a run or a sweep: which there are, and the numbers in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from matplotlib.figure import Figure

from holdfast.config.schema import Config
from holdfast.errors import in_a_line
from holdfast.report import plots, regression
from holdfast.report.comparison import MAX_PANELS, Comparison, number
from holdfast.report.parallel import parallel
from holdfast.report.read import JobRecords, Numbers
from holdfast.report.regression import ExactSolution, RegressionRows
from holdfast.report.style import Curve
from holdfast.sweeps.rank import Job, Ranking

MAX_AXES = 3
"""Swept keys that get their own figure of losses."""

MAX_POINTS = 2000
"""Points of one curve, or of the residuals; of more, every n-th is drawn."""

MAX_KEYS = 8
"""Axes of the parallel coordinates, beside that of the metric."""

MAX_PARALLEL = 2000
"""Jobs drawn over parallel coordinates."""

GRID = 40
"""Values of each parameter of a cost surface."""

ConfigOf = Callable[[int], Config | None]
"""Returns the configuration of a job, given its number; None if it cannot be composed again."""


@dataclass(frozen=True)
class NamedFigure:
    """A figure with its file name, without `.png`, and its caption."""

    name: str
    caption: str
    figure: Figure


class ReportFigures:
    """Draws the figures of one ranking.

    Args:
        ranking: the jobs, best first.
        records: curves, parameter paths and weights of the jobs.
        config_of: returns the configuration of a job, given its number.

    Attributes:
        missing: why some figures could not be drawn.
    """

    def __init__(self, ranking: Ranking, records: JobRecords, config_of: ConfigOf) -> None:
        self._ranking, self._records, self._config_of = ranking, records, config_of
        self._comparison = Comparison(ranking, records)
        self.missing: list[str] = []

    def draw(self) -> Iterator[NamedFigure]:
        """Draw all figures that the files allow; an error in one is noted in `missing`, and the others are drawn."""
        for draw in (
            self._losses,
            self._heatmap,
            self._parallel,
            self._fits,
            self._residuals,
            self._surface,
            self._curves,
        ):
            try:
                yield from draw()
            except Exception as error:
                self.missing.append(f"{draw.__name__.lstrip('_')}: {in_a_line(error)}")

    def least_squares(self) -> ExactSolution | None:
        """Solve least squares on the training rows; None if the rows are unknown or not for regression."""
        try:
            return self._rows.least_squares() if self._rows else None
        except Exception as error:
            self.missing.append(f"least squares: {in_a_line(error)}")
            return None

    @cached_property
    def _rows(self) -> RegressionRows | None:
        """The rows of the best job with weights; None if they are unknown or not for regression."""
        best = self._comparison.best_with_weights()
        config = None if best is None else self._config_of(best.number)
        return None if config is None else regression.read_rows(config)

    # ------------------------------------------------------------------------------------- losses over swept keys

    def _losses(self) -> Iterator[NamedFigure]:
        if all(job.result.status == "failed" for job in self._ranking.jobs):
            return
        for key in self._comparison.axes()[:MAX_AXES]:
            yield self._losses_over(key)

    def _losses_over(self, key: str) -> NamedFigure:
        """Plot the losses over one swept key, with a line for each value of another."""
        values = self._comparison.values(key)
        has_names = any(number(value) is None for value in values)  # such as batch_size=full, or optimizer=adam
        x = {value: float(index if has_names else value) for index, value in enumerate(values)}
        group_key = self._comparison.group_key(key)
        labels = [f"{group_key}={value}" for value in self._comparison.values(group_key)] if group_key else [""]
        groups: dict[str, list[tuple[float, float, float]]] = {label: [] for label in labels}
        for job in self._ranking.jobs:
            if job.value is not None:
                label = f"{group_key}={job.given[group_key]}" if group_key else ""
                groups[label].append((x[job.given[key]], job.value, _training_loss(job)))
        winner = self._ranking.winner
        figure = plots.losses(
            key,
            [plots.Outcomes(label, *zip(*sorted(points), strict=True)) for label, points in groups.items() if points],
            metric=self._ranking.jobs[0].result.metric,
            chosen=(x[winner.given[key]], winner.value) if winner and winner.value is not None else None,
            diverged=[x[job.given[key]] for job in self._ranking.jobs if job.result.status == "diverged"],
            ticks=values if has_names else None,
        )
        caption = f"Validation (filled) and training loss against {key}; the chosen job is the star."
        return NamedFigure(f"loss_{key.rpartition('.')[2]}", caption, figure)

    def _heatmap(self) -> Iterator[NamedFigure]:
        """Plot the metric over two swept keys; the key with more values is horizontal."""
        keys, winner = self._comparison.axes(), self._ranking.winner
        if len(keys) != 2 or winner is None:
            return
        x_key, y_key = sorted(keys, key=lambda key: -len(self._comparison.values(key)))
        columns, rows = self._comparison.values(x_key), self._comparison.values(y_key)

        def cell(job: Job) -> tuple[int, int]:
            return rows.index(job.given[y_key]), columns.index(job.given[x_key])

        metrics: dict[tuple[int, int], list[float]] = {}
        for job in self._ranking.jobs:
            if job.value is not None:
                metrics.setdefault(cell(job), []).append(job.value)
        table = np.full((len(rows), len(columns)), np.nan)
        for index, values in metrics.items():
            table[index] = np.median(values)
        seeds = " (the median over seeds)" if "seed" in self._comparison.keys else ""
        caption = f"{winner.result.metric} over {x_key} and {y_key}{seeds}; the star marks the winner."
        figure = plots.heatmap((x_key, columns), (y_key, rows), table, cell(winner))
        yield NamedFigure("heatmap", caption, figure)

    def _parallel(self) -> Iterator[NamedFigure]:
        """Plot all jobs as lines over the swept keys, if there are several."""
        jobs = [job for job in self._ranking.jobs if job.value is not None][:MAX_PARALLEL]
        keys = [key for key in self._comparison.keys if len(self._comparison.values(key)) > 1][:MAX_KEYS]
        if len(keys) < 2 or len(jobs) < 2:
            return
        axes = []
        for key in keys:
            values = self._comparison.values(key)
            heights = {value: index / (len(values) - 1) for index, value in enumerate(values)}
            shown = [values[round(place)] for place in np.linspace(0, len(values) - 1, min(len(values), 7))]
            axes.append((key, [heights[job.given.get(key, "")] for job in jobs], shown))
        metric = jobs[0].result.metric
        figure = parallel(axes, (metric, [job.value or 0.0 for job in jobs]))
        left_out = f" of the {len(jobs)} best" if len(jobs) == MAX_PARALLEL else ""
        caption = f"The settings{left_out} of the jobs and what came of them; the values of a key are evenly spread."
        yield NamedFigure("parallel", caption, figure)

    # ------------------------------------------------------------------------------------- predictions and parameters

    def _fits(self) -> Iterator[NamedFigure]:
        """Plot the fitted line of each job over the rows, if there is one feature."""
        rows = self._rows
        if rows is None or rows.val.x.shape[1] != 1:
            return
        x = np.linspace(float(rows.train.x.min()), float(rows.train.x.max()), 100)
        lines = []
        for job, curve in self._comparison.lines(lambda job: self._records.has_weights(job.number)):
            if (config := self._config_of(job.number)) is not None:
                model = self._records.model(job.number, config)
                lines.append(replace(curve, x=x, y=regression.predict(model, rows.val.x.new_tensor(x[:, None]))))
        exact = rows.least_squares()
        line = Curve("least squares", x, x * exact.weight[0] + exact.bias)
        validation, training = ((split.x[:, 0].numpy(), split.y[:, 0].numpy()) for split in (rows.val, rows.train))
        caption = f"What was fitted, over the rows.{rows.note('train', 'val')}"
        yield NamedFigure("fit", caption, plots.fits(validation, training, lines, line))

    def _residuals(self) -> Iterator[NamedFigure]:
        """Plot the residuals of the best job, if there are several features."""
        rows, best = self._rows, self._comparison.best_with_weights()
        if rows is None or rows.val.x.shape[1] == 1 or best is None:
            return
        config = self._config_of(best.number)
        assert config is not None, "the rows of this job exist"
        prediction = regression.predict(self._records.model(best.number, config), rows.val.x)
        step = -(-len(prediction) // MAX_POINTS)
        actual = rows.val.y[::step, 0].numpy()
        figure = plots.residuals(actual, prediction[::step], self._comparison.label(best))
        shown = f", one in {step} of them" if step > 1 else ""
        yield NamedFigure("residuals", f"Predictions of validation rows{shown}.{rows.note('val')}", figure)

    def _surface(self) -> Iterator[NamedFigure]:
        """Plot the cost over two parameters, and the parameter paths of a few jobs."""
        rows = self._rows
        jobs = self._comparison.panels(lambda job: self._records.has_parameter_path(job.number))
        if rows is None or not jobs or (config := self._config_of(jobs[0].number)) is None:
            return
        paths = [path for job in jobs if (path := self._records.parameter_path(job.number)) is not None]
        points = np.concatenate(paths)
        if rows.val.x.shape[1] == 1:
            exact = rows.least_squares()
            points = np.concatenate([points, [[exact.weight[0], exact.bias]]])
        first, second = _grid_around(points)
        surface = regression.cost_surface(config, rows, first, second)
        if surface is not None:
            names, cost = surface
            titles = [self._comparison.label(job) for job in jobs]
            figure = plots.surface(names, (first, second, cost), list(zip(titles, paths, strict=True)))
            note = rows.note("train")
            caption = (
                f"The cost over {'these' if note else 'all'} training rows, and the way of each job down it.{note}"
            )
            yield NamedFigure("surface", caption, figure)

    # ------------------------------------------------------------------------------------- learning curves

    def _curves(self) -> Iterator[NamedFigure]:
        """Plot the loss of each iteration, in a panel for each batch size, and the metric of each epoch."""
        metric = self._ranking.jobs[0].result.metric
        groups: dict[str, list[Curve]] = {group: [] for group in self._comparison.groups()}
        epochs = []
        lines = list(self._comparison.lines())
        curves_of = self._records.curves([job.number for job, _ in lines], ("train/loss_step", metric))
        for job, curve in lines:
            curves = curves_of.get(job.number, {})
            if "train/loss_step" in curves:
                groups[self._comparison.group(job)].append(_with_points(curve, *curves["train/loss_step"]))
            if metric in curves:
                epochs.append(_with_points(curve, *curves[metric]))
        panels = [(group, lines) for group, lines in groups.items() if lines]
        if panels:
            figure = plots.curves(panels[:MAX_PANELS], epochs, metric)
            yield NamedFigure("curves", "Learning curves: of every iteration, and of every epoch.", figure)
        elif self._comparison.present:
            self.missing.append("curves: there is no event file (logger.tensorboard=false)")


def _training_loss(job: Job) -> float:
    """Return the training loss, or other metric, of the best epoch; NaN if it was not measured."""
    value = (job.result.best or {}).get("train/" + job.result.metric.partition("/")[2])
    return math.nan if value is None else float(value)


def _grid_around(points: Numbers) -> tuple[Numbers, Numbers]:
    """Return values of both parameters that cover nearly all points, and the last one, with a margin."""
    low, high = np.percentile(points[np.isfinite(points).all(1)], [0.5, 99.5], axis=0)
    low, high = np.minimum(low, points[-1]), np.maximum(high, points[-1])
    margin = np.maximum(0.15 * (high - low), 0.5)
    first, second = (np.linspace(low[k] - margin[k], high[k] + margin[k], GRID) for k in range(2))
    return first, second


def _with_points(curve: Curve, steps: Numbers, values: Numbers) -> Curve:
    """Return a curve with the finite points, of many every n-th."""
    drawable = np.isfinite(values) & (np.abs(values) < 1e30)
    steps, values = steps[drawable], values[drawable]
    step = max(1, -(-len(steps) // MAX_POINTS))
    return replace(curve, x=steps[::step], y=values[::step])
