"""Figures hold the numbers they were given, and stay readable with many lines, few, or none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from holdfast.report import figures
from holdfast.report.style import COLOURS, Curve, png


def drawn(axes: Axes, label: str) -> tuple[list[float], list[float]]:
    (line,) = [line for line in axes.lines if line.get_label() == label]
    return [float(x) for x in line.get_xdata()], [float(y) for y in line.get_ydata()]  # type: ignore[union-attr]


def test_losses_go_through_the_median_of_jobs_that_share_a_value() -> None:
    group = figures.Outcomes("", [0.1, 0.1, 0.1, 1.0], [3.0, 1.0, 2.0, 5.0], [1.0, 1.0, 4.0, np.nan])
    figure = figures.losses("lr", [group], metric="val/loss", chosen=(0.1, 1.0), diverged=[10.0, 10.0])
    (axes,) = figure.axes
    assert drawn(axes, "val/loss") == ([0.1, 1.0], [2.0, 5.0])
    assert drawn(axes, "training") == ([0.1], [1.0])
    assert drawn(axes, "chosen") == ([0.1], [1.0])
    assert drawn(axes, "diverged") == ([10.0], [0.97])
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "lr")


def test_a_metric_that_is_not_positive_has_a_plain_axis() -> None:
    group = figures.Outcomes("", [1.0, 20.0], [-0.5, 0.9], [np.nan, np.nan])
    (axes,) = figures.losses("batch_size", [group], metric="val/r2", chosen=None, diverged=[]).axes
    assert (axes.get_yscale(), axes.get_ylabel()) == ("linear", "val/r2")


def test_without_a_finite_loss_a_figure_says_so() -> None:
    figure = figures.losses("lr", [], metric="val/loss", chosen=None, diverged=[1.0, 2.0])
    assert [text.get_text() for text in figure.axes[0].texts] == ["no job has a finite loss"]
    assert drawn(figure.axes[0], "diverged")[0] == [1.0, 2.0]


def test_a_heat_map_holds_its_table() -> None:
    table = [[1.0, np.nan, 3.0], [4.0, 5.0, 6.0]]
    figure = figures.heatmap(("lr", ["0.1", "1", "10"]), ("batch_size", ["1", "full"]), table, (0, 2))
    axes = figure.axes[0]
    held = np.ma.filled(axes.collections[0].get_array(), np.nan).reshape(2, 3)
    np.testing.assert_array_equal(held, table)
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["1", "diverged", "3", "4", "5", "6"]
    assert [float(x) for x in axes.lines[0].get_xdata()] == [2.5]  # type: ignore[union-attr]


@pytest.mark.parametrize("count", [1, 5, 10])
def test_named_lines_differ_in_colour(count: int) -> None:
    x = np.arange(5.0)
    lines = [Curve(f"job {number}", x, x * number, number == 0, number) for number in range(count)]
    (axes,) = figures.fits((x, x), (x, x), lines, Curve("least squares", x, x)).axes
    colours = [line.get_color() for line in axes.lines if str(line.get_label()).startswith("job ")]
    assert len(set(colours)) == count <= len(COLOURS)
    widths = {str(line.get_label()): line.get_linewidth() for line in axes.lines}
    assert all(widths["job 0"] > width for label, width in widths.items() if label != "job 0")


def test_a_thousand_nameless_lines_are_one_object_and_few_bytes() -> None:
    x = np.linspace(-3, 3, 100)
    lines = [Curve("", x, x * slope) for slope in np.linspace(-5, 5, 1000)]
    figure = figures.fits((x, x), (x, x), [*lines, Curve("best", x, x, chosen=True)], Curve("least squares", x, x))
    (thin,) = [part for part in figure.axes[0].collections if isinstance(part, LineCollection)]
    assert len(thin.get_segments()) == 1000
    np.testing.assert_allclose(thin.get_segments()[3][:, 1], x * np.linspace(-5, 5, 1000)[3])
    data = png(figure)
    assert data.startswith(b"\x89PNG")
    assert len(data) < 200_000


def test_learning_curves_share_an_axis_that_one_diverging_line_does_not_stretch() -> None:
    steps = np.arange(300.0)
    good = Curve("good", steps, 10 * 0.99**steps, colour=0)
    lost = Curve("lost", steps[:20], 10.0 ** steps[:20], colour=1)
    figure = figures.curves([("batch_size=1", [good]), ("batch_size=5", [lost])], [good], "val/loss")
    first, second, epochs = figure.axes
    assert first.get_ylim() == second.get_ylim()
    assert first.get_ylim()[1] < 1e7
    np.testing.assert_array_equal(drawn(epochs, "good")[1], good.y)
    raw = [line for line in first.lines if line.get_label() != "good"]
    np.testing.assert_array_equal(raw[0].get_ydata(), good.y)  # type: ignore[arg-type]


def test_residuals_are_what_is_left_over() -> None:
    actual, predicted = np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.0, 2.0])
    left, right = figures.residuals(actual, predicted, "job 0").axes
    np.testing.assert_array_equal(left.lines[0].get_ydata(), predicted)  # type: ignore[arg-type]
    np.testing.assert_array_equal(right.lines[0].get_ydata(), [-0.5, 0.0, 1.0])  # type: ignore[arg-type]


def test_a_surface_shows_the_way_from_start_to_end() -> None:
    first, second = np.linspace(-3, 3, 20), np.linspace(-2, 2, 15)
    cost = first[None] ** 2 + second[:, None] ** 2
    way = np.array([[2.0, 1.0], [1.0, 0.5], [0.0, 0.0]])
    figure = figures.surface(("weight", "bias"), (first, second, cost), [("batch_size=1", way), ("full", way / 2)])
    assert [axes.get_title() for axes in figure.axes] == ["batch_size=1", "full"]
    line = figure.axes[1].lines[0]
    np.testing.assert_array_equal(np.column_stack([line.get_xdata(), line.get_ydata()]), way / 2)
    assert drawn(figure.axes[0], "start") == ([2.0], [1.0])
    assert drawn(figure.axes[0], "end") == ([0.0], [0.0])


def named_axes(parts: Sequence[Axes]) -> list[str]:
    return [axes.get_xlabel() for axes in parts]


def test_every_axis_has_a_name() -> None:
    x = np.arange(3.0)
    line = Curve("a", x, x + 1)
    made = [
        figures.fits((x, x), (x, x), [line], line),
        figures.curves([("every iteration", [line])], [line], "val/loss"),
        figures.residuals(x, x, "a"),
        figures.surface(("weight", "bias"), (x, x, np.add.outer(x, x)), [("a", np.ones((2, 2)))]),
    ]
    for figure in made:
        assert all(named_axes(figure.axes))
