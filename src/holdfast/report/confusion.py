"""The confusion matrix of a classification, as numbers and as a figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from holdfast.report import style
from holdfast.report.style import literal, styled

MAX_COUNTED = 20
"""Classes up to which each cell shows its number of rows."""

MAX_CLASS_NAMES = 40
"""Classes that are named on an axis; of more, every n-th."""


def confusion_matrix(actual: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Count rows by their actual and their predicted class.

    Args:
        actual, predicted: class codes, shape `(rows,)`.
        classes: number of classes.

    Returns:
        The number of rows of each actual class, down, and each predicted class, across; shape `(classes, classes)`.

    >>> confusion_matrix([0, 0, 1], [0, 1, 1], 2).tolist()
    [[1, 1], [0, 1]]
    """
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (np.asarray(actual), np.asarray(predicted)), 1)
    return counts


@styled
def confusion_figure(counts: NDArray[np.int64], classes: Sequence[str], target: str, label: str) -> Figure:
    """Plot a confusion matrix, coloured by the share of each actual class.

    Args:
        counts: what `confusion_matrix` returned.
        classes: names of the classes.
        target: name of the target.
        label: name of the job.
    """
    size = min(9.0, 3.0 + 0.35 * len(classes))
    figure, (axes,) = style.new_figure(1, width=size + 1.2, height=size)
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    figure.colorbar(image, ax=axes, label="share of the actual class")
    for (row, column), count in np.ndenumerate(counts) if len(classes) <= MAX_COUNTED else ():
        axes.text(column, row, str(count), ha="center", va="center", color="w" if shares[row, column] > 0.5 else "k")
    step = -(-len(classes) // MAX_CLASS_NAMES)
    ticks, names = range(0, len(classes), step), [literal(name) for name in classes[::step]]
    axes.set_xticks(ticks, labels=names, rotation=90 if max(map(len, names)) > 10 * size / len(names) else 0)
    axes.set_yticks(ticks, labels=names)
    axes.grid(visible=False)
    style.set_labels(axes, f"predicted {literal(target)}", f"actual {literal(target)}", label)
    return figure
