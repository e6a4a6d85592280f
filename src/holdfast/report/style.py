"""The style of all figures: colours, axes, lines, legends.

The colours are those of Okabe and Ito, which colour-blind readers can tell apart; lines also differ in their markers
or dashes. At most `MAX_NAMED` lines have a label, the others are thin and grey.
"""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from PIL import Image

P = ParamSpec("P")

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#882255", "#999933", "#332288", "#000000")
MARKERS = "osD^vP*Xhp"
STYLE: Any = {
    "font.size": 9.0,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.8,
    "legend.fontsize": 8.0,
    "axes.titlesize": 9.5,
    "figure.dpi": 100.0,
    "path.simplify_threshold": 0.5,
}
MAX_NAMED = 10
"""Lines with a label in one figure."""

MAX_LETTERS = 32
"""Letters of a name of the user's."""


@dataclass(frozen=True)
class Curve:
    """One line of a figure.

    Attributes:
        label: its name in the legend; "" for a thin grey line.
        x, y: its points, each of shape `(points,)`.
        is_winner: whether it belongs to the winner, and is drawn thick.
        colour: index of its colour, the same in all panels and figures.
    """

    label: str
    x: ArrayLike
    y: ArrayLike
    is_winner: bool = False
    colour: int = 0


@dataclass(frozen=True)
class NamedFigure:
    """A figure with its file name, without `.png`, and its caption."""

    name: str
    caption: str
    figure: Figure


def _rc_context() -> Any:
    return mpl.rc_context({**mpl.rcParamsDefault, "backend": "agg", **STYLE})


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Decorate a function that draws a figure: it uses this style, whatever the user's matplotlibrc contains."""

    @functools.wraps(draw)
    def draw_styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with _rc_context():
            return draw(*args, **kwargs)

    return draw_styled


def png(figure: Figure) -> bytes:
    """Render a figure as a PNG file."""
    canvas, stream = FigureCanvasAgg(figure), io.BytesIO()
    with _rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name that the font cannot write is drawn as boxes
        canvas.draw()  # type: ignore[no-untyped-call]
    # 128 colours make the file of a crowded figure three times smaller
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    image = Image.fromarray(pixels).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    image.save(stream, format="png", optimize=True)
    return stream.getvalue()


def new_figure(columns: int, width: float, height: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """Make an empty figure with axes side by side, and in rows, from the first row to the last; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def draw_curves(axes: Axes, curves: Sequence[Curve], marker: str = "") -> None:
    """Draw curves; those without a label are one collection behind the others."""
    thin = [np.column_stack([curve.x, curve.y]) for curve in curves if not curve.label]
    if thin:
        axes.add_collection(LineCollection(thin, colors="#999999", linewidths=0.4, alpha=0.5, zorder=1))
        axes.autoscale_view()
    for curve in (curve for curve in curves if curve.label):
        style: dict[str, Any] = {"linewidth": 2.6, "zorder": 4} if curve.is_winner else {"linewidth": 1.3, "zorder": 3}
        dashes = "-" if curve.is_winner else ("-", "--", "-.")[curve.colour // 3 % 3]
        colour = COLOURS[curve.colour % len(COLOURS)]
        axes.plot(curve.x, curve.y, dashes, color=colour, label=curve.label, marker=marker, **style)


def scale_axis(axes: Axes, axis: str, values: Sequence[float]) -> None:
    """Make the "x" or "y" axis logarithmic if the finite values are positive and span a factor of 10."""
    finite = finite_values(values)
    if len(finite) and finite.min() > 0 and finite.max() >= 10 * finite.min():
        axes.set(**{f"{axis}scale": "log"})


def finite_values(values: ArrayLike) -> NDArray[np.float64]:
    """Return the values that are neither NaN nor infinite, in one dimension."""
    array = np.asarray(values, dtype=np.float64)
    return array[np.isfinite(array)]


def set_labels(axes: Axes, x: str, y: str, title: str = "") -> None:
    """Set the labels of both axes, and the title, with one word per line if it is long."""
    axes.set(xlabel=x, ylabel=y, title=title.replace(" ", "\n") if len(title) > 26 else title)


def literal(name: str) -> str:
    """Return a name of the user's for matplotlib: a dollar begins no formula, on one line, and cut where it is long.

    >>> print(literal("price of a house or of a flat in Euro"))
    price of a house or of a flat...
    """
    line = " ".join(name.split())
    return (line if len(line) <= MAX_LETTERS else f"{line[: MAX_LETTERS - 3]}...").replace("$", r"\$")


def shorten(text: str) -> str:
    """Return a typed value, a long number rounded to three digits.

    >>> shorten("0.152641796718"), shorten("full")
    ('0.153', 'full')
    """
    try:
        return text if len(text) < 6 else f"{float(text):.3g}"
    except ValueError:
        return text


def limit_losses(axes: Axes, losses: Sequence[float]) -> None:
    """Limit the y-axis to losses between 0 and 1e6, so that a diverging curve does not flatten the others."""
    finite = np.array([loss for loss in losses if 0 < loss < 1e6])
    if len(finite):
        low, high = np.percentile(finite, [0.5, 99.5]) if len(finite) > 200 else (finite.min(), finite.max())
        axes.set_ylim(0.5 * low, 2.0 * high)


def add_legend(axes: Axes, max_inside: int = 4) -> None:
    """Add a legend: inside the axes up to `max_inside` labels, otherwise beside them."""
    _, labels = axes.get_legend_handles_labels()
    if 0 < len(labels) <= max_inside:
        axes.legend()
    elif labels:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), borderaxespad=0.0)
