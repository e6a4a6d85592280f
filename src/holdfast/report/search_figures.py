"""Figures of many settings: the best so far, the metric over drawn values, and learning curves with their repeats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from holdfast.report import style
from holdfast.report.style import COLOURS, styled

COLUMNS = 4
"""Panels in a row."""

_STAR: Any = {"color": "#ffcc00", "markeredgecolor": "black", "markersize": 14, "zorder": 5, "linestyle": "none"}


class Band(NamedTuple):
    """The learning curves of some settings, over their repeats.

    Attributes:
        label: the settings.
        epochs: shape `(epochs,)`.
        mean, error: of the metric over the repeats, and its standard error, each of shape `(epochs,)`.
    """

    label: str
    epochs: ArrayLike
    mean: NDArray[np.float64]
    error: NDArray[np.float64]


@styled
def best_so_far(values: ArrayLike, metric: str, mode: str) -> Figure:
    """Plot what each trial led to, and the best of the trials so far.

    Args:
        values: the metric of each trial in the order in which they were drawn, NaN where there is none.
        metric: its name.
        mode: "min" or "max".
    """
    values = np.asarray(values, dtype=np.float64)
    best = (np.fmin if mode == "min" else np.fmax).accumulate(values)
    figure, (axes,) = style.new_figure(1, width=6.4, height=3.6)
    trials = np.arange(1, len(values) + 1)
    style.scale_axis(axes, "y", [float(value) for value in values])
    axes.plot(trials, values, ".", color="#999999", markersize=4, label="a trial")
    axes.step(trials, best, where="post", color=COLOURS[0], linewidth=2, label="the best so far")
    finite = style.finite_values(values)
    if len(finite) > 8:  # a trial that almost diverged would flatten the others
        low, high = np.percentile(finite, [0, 90] if mode == "min" else [10, 100])
        margin = 0.05 * (high - low)
        axes.set_ylim(*((low * 0.97, high * 1.05) if axes.get_yscale() == "log" else (low - margin, high + margin)))
    style.set_labels(axes, "trials", metric)
    style.add_legend(axes)
    return figure


@styled
def scatter(keys: Sequence[tuple[str, ArrayLike]], values: ArrayLike, metric: str, chosen: int) -> Figure:
    """Plot the metric over each searched key, in a panel each.

    Args:
        keys: the name of each key, and its value in each settings, shape `(settings,)`.
        values: the metric of each settings, shape `(settings,)`.
        metric: its name.
        chosen: the index of the winner's.
    """
    columns, rows = min(COLUMNS, len(keys)), -(-len(keys) // COLUMNS)
    figure, panels = style.new_figure(columns, width=max(4.2, 2.6 * columns), height=2.9 * rows, rows=rows)
    values = np.asarray(values, dtype=np.float64)
    for index, (panel, (key, given)) in enumerate(zip(panels, keys, strict=False)):
        x = np.asarray(given, dtype=np.float64)
        style.scale_axis(panel, "x", [float(value) for value in x])
        style.scale_axis(panel, "y", [float(value) for value in values])
        panel.plot(x, values, ".", color=COLOURS[0], markersize=3, alpha=0.6)
        panel.plot(x[chosen], values[chosen], "*", **_STAR)
        style.set_labels(panel, key, metric if index % COLUMNS == 0 else "")
    for panel in panels[len(keys) :]:
        panel.set_visible(False)
    return figure


@styled
def bands(settings: Sequence[Band], metric: str) -> Figure:
    """Plot the mean learning curve of some settings, with a band of one standard error over their repeats.

    Args:
        settings: the best first.
        metric: the name of the metric.
    """
    figure, (axes,) = style.new_figure(1, width=6.8, height=3.9)
    style.scale_axis(axes, "y", [float(value) for each in settings for value in each.mean])
    for index, each in enumerate(settings):
        colour = COLOURS[index % len(COLOURS)]
        axes.fill_between(each.epochs, each.mean - each.error, each.mean + each.error, color=colour, alpha=0.15, lw=0)
        axes.plot(each.epochs, each.mean, color=colour, linewidth=2.4 if index == 0 else 1.1, label=each.label)
    style.set_labels(axes, "epoch", f"mean {metric}")
    style.add_legend(axes, max_inside=0)
    return figure
