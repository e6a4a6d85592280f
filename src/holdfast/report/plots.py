"""One function for each kind of figure: numbers in, a matplotlib figure out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from holdfast.report import style
from holdfast.report.style import COLOURS, MARKERS, Curve, finite_values, literal, styled

Numbers = NDArray[np.float64]

STAR: Any = {"color": "#ffcc00", "markeredgecolor": "black"}


@dataclass(frozen=True)
class Outcomes:
    """The losses of the jobs that share one value of a second swept key, against the first key.

    Attributes:
        label: the shared value, such as `batch_size=5`; "" if there is no second key.
        x: the first key's value of each job, shape `(jobs,)`.
        validation, training: the losses, NaN where there is none, shape `(jobs,)`.
    """

    label: str
    x: Sequence[float]
    validation: Sequence[float]
    training: Sequence[float]


@styled
def losses(
    key: str,
    groups: Sequence[Outcomes],
    *,
    metric: str,
    chosen: tuple[float, float] | None,
    diverged: Sequence[float],
    ticks: Sequence[str] | None = None,
    loss: str = "mean squared error, units of y²",
) -> Figure:
    """Plot validation and training loss against a swept key.

    Where several jobs share a value, such as jobs that differ in the seed, the line connects their medians.

    Args:
        key: the swept key.
        groups: the jobs, at most ten groups.
        metric: the name of the validation metric.
        chosen: x and metric of the winner.
        diverged: x of the diverged jobs.
        ticks: labels of the values if they are not all numbers; x is then the index in `ticks`.
        loss: the loss in words, with its unit.
    """
    figure, (axes,) = style.new_figure(1, width=6.4, height=3.9)
    heights = [value for group in groups for value in (*group.validation, *group.training)]
    style.scale_axis(axes, "x", [] if ticks else [*(x for group in groups for x in group.x), *diverged])
    style.scale_axis(axes, "y", heights)
    for index, group in enumerate(groups):
        _plot_outcomes(axes, group, index, metric, "training" if len(groups) < 3 else None)
    if len(groups) >= 3:
        axes.plot([], [], "--", color="#777777", marker="o", markerfacecolor="white", label="training (dashed)")
    if diverged:
        x, y = np.unique(diverged), np.full(len(set(diverged)), 0.97)  # y as a fraction of the height of the axes
        axes.plot(x, y, "x", color="#a00000", transform=axes.get_xaxis_transform(), label="diverged")
    if chosen is not None:
        axes.plot(*chosen, "*", **STAR, markersize=14, zorder=5, label="chosen")
    if ticks:
        axes.set_xticks(range(len(ticks)), labels=list(ticks))
    style.set_labels(axes, key, f"loss ({loss})" if metric.endswith("/loss") else metric)
    if not np.isfinite(heights).any():
        axes.text(0.5, 0.5, "no job has a finite loss", ha="center", transform=axes.transAxes)
        axes.set_yticks([])
    style.add_legend(axes)
    return figure


def _plot_outcomes(axes: Axes, group: Outcomes, index: int, metric: str, training: str | None) -> None:
    """Plot a group's medians as lines, validation solid and training dashed, and single jobs as dots."""
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
    for values, dashes, face, name in (
        (group.validation, "-", colour, metric),
        (group.training, "--", "white", training),
    ):
        x, y = _medians(group.x, values)
        label = f"{group.label} {name}".strip() if name else None
        axes.plot(x, y, dashes, color=colour, marker=marker, markersize=4.5, markerfacecolor=face, label=label)
        if len(x) < len(group.x):
            axes.plot(group.x, values, ".", color=colour, markersize=2, alpha=0.35, zorder=1)


@styled
def heatmap(
    x: tuple[str, Sequence[str]], y: tuple[str, Sequence[str]], values: ArrayLike, chosen: tuple[int, int] | None
) -> Figure:
    """Plot the metric over two swept keys.

    Args:
        x, y: the keys, each with its values as text.
        values: the metric, NaN where no job completed, shape `(rows, columns)`.
        chosen: row and column of the winner.
    """
    (x_key, columns), (y_key, rows) = x, y
    table = np.asarray(values, dtype=np.float64)
    figure, (axes,) = style.new_figure(1, width=6.4, height=min(6.0, 1.6 + 0.36 * len(rows)))
    finite = finite_values(table)
    is_log = len(finite) > 0 and 0 < finite.min() < finite.max()
    norm = LogNorm(finite.min(), finite.max()) if is_log else Normalize()
    axes.set_facecolor("#eeeeee")
    mesh = axes.pcolormesh(np.ma.masked_invalid(table), norm=norm, cmap="viridis_r", edgecolors="white", linewidth=0.5)
    if len(finite):
        figure.colorbar(mesh, ax=axes, label="validation metric")
    for (row, column), value in np.ndenumerate(table) if table.size <= 60 else ():
        is_dark = np.isfinite(value) and float(norm(value)) > 0.5
        text = f"{value:.3g}" if np.isfinite(value) else "diverged"
        axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", size=7, color="w" if is_dark else "k")
    if chosen is not None:
        row, column = chosen
        axes.plot(column + 0.5, row + 0.9, "*", **STAR, markersize=11, clip_on=False)
    for axis, labels in ((axes.xaxis, columns), (axes.yaxis, rows)):
        step = -(-len(labels) // 7)
        axis.set_ticks(np.arange(0, len(labels), step) + 0.5, labels=[style.shorten(label) for label in labels[::step]])
    axes.grid(visible=False)
    style.set_labels(axes, x_key, y_key)
    return figure


@styled
def fits(
    validation: tuple[ArrayLike, ArrayLike],
    training: tuple[ArrayLike, ArrayLike],
    lines: Sequence[Curve],
    exact: Curve,
    names: tuple[str, str] = ("x", "y"),
) -> Figure:
    """Plot fitted lines over the rows of data with one feature.

    Args:
        validation, training: x and y of the rows, each of shape `(rows,)`.
        lines: the predictions of the jobs.
        exact: the predictions of least squares.
        names: of x and y.
    """
    figure, (axes,) = style.new_figure(1, width=6.4, height=3.9)
    axes.plot(*training, "o", color="#bbbbbb", markersize=4, markerfacecolor="none", label="training rows")
    axes.plot(*validation, ".", color="#555555", markersize=5, label="validation rows")
    style.draw_curves(axes, lines)
    axes.plot(exact.x, exact.y, ":", color="black", linewidth=1.6, label=exact.label, zorder=3)
    heights = np.concatenate([np.asarray(y, dtype=np.float64) for _, y in (validation, training)])
    low, high = heights.min(), heights.max()
    # limits from the rows alone, so that one bad fit does not flatten the others
    axes.set_ylim(low - 0.1 * (high - low) - 1e-9, high + 0.1 * (high - low) + 1e-9)
    style.set_labels(axes, *map(literal, names))
    style.add_legend(axes)
    return figure


@styled
def curves(
    groups: Sequence[tuple[str, Sequence[Curve]]],
    epochs: Sequence[Curve],
    metric: str,
    loss: str = "training loss of the batch",
) -> Figure:
    """Plot learning curves: the loss of each iteration, one panel per group, and the metric of each epoch.

    Args:
        groups: title and curves over iterations of each group of jobs.
        epochs: curves of the validation metric over epochs.
        metric: the name of the validation metric.
        loss: the name of the loss of an iteration.
    """
    figure, axes = style.new_figure(len(groups) + 1, width=3.0 * (len(groups) + 1) + 0.6, height=3.5)
    heights = _heights([line for _, lines in groups for line in lines])
    for index, (panel, (title, lines)) in enumerate(zip(axes, groups, strict=False)):
        style.scale_axis(panel, "y", heights)
        for line in lines:
            panel.plot(line.x, line.y, color="#777777", linewidth=0.4, alpha=0.35, zorder=1)
        style.draw_curves(panel, [replace(line, y=_smooth(line.y)) for line in lines if line.label])
        style.limit_losses(panel, heights)
        style.set_labels(panel, "iteration", loss if index == 0 else "", title)
        if index:
            panel.sharey(axes[0])
            panel.tick_params(labelleft=False)
    last = axes[-1]
    style.scale_axis(last, "y", _heights(epochs))
    if last.get_yscale() == "log":
        style.limit_losses(last, _heights(epochs))
    style.draw_curves(last, epochs, marker="." if max((np.size(line.x) for line in epochs), default=0) <= 30 else "")
    style.set_labels(last, "epoch", "", f"{metric} after every epoch")
    for panel in axes:
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    style.add_legend(last, max_inside=1)
    return figure


@styled
def residuals(actual: ArrayLike, predicted: ArrayLike, label: str, names: Sequence[str] = ("y",)) -> Figure:
    """Plot predicted against actual values of validation rows, and the residuals against the predicted values.

    Args:
        actual, predicted: shape `(rows,)`, or `(rows, targets)` for a row of panels for each target.
        label: the name of the job.
        names: of the targets.
    """
    figure, axes = style.new_figure(2, width=6.8, height=3.4 * len(names), rows=len(names))
    columns = (np.asarray(values, dtype=np.float64).reshape(-1, len(names)).T for values in (actual, predicted))
    panels = zip(axes[::2], axes[1::2], *columns, map(literal, names), strict=True)
    for index, (left, right, y, prediction, name) in enumerate(panels):
        left.plot(y, prediction, ".", color=COLOURS[0], markersize=4)
        ends = [float(min(y.min(), prediction.min())), float(max(y.max(), prediction.max()))]
        left.plot(ends, ends, "--", color="#555555", linewidth=1)
        style.set_labels(left, f"actual {name}", f"predicted {name}", "" if index else label)
        right.plot(prediction, y - prediction, ".", color=COLOURS[1], markersize=4)
        right.axhline(0, color="#555555", linestyle="--", linewidth=1)
        style.set_labels(right, f"predicted {name}", f"actual - predicted {name}", "" if index else "residuals")
    return figure


@styled
def surface(
    names: tuple[str, str], grid: tuple[Numbers, Numbers, Numbers], paths: Sequence[tuple[str, ArrayLike]]
) -> Figure:
    """Plot contours of the cost over two parameters, and the parameter path of each job in its own panel.

    Args:
        names: the names of the parameters.
        grid: values of the first parameter, of the second, and the cost, of shape `(second, first)`.
        paths: title and parameter path of each job, the path of shape `(points, 2)`.
    """
    first, second, cost = grid
    figure, axes = style.new_figure(len(paths), width=max(4.2, 2.9 * len(paths)), height=3.3)
    finite = finite_values(cost)
    # the cost is quadratic near its minimum: levels even in its square root are evenly spaced in the parameters
    levels = finite.min() + (finite.max() - finite.min()) * np.linspace(0.02, 1, 14) ** 2
    for index, (panel, (title, points)) in enumerate(zip(axes, paths, strict=True)):
        path = np.asarray(points, dtype=np.float64)
        panel.contour(first, second, cost, levels=levels, cmap="viridis_r", linewidths=0.7)
        panel.plot(path[:, 0], path[:, 1], "-", color=COLOURS[1], marker=".", markersize=2.5, linewidth=0.8)
        panel.plot(*path[0], "o", color="black", markersize=5, label="start")
        panel.plot(*path[-1], "*", **STAR, markersize=11, label="end")
        panel.set(xlim=(first[0], first[-1]), ylim=(second[0], second[-1]))
        style.set_labels(panel, names[0], names[1] if index == 0 else "", title)
    style.add_legend(axes[0])
    return figure


def _medians(x: Sequence[float], y: Sequence[float]) -> tuple[Numbers, Numbers]:
    """Return the distinct x that have a finite y, and the median of the finite y at each."""
    positions, values = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    positions, values = positions[np.isfinite(values)], finite_values(values)
    distinct = np.unique(positions)
    return distinct, np.array([np.median(values[positions == position]) for position in distinct])


def _smooth(y: ArrayLike) -> Numbers:
    """Return the moving average over a thirtieth of the curve: the loss of a small batch is noisy."""
    values = np.asarray(y, dtype=np.float64)
    width = max(1, len(values) // 30)
    if width == 1:
        return values
    sums = np.convolve(values, np.ones(width), mode="same")
    return sums / np.convolve(np.ones(len(values)), np.ones(width), mode="same")


def _heights(lines: Sequence[Curve]) -> list[float]:
    return [float(value) for line in lines for value in np.asarray(line.y, dtype=np.float64)]
