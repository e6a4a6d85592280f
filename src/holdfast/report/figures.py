"""The figures of a run or a sweep: which there are, and the numbers in them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from holdfast.errors import in_a_line
from holdfast.report import plots, search_figures
from holdfast.report.comparison import MAX_PANELS, Comparison, number
from holdfast.report.fitted import ConfigOf, FittedFigures
from holdfast.report.parallel import parallel
from holdfast.report.read import JobRecords, Numbers
from holdfast.report.regression import ExactSolution
from holdfast.report.style import MAX_NAMED, Curve, NamedFigure
from holdfast.report.units import Units, units_of
from holdfast.single.build import is_table
from holdfast.sweeps.ended import Job
from holdfast.sweeps.rank import Ranking

MAX_AXES = 3
"""Swept keys that get their own figure of losses."""

MAX_POINTS = 2000
"""Points of one curve; of more, every n-th is drawn."""

MAX_KEYS = 8
"""Axes of the parallel coordinates, beside that of the metric."""

MAX_PARALLEL = 2000
"""Jobs drawn over parallel coordinates."""


class ReportFigures:
    """Draws the figures of one ranking.

    Args:
        ranking: the jobs, best first.
        records: curves, parameter paths and weights of the jobs.
        config_of: returns the configuration of a job, given its number.
        drawn: keys whose values a search has drawn.
    """

    def __init__(self, ranking: Ranking, records: JobRecords, config_of: ConfigOf, drawn: Sequence[str] = ()) -> None:
        self._ranking, self._records, self._config_of = ranking, records, config_of
        self._comparison = Comparison(ranking, records, drawn)
        self._fitted = FittedFigures(self._comparison, records, config_of)
        self._left_out: dict[str, list[str]] = {}  # the names of figures by the reason

    def draw(self) -> Iterator[NamedFigure]:
        """Draw all figures that the files allow; an error in one is noted in `missing`, and the others are drawn."""
        for draw in (
            self._best_so_far,
            self._searched,
            self._losses,
            self._heatmap,
            self._parallel,
            self._fitted.fits,
            self._fitted.residuals,
            self._fitted.confusion,
            self._fitted.coefficients,
            self._fitted.surface,
            self._bands,
            self._curves,
        ):
            try:
                yield from draw()
            except Exception as error:
                self._leave_out(draw.__name__.lstrip("_"), in_a_line(error))

    def least_squares(self) -> ExactSolution | None:
        """Solve least squares on the training rows; None if the rows are unknown or not for regression."""
        try:
            rows = self._fitted.regression_rows
            return rows.least_squares() if rows else None
        except Exception as error:
            self._leave_out("least squares", in_a_line(error))
            return None

    @property
    def missing(self) -> list[str]:
        """Why some figures could not be drawn."""
        return [f"{', '.join(names)}: {reason}" for reason, names in self._left_out.items()]

    def _leave_out(self, name: str, reason: str) -> None:
        self._left_out.setdefault(reason, []).append(name)

    @cached_property
    def _units(self) -> Units:
        """The names and units of the data of the jobs, which are the same of all."""
        config, best = self._config_of(self._ranking.jobs[0].number), self._comparison.best_with_weights()
        if config is None or not is_table(config):
            return Units()
        encoding = self._records.encoding(best.number) if best else None  # of a table that may be gone, or changed
        return Units.of_table(encoding) if encoding else units_of(config)

    # ------------------------------------------------------------------------------------- searches and repeats

    def _best_so_far(self) -> Iterator[NamedFigure]:
        """Plot the best metric so far against the number of trials, of a search."""
        if not self._comparison.drawn or (metric := self._metric) is None:
            return
        trials = sorted(self._ranking.settings, key=lambda each: min(job.number for job in each.jobs.values()))
        means = [math.nan if each.estimate is None else each.estimate.mean for each in trials]
        config = self._config_of(self._ranking.jobs[0].number)
        figure = search_figures.best_so_far(means, metric, config.mode if config else "min")
        caption = "What each trial led to, and the best so far: more trials help as long as the line goes on to fall."
        yield NamedFigure("best_so_far", caption, figure)

    def _searched(self) -> Iterator[NamedFigure]:
        """Plot the metric over each key whose values were drawn."""
        ranked = [each for each in self._ranking.settings if each.estimate is not None]
        if not self._comparison.drawn or len(ranked) < 2 or (metric := self._metric) is None:
            return
        firsts = [next(iter(each.jobs.values())) for each in ranked]
        keys = [(key, [number(job.given[key]) or 0.0 for job in firsts]) for key in self._comparison.drawn[:MAX_KEYS]]
        means = [each.estimate.mean for each in ranked if each.estimate is not None]
        caption = f"{metric} over each searched key; the star marks the winner."
        yield NamedFigure("searched", caption, search_figures.scatter(keys, means, metric, 0))

    def _bands(self) -> Iterator[NamedFigure]:
        """Plot the learning curves of the best settings, each with a band over its repeats."""
        best = [each for each in self._ranking.settings if each.estimate is not None and len(each.jobs) > 1][:MAX_NAMED]
        if not best or (metric := self._metric) is None:
            return
        numbers = [job.number for each in best for job in each.jobs.values()]
        curves_of, drawn = self._records.curves(numbers, (metric,)), []
        for each in best:
            found = [curves_of.get(job.number, {}).get(metric) for job in each.jobs.values()]
            if all(curve is not None for curve in found):
                values = [curve[1] for curve in found if curve is not None]
                epochs = min(map(len, values))  # a repeat may have ended earlier
                table = np.stack([value[:epochs] for value in values])
                error = table.std(0, ddof=1) / math.sqrt(len(table))
                label = self._comparison.label_of_settings(each)
                drawn.append(search_figures.Band(label, np.arange(epochs), table.mean(0), error))
        if drawn:
            caption = "Learning curves of the best settings: means over their repeats, with one standard error."
            yield NamedFigure("curves_of_settings", caption, search_figures.bands(drawn, metric))

    @property
    def _metric(self) -> str | None:
        """The name of the metric; None where every job failed."""
        return None if not self._comparison.present else self._ranking.jobs[0].result.metric

    # ------------------------------------------------------------------------------------- losses over swept keys

    def _losses(self) -> Iterator[NamedFigure]:
        if all(job.result.status == "failed" for job in self._ranking.jobs):
            return
        for key in [key for key in self._comparison.axes() if key not in self._comparison.drawn][:MAX_AXES]:
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
            loss=self._units.loss,
        )
        caption = f"Validation (filled) and training loss against {key}; the chosen job is the star."
        return NamedFigure(f"loss_{key.rpartition('.')[2]}", caption, figure)

    def _heatmap(self) -> Iterator[NamedFigure]:
        """Plot the metric over two swept keys; the key with more values is horizontal."""
        keys, winner = self._comparison.axes(), self._ranking.winner
        if len(keys) != 2 or winner is None or self._comparison.drawn:
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
        seeds = " (the median over repeats)" if self._ranking.has_repeats else ""
        caption = f"{winner.result.metric} over {x_key} and {y_key}{seeds}; the star marks the winner."
        figure = plots.heatmap((x_key, columns), (y_key, rows), table, cell(winner))
        yield NamedFigure("heatmap", caption, figure)

    def _parallel(self) -> Iterator[NamedFigure]:
        """Plot all settings as lines over the swept keys, if there are several."""
        ranked = [(each, each.estimate.mean) for each in self._ranking.settings if each.estimate][:MAX_PARALLEL]
        keys = [key for key in self._comparison.keys_of_settings if len(self._comparison.values(key)) > 1][:MAX_KEYS]
        if len(keys) < 2 or len(ranked) < 2:
            return
        jobs = [next(iter(each.jobs.values())) for each, _ in ranked]
        axes = []
        for key in keys:
            values = self._comparison.values(key)
            heights = {value: index / (len(values) - 1) for index, value in enumerate(values)}
            shown = [values[round(place)] for place in np.linspace(0, len(values) - 1, min(len(values), 7))]
            axes.append((key, [heights[job.given.get(key, "")] for job in jobs], shown))
        metric = jobs[0].result.metric
        figure = parallel(axes, (metric, [mean for _, mean in ranked]))
        left_out = f"The {len(jobs)} best" if len(jobs) == MAX_PARALLEL else "All"
        caption = f"{left_out} settings and what came of them; the values of a key are evenly spread."
        yield NamedFigure("parallel", caption, figure)

    # ------------------------------------------------------------------------------------- learning curves

    def _curves(self) -> Iterator[NamedFigure]:
        """Plot the loss of each iteration, in a panel for each batch size, and the metric of each epoch."""
        metric = self._ranking.jobs[0].result.metric
        groups: dict[str, list[Curve]] = {group: [] for group in self._comparison.groups()}
        epochs = []
        factor, loss = self._units.batch_loss
        lines = list(self._comparison.lines())
        curves_of = self._records.curves([job.number for job, _ in lines], ("train/loss_step", metric))
        for job, curve in lines:
            curves = curves_of.get(job.number, {})
            if "train/loss_step" in curves:
                steps, losses = curves["train/loss_step"]
                groups[self._comparison.group(job)].append(_with_points(curve, steps, losses * factor))
            if metric in curves:
                epochs.append(_with_points(curve, *curves[metric]))
        panels = [(group, lines) for group, lines in groups.items() if lines]
        if panels:
            figure = plots.curves(panels[:MAX_PANELS], epochs, metric, loss)
            yield NamedFigure("curves", "Learning curves: of every iteration, and of every epoch.", figure)
        elif self._comparison.present:
            self._leave_out("curves", "there is no event file (logger.tensorboard=false)")


def _training_loss(job: Job) -> float:
    """Return the training loss, or other metric, of the best epoch; NaN if it was not measured."""
    value = (job.result.best or {}).get("train/" + job.result.metric.partition("/")[2])
    return math.nan if value is None else float(value)


def _with_points(curve: Curve, steps: Numbers, values: Numbers) -> Curve:
    """Return a curve with the finite points, of many every n-th."""
    drawable = np.isfinite(values) & (np.abs(values) < 1e30)
    steps, values = steps[drawable], values[drawable]
    step = max(1, -(-len(steps) // MAX_POINTS))
    return replace(curve, x=steps[::step], y=values[::step])
