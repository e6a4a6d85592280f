"""Figures, drawn from numbers; which numbers, `pictures` says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from holdfast.report.style import COLOURS, MARKERS, Curve, canvas, caption, draw, legend, limits, scale, short, styled

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of jobs against one swept key, of those that share a value of another.

    Attributes:
        label: what they share; "" if nothing else was swept.
        x: the value of each job, shape `(jobs,)`.
        validation, training: the loss of each, NaN where it has none, shape `(jobs,)`.
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
) -> Figure:
    """Validation and training loss against a swept key: the figure that says which value to take.

    Where several jobs share a value, such as those of several seeds, the line goes through their median.

    Args:
        key: what was swept.
        groups: the jobs, at most ten groups.
        metric: the name of the validation metric.
        chosen: value and metric of the winner.
        diverged: the values of jobs that diverged.
        ticks: the names of values that are no numbers; `x` then counts them.
    """
    figure, (axes,) = canvas(1, width=6.4, height=3.9)
    places = [value for group in groups for value in group.x] + list(diverged)
    heights = [value for group in groups for value in (*group.validation, *group.training)]
    scale(axes, "x", [] if ticks else places)
    scale(axes, "y", heights)
    for number, group in enumerate(groups):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        for values, dashes, kind in ((group.validation, "-", metric), (group.training, "--", "training")):
            x, y = _medians(group.x, values)
            label = f"{group.label} {kind}".strip() if len(groups) < 3 or kind == metric else None
            face = colour if dashes == "-" else "white"
            axes.plot(x, y, dashes, color=colour, marker=marker, markersize=4.5, markerfacecolor=face, label=label)
            if len(x) < len(group.x):
                axes.plot(group.x, values, ".", color=colour, markersize=2, alpha=0.35, zorder=1)
    if len(groups) >= 3:
        axes.plot([], [], "--", color="#777777", marker="o", markerfacecolor="white", label="training (dashed)")
    if diverged:
        top = axes.get_xaxis_transform()  # along x in values, along y in shares of the axes
        crosses = np.unique(diverged)
        axes.plot(crosses, np.full(len(crosses), 0.97), "x", color="#a00000", transform=top, label="diverged")
    if chosen is not None:
        axes.plot(*chosen, "*", color="#ffcc00", markeredgecolor="black", markersize=14, zorder=5, label="chosen")
    if ticks:
        axes.set_xticks(range(len(ticks)), labels=list(ticks))
    caption(axes, key, "loss (mean squared error, units of y²)" if metric.endswith("/loss") else metric)
    if not any(np.isfinite(value) for value in heights):
        axes.text(0.5, 0.5, "no job has a finite loss", ha="center", transform=axes.transAxes)
        axes.set_yticks([])
    legend(axes)
    return figure


@styled
def heatmap(
    x: tuple[str, Sequence[str]], y: tuple[str, Sequence[str]], values: ArrayLike, chosen: tuple[int, int] | None
) -> Figure:
    """The metric over two swept keys.

    Args:
        x, y: the keys, each with its values as text.
        values: the metric, NaN where no job completed, shape `(rows, columns)`.
        chosen: row and column of the winner.
    """
    (across, columns), (up, rows) = x, y
    table = np.asarray(values, dtype=np.float64)
    figure, (axes,) = canvas(1, width=6.4, height=min(6.0, 1.6 + 0.36 * len(rows)))
    known = table[np.isfinite(table)]
    positive = len(known) > 0 and bool((known > 0).all()) and known.min() < known.max()
    norm = LogNorm(known.min(), known.max()) if positive else Normalize()
    axes.set_facecolor("#eeeeee")
    mesh = axes.pcolormesh(np.ma.masked_invalid(table), norm=norm, cmap="viridis_r", edgecolors="white", linewidth=0.5)
    if len(known):
        figure.colorbar(mesh, ax=axes, label="validation metric")
    if table.size <= 60:
        for (row, column), value in np.ndenumerate(table):
            dark = np.isfinite(value) and float(norm(value)) > 0.5
            text = f"{value:.3g}" if np.isfinite(value) else "diverged"
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", size=7, color="w" if dark else "k")
    if chosen is not None:
        row, column = chosen
        axes.plot(column + 0.5, row + 0.9, "*", color="#ffcc00", markeredgecolor="black", markersize=11, clip_on=False)
    for axis, labels in ((axes.xaxis, columns), (axes.yaxis, rows)):
        step = -(-len(labels) // 7)
        axis.set_ticks(np.arange(0, len(labels), step) + 0.5, labels=[short(name) for name in labels[::step]])
    axes.grid(visible=False)
    caption(axes, across, up)
    return figure


@styled
def fits(
    validation: tuple[ArrayLike, ArrayLike],
    training: tuple[ArrayLike, ArrayLike],
    lines: Sequence[Curve],
    exact: Curve,
) -> Figure:
    """Fitted lines over the rows of one-feature data, the winner's heavy.

    Args:
        validation, training: x and y of the rows, each of shape `(rows,)`.
        lines: what was fitted.
        exact: the line of least squares.
    """
    figure, (axes,) = canvas(1, width=6.4, height=3.9)
    axes.plot(*training, "o", color="#bbbbbb", markersize=4, markerfacecolor="none", label="training rows")
    axes.plot(*validation, ".", color="#555555", markersize=5, label="validation rows")
    draw(axes, lines)
    axes.plot(exact.x, exact.y, ":", color="black", linewidth=1.6, label=exact.label, zorder=3)
    heights = np.concatenate([np.asarray(y, dtype=np.float64) for _, y in (validation, training)])
    low, high = heights.min(), heights.max()
    axes.set_ylim(low - 0.1 * (high - low) - 1e-9, high + 0.1 * (high - low) + 1e-9)  # one bad fit hides no other
    caption(axes, "x", "y")
    legend(axes)
    return figure


@styled
def curves(groups: Sequence[tuple[str, Sequence[Curve]]], epochs: Sequence[Curve], metric: str) -> Figure:
    """Learning curves: the loss of every iteration, a panel for each group of jobs, and the metric of every epoch.

    Args:
        groups: titles, with the curves of jobs over iterations.
        epochs: curves of the validation metric over epochs.
        metric: its name.
    """
    figure, axes = canvas(len(groups) + 1, width=3.0 * (len(groups) + 1) + 0.6, height=3.5)
    heights = _heights([line for _, each in groups for line in each])
    for place, (one, (title, lines)) in enumerate(zip(axes, groups, strict=False)):
        scale(one, "y", heights)
        for line in lines:
            one.plot(line.x, line.y, color="#777777", linewidth=0.4, alpha=0.35, zorder=1)
        draw(one, [replace(line, y=_smooth(line.y)) for line in lines if line.label])
        limits(one, heights)
        one.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        caption(one, "iteration", "training loss of the batch" if place == 0 else "", title)
        if place:
            one.sharey(axes[0])
            one.tick_params(labelleft=False)
    last = axes[-1]
    scale(last, "y", _heights(epochs))
    if last.get_yscale() == "log":
        limits(last, _heights(epochs))
    draw(last, epochs, marker="." if max((np.size(line.x) for line in epochs), default=0) <= 30 else "")
    last.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    caption(last, "epoch", "", f"{metric} after every epoch")
    legend(last, inside=1)
    return figure


@styled
def residuals(actual: ArrayLike, predicted: ArrayLike, label: str) -> Figure:
    """Predicted against actual values of validation rows, and what is left over.

    Args:
        actual, predicted: shape `(rows,)`.
        label: whose prediction it is.
    """
    y, guess = np.asarray(actual, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    figure, (left, right) = canvas(2, width=6.8, height=3.4)
    left.plot(y, guess, ".", color=COLOURS[0], markersize=4)
    ends = [float(min(y.min(), guess.min())), float(max(y.max(), guess.max()))]
    left.plot(ends, ends, "--", color="#555555", linewidth=1)
    caption(left, "actual y", "predicted y", label)
    right.plot(guess, y - guess, ".", color=COLOURS[1], markersize=4)
    right.axhline(0, color="#555555", linestyle="--", linewidth=1)
    caption(right, "predicted y", "actual - predicted y", "residuals")
    return figure


@styled
def surface(
    names: tuple[str, str], grid: tuple[Numbers, Numbers, Numbers], descents: Sequence[tuple[str, ArrayLike]]
) -> Figure:
    """Contours of the cost over two parameters, and the ways that jobs took down it, a panel each.

    Args:
        names: of the parameters.
        grid: the values of the first, of the second, and the cost, of shape `(second, first)`.
        descents: titles, with points of shape `(points, 2)`.
    """
    first, second, cost = grid
    figure, axes = canvas(len(descents), width=max(4.2, 2.9 * len(descents)), height=3.3)
    known = cost[np.isfinite(cost)]
    low, high = known.min(), known.max()
    # the bowl is flat at its bottom: levels that lie evenly in the root of the cost lie evenly in space
    levels = low + (high - low) * np.linspace(0.02, 1, 14) ** 2
    for place, (one, (title, points)) in enumerate(zip(axes, descents, strict=True)):
        way = np.asarray(points, dtype=np.float64)
        one.contour(first, second, cost, levels=levels, cmap="viridis_r", linewidths=0.7)
        one.plot(way[:, 0], way[:, 1], "-", color=COLOURS[1], marker=".", markersize=2.5, linewidth=0.8)
        one.plot(*way[0], "o", color="black", markersize=5, label="start")
        one.plot(*way[-1], "*", color="#ffcc00", markeredgecolor="black", markersize=11, label="end")
        one.set(xlim=(first[0], first[-1]), ylim=(second[0], second[-1]))
        caption(one, names[0], names[1] if place == 0 else "", title)
    legend(axes[0])
    return figure


def _medians(x: Sequence[float], y: Sequence[float]) -> tuple[Numbers, Numbers]:
    """Each value of x, with the median of the finite y there."""
    places, values = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    finite = np.isfinite(values)
    at = np.unique(places[finite])
    return at, np.array([np.median(values[finite & (places == place)]) for place in at])


def _smooth(y: ArrayLike) -> Numbers:
    """The mean over a window of a thirtieth of the curve: single rows jump, their mean tells."""
    values = np.asarray(y, dtype=np.float64)
    width = max(1, len(values) // 30)
    if width == 1:
        return values
    sums = np.convolve(values, np.ones(width), mode="same")
    return sums / np.convolve(np.ones(len(values)), np.ones(width), mode="same")


def _heights(lines: Sequence[Curve]) -> list[float]:
    return [float(value) for line in lines for value in np.asarray(line.y, dtype=np.float64)]
