"""Figures of what models predict and of their parameters, from their weights and the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np
from torch import nn

from holdfast.config.schema import Config
from holdfast.report import coefficients, plots, regression
from holdfast.report.comparison import MAX_PANELS, Comparison
from holdfast.report.confusion import confusion_figure, confusion_matrix
from holdfast.report.read import JobRecords, Numbers
from holdfast.report.regression import SampledRows
from holdfast.report.style import Curve, NamedFigure
from holdfast.sweeps.ended import Job

MAX_RESIDUALS = 2000
"""Rows whose residuals are drawn; of more, every n-th."""

GRID = 40
"""Values of each parameter of a cost surface."""

ConfigOf = Callable[[int], Config | None]
"""Returns the configuration of a job, given its number; None if it cannot be composed again."""


class FittedFigures:
    """Draws the figures of the models of one ranking over its training and validation rows.

    Args:
        comparison: the jobs.
        records: parameter paths and weights of the jobs.
        config_of: returns the configuration of a job, given its number.
    """

    def __init__(self, comparison: Comparison, records: JobRecords, config_of: ConfigOf) -> None:
        self._comparison, self._records, self._config_of = comparison, records, config_of

    @cached_property
    def _best(self) -> tuple[Job, Config] | None:
        """The best job whose weights and configuration are known."""
        best = self._comparison.best_with_weights()
        config = None if best is None else self._config_of(best.number)
        return None if best is None or config is None else (best, config)

    @cached_property
    def _rows(self) -> SampledRows | None:
        """The rows of the best job; None if they are unknown, or neither a table nor for regression."""
        return regression.read_rows(self._best[1]) if self._best else None

    @property
    def regression_rows(self) -> SampledRows | None:
        """The rows of the best job; None if they are unknown or not for regression."""
        return self._rows if self._rows and not self._rows.units.classes else None

    @cached_property
    def _model(self) -> nn.Module:
        """The model of the best job."""
        assert self._best is not None, "the rows of this job exist"
        best, config = self._best
        return self._records.model(best.number, config)

    @property
    def _label(self) -> str:
        assert self._best is not None, "the rows of this job exist"
        return self._comparison.label(self._best[0])

    def fits(self) -> Iterator[NamedFigure]:
        """Plot the fitted line of each job over the rows, if there is one feature."""
        rows = self.regression_rows
        if rows is None or not rows.is_line:
            return
        units, x = rows.units, np.linspace(float(rows.train.x.min()), float(rows.train.x.max()), 100)[:, None]
        lines = []
        for job, curve in self._comparison.lines(lambda job: self._records.has_weights(job.number)):
            if (config := self._config_of(job.number)) is not None:
                prediction = regression.predict(self._records.model(job.number, config), rows.val.x.new_tensor(x))
                lines.append(replace(curve, x=units.x(x)[:, 0], y=units.y(prediction)[:, 0]))
        exact = rows.least_squares()
        line = Curve("least squares", units.x(x)[:, 0], units.y(x @ exact.weight + exact.bias)[:, 0])
        validation, training = ((units.x(split.x)[:, 0], units.y(split.y)[:, 0]) for split in (rows.val, rows.train))
        figure = plots.fits(validation, training, lines, line, units.names)
        yield NamedFigure("fit", f"What was fitted, over the rows.{rows.note('train', 'val')}", figure)

    def residuals(self) -> Iterator[NamedFigure]:
        """Plot the residuals of the best job, if there are several features or targets."""
        rows = self.regression_rows
        if rows is None or rows.is_line:
            return
        step = -(-len(rows.val.x) // MAX_RESIDUALS)
        names = rows.units.targets[:MAX_PANELS]
        actual, predicted = (
            rows.units.y(values)[::step, : len(names)]
            for values in (rows.val.y, regression.predict(self._model, rows.val.x))
        )
        figure = plots.residuals(actual, predicted, self._label, names)
        shown = f", one in {step} of them" if step > 1 else ""
        left_out = len(rows.units.targets) - len(names)
        more = f" {left_out} more targets are not shown." if left_out else ""
        yield NamedFigure("residuals", f"Predictions of validation rows{shown}.{more}{rows.note('val')}", figure)

    def confusion(self) -> Iterator[NamedFigure]:
        """Plot the confusion matrix of the best job, if the target of a table has classes."""
        rows = self._rows
        if rows is None or not rows.units.classes:
            return
        classes, (target,) = rows.units.classes, rows.units.targets
        predicted = regression.predict(self._model, rows.val.x).argmax(1)
        counts = confusion_matrix(rows.val.y, predicted, len(classes))
        hits, count = int(counts.trace()), int(counts.sum())
        caption = (
            f"Validation rows by their actual and their predicted class: {hits:,} of {count:,} ({hits / count:.1%}) "
            f"are predicted right.{rows.note('val')}"
        )
        yield NamedFigure("confusion", caption, confusion_figure(counts, classes, target, self._label))

    def coefficients(self) -> Iterator[NamedFigure]:
        """Plot the coefficients of the best job, if it is a linear model of a table."""
        rows = self._rows
        if rows is None or not rows.units.inputs or not isinstance(layer := self._model.network, nn.Linear):
            return
        fitted = coefficients.coefficients_of(layer, rows.units)
        figure = coefficients.coefficients_figure(fitted, rows.units.x(rows.train.x).std(0), rows.units)
        caption = f"{coefficients.caption_of(fitted, rows.units)}{rows.note('train')}"
        yield NamedFigure("coefficients", caption, figure)

    def surface(self) -> Iterator[NamedFigure]:
        """Plot the cost over two parameters, and the parameter paths of a few jobs."""
        rows = self.regression_rows
        jobs = self._comparison.panels(lambda job: self._records.has_parameter_path(job.number))
        if rows is None or not jobs or (config := self._config_of(jobs[0].number)) is None:
            return
        paths = [path for job in jobs if (path := self._records.parameter_path(job.number)) is not None]
        points = np.concatenate(paths)
        if rows.is_line:
            exact = rows.least_squares()
            points = np.concatenate([points, [[exact.weight[0, 0], exact.bias[0]]]])
        first, second = _grid_around(points)
        surface = regression.cost_surface(config, rows, first, second)
        if surface is None:
            return
        names, cost = surface
        if rows.units.inputs:  # in the units of a table, the contours would be too narrow to see a way between them
            names = (f"{names[0]}, standardised", f"{names[1]}, standardised")
        titles = [self._comparison.label(job) for job in jobs]
        figure = plots.surface(names, (first, second, cost), list(zip(titles, paths, strict=True)))
        note = rows.note("train")
        caption = f"The cost over {'these' if note else 'all'} training rows, and the way of each job down it.{note}"
        yield NamedFigure("surface", caption, figure)


def _grid_around(points: Numbers) -> tuple[Numbers, Numbers]:
    """Return values of both parameters that cover nearly all points, and the last one, with a margin."""
    low, high = np.percentile(points[np.isfinite(points).all(1)], [0.5, 99.5], axis=0)
    low, high = np.minimum(low, points[-1]), np.maximum(high, points[-1])
    margin = np.maximum(0.15 * (high - low), 0.5)
    first, second = (np.linspace(low[k] - margin[k], high[k] + margin[k], GRID) for k in range(2))
    return first, second
