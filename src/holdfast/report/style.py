"""How every figure looks: colours, axes, lines, legends.

Colours are those of Okabe and Ito, told apart by colour-blind eyes; what is compared also differs in its marker or its
dashes. At most ten lines have a name, the others are thin and grey.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
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
NAMED = 10
"""Most lines with a name."""


@dataclass(frozen=True)
class Curve:
    """One line of a figure.

    Attributes:
        label: its name; "" for one of the many that have none.
        x, y: where it goes, each of shape `(points,)`.
        chosen: whether it is the winner's, and drawn heavy.
        colour: the number of its colour, the same in every panel and figure.
    """

    label: str
    x: ArrayLike
    y: ArrayLike
    chosen: bool = False
    colour: int = 0


def _all() -> Any:
    return {**mpl.rcParamsDefault, "backend": "agg", **STYLE}


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw in the style of this module, whatever the user's own matplotlibrc says."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(_all()):
            return draw(*args, **kwargs)

    return drawn


def png(figure: Figure) -> bytes:
    """A figure as a PNG file."""
    canvas, stream = FigureCanvasAgg(figure), io.BytesIO()
    with mpl.rc_context(_all()):
        canvas.draw()  # type: ignore[no-untyped-call]
    # of so few colours that a busy figure takes a third of the bytes
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    image = Image.fromarray(pixels).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    image.save(stream, format="png", optimize=True)
    return stream.getvalue()


def canvas(number: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """An empty figure with so many axes side by side; width and height in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, number, squeeze=False)[0])


def draw(axes: Axes, lines: Sequence[Curve], width: float = 1.3, marker: str = "") -> None:
    """Lines, the nameless ones thin and behind the others, as one object."""
    thin = [np.column_stack([line.x, line.y]) for line in lines if not line.label]
    if thin:
        axes.add_collection(LineCollection(thin, colors="#999999", linewidths=0.4, alpha=0.5, zorder=1))
        axes.autoscale_view()
    for line in (line for line in lines if line.label):
        style: dict[str, Any] = {"linewidth": 2.6 if line.chosen else width, "zorder": 4 if line.chosen else 3}
        dashes = "-" if line.chosen else ("-", "--", "-.")[line.colour // 3 % 3]
        axes.plot(line.x, line.y, dashes, color=COLOURS[line.colour % 10], label=line.label, marker=marker, **style)


def scale(axes: Axes, axis: str, values: Sequence[float]) -> None:
    """A logarithmic axis where values are positive and a decade apart."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    if len(known) and known.min() > 0 and known.max() >= 10 * known.min():
        axes.set(**{f"{axis}scale": "log"})


def caption(axes: Axes, x: str, y: str, title: str = "") -> None:
    """Name the axes."""
    axes.set(xlabel=x, ylabel=y, title=title.replace(" ", "\n") if len(title) > 26 else title)


def short(text: str) -> str:
    """A value as typed, in three digits if it is a number.

    >>> short("0.152641796718"), short("full")
    ('0.153', 'full')
    """
    try:
        return text if len(text) < 6 else f"{float(text):.3g}"
    except ValueError:
        return text


def limits(axes: Axes, heights: Sequence[float]) -> None:
    """Bounds for what has a finite loss: a line on its way to infinity shows the way, and hides no other."""
    known = np.array([value for value in heights if 0 < value < 1e6])
    if len(known):
        ends = np.percentile(known, [0.5, 99.5]) if len(known) > 200 else (known.min(), known.max())
        axes.set_ylim(0.5 * ends[0], 2.0 * ends[1])


def legend(axes: Axes, inside: int = 4) -> None:
    """Names of lines: inside the axes if they are few, up to so many, else beside them."""
    _, labels = axes.get_legend_handles_labels()
    if 0 < len(labels) <= inside:
        axes.legend()
    elif labels:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), borderaxespad=0.0)
