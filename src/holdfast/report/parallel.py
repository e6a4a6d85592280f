"""Parallel coordinates: what many settings have come to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from holdfast.report import style
from holdfast.report.style import styled


@styled
def parallel(axes_of: Sequence[tuple[str, ArrayLike, Sequence[str]]], metric: tuple[str, ArrayLike]) -> Figure:
    """Plot jobs as lines over parallel axes: one for each swept key, and the last for the metric, which colours them.

    Args:
        axes_of: for each key its name, the height of each job on its axis, from 0 to 1, shape `(jobs,)`, and labels,
            evenly spread.
        metric: its name, and its value for each job, shape `(jobs,)`; the first job is the winner.
    """
    name, values = metric[0], np.asarray(metric[1], dtype=np.float64)
    is_log = 0 < values.min() < values.max()
    norm = LogNorm(values.min(), values.max()) if is_log else Normalize(values.min(), values.max() or 1.0)
    heights = np.column_stack([*(heights for _, heights, _ in axes_of), norm(values)])  # (jobs, axes)
    figure, (axes,) = style.new_figure(1, width=1.6 * heights.shape[1] + 1.6, height=3.8)
    x = np.arange(heights.shape[1])
    lines = np.stack([np.broadcast_to(x, heights.shape), heights], axis=2)[::-1]  # the winner last, above the others
    width = 0.3 if len(lines) > 300 else 0.9
    collection = LineCollection(list(lines), array=values[::-1], norm=norm, cmap="viridis_r", linewidths=width)
    axes.add_collection(collection)
    axes.plot(x, heights[0], color="k", linewidth=1.8)
    for position, (_, _, labels) in enumerate(axes_of):
        axes.axvline(position, color="#999999", linewidth=0.8)
        for height, label in zip(np.linspace(0, 1, len(labels)), labels, strict=True):
            axes.text(position - 0.04, height, style.shorten(label), ha="right", va="center", size=7)
    figure.colorbar(collection, ax=axes, label=name)
    axes.set_xticks(x, labels=[*(key for key, _, _ in axes_of), name])
    axes.set_yticks([])
    axes.set(xlim=(-0.5, x[-1] + 0.1), ylim=(-0.05, 1.05))
    axes.grid(visible=False)
    return figure
