"""Figures show the numbers they get, and stay readable with many lines, few, or none."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from holdfast.report import plots
from holdfast.report.style import COLOURS, Curve, png


def line(axes: Axes, label: str) -> tuple[list[float], list[float]]:
    (artist,) = [artist for artist in axes.lines if artist.get_label() == label]
    return [float(x) for x in artist.get_xdata()], [float(y) for y in artist.get_ydata()]  # type: ignore[union-attr]


def test_a_loss_line_connects_the_medians_of_jobs_that_share_a_value() -> None:
    group = plots.Outcomes("", [0.1, 0.1, 0.1, 1.0], [3.0, 1.0, 2.0, 5.0], [1.0, 1.0, 4.0, np.nan])
    figure = plots.losses("lr", [group], metric="val/loss", chosen=(0.1, 1.0), diverged=[10.0, 10.0])
    (axes,) = figure.axes
    assert line(axes, "val/loss") == ([0.1, 1.0], [2.0, 5.0])
    assert line(axes, "training") == ([0.1], [1.0])
    assert line(axes, "chosen") == ([0.1], [1.0])
    assert line(axes, "diverged") == ([10.0], [0.97])
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "lr")


def test_a_metric_that_is_not_positive_has_a_linear_axis() -> None:
    group = plots.Outcomes("", [1.0, 20.0], [-0.5, 0.9], [np.nan, np.nan])
    (axes,) = plots.losses("batch_size", [group], metric="val/r2", chosen=None, diverged=[]).axes
    assert (axes.get_yscale(), axes.get_ylabel()) == ("linear", "val/r2")


def test_a_figure_without_a_finite_loss_has_a_note() -> None:
    figure = plots.losses("lr", [], metric="val/loss", chosen=None, diverged=[1.0, 2.0])
    assert [text.get_text() for text in figure.axes[0].texts] == ["no job has a finite loss"]
    assert line(figure.axes[0], "diverged")[0] == [1.0, 2.0]


def test_a_heatmap_shows_its_table() -> None:
    table = [[1.0, np.nan, 3.0], [4.0, 5.0, 6.0]]
    figure = plots.heatmap(("lr", ["0.1", "1", "10"]), ("batch_size", ["1", "full"]), table, (0, 2))
    axes = figure.axes[0]
    shown = np.ma.filled(axes.collections[0].get_array(), np.nan).reshape(2, 3)
    np.testing.assert_array_equal(shown, table)
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["1", "diverged", "3", "4", "5", "6"]
    assert [float(x) for x in axes.lines[0].get_xdata()] == [2.5]  # type: ignore[union-attr]


@pytest.mark.parametrize("count", [1, 5, 10])
def test_named_lines_differ_in_colour(count: int) -> None:
    x = np.arange(5.0)
    lines = [Curve(f"job {number}", x, x * number, number == 0, number) for number in range(count)]
    (axes,) = plots.fits((x, x), (x, x), lines, Curve("least squares", x, x)).axes
    colours = [line.get_color() for line in axes.lines if str(line.get_label()).startswith("job ")]
    assert len(set(colours)) == count <= len(COLOURS)
    widths = {str(line.get_label()): line.get_linewidth() for line in axes.lines}
    assert all(widths["job 0"] > width for label, width in widths.items() if label != "job 0")


def test_a_thousand_unnamed_lines_are_one_collection_and_a_small_file() -> None:
    x = np.linspace(-3, 3, 100)
    lines = [Curve("", x, x * slope) for slope in np.linspace(-5, 5, 1000)]
    figure = plots.fits((x, x), (x, x), [*lines, Curve("best", x, x, is_winner=True)], Curve("least squares", x, x))
    (thin,) = [part for part in figure.axes[0].collections if isinstance(part, LineCollection)]
    assert len(thin.get_segments()) == 1000
    np.testing.assert_allclose(thin.get_segments()[3][:, 1], x * np.linspace(-5, 5, 1000)[3])
    data = png(figure)
    assert data.startswith(b"\x89PNG")
    assert len(data) < 200_000


def test_a_diverging_learning_curve_does_not_stretch_the_shared_axis() -> None:
    steps = np.arange(300.0)
    good = Curve("good", steps, 10 * 0.99**steps, colour=0)
    diverging = Curve("diverging", steps[:20], 10.0 ** steps[:20], colour=1)
    figure = plots.curves([("batch_size=1", [good]), ("batch_size=5", [diverging])], [good], "val/loss")
    first, second, epochs = figure.axes
    assert first.get_ylim() == second.get_ylim()
    assert first.get_ylim()[1] < 1e7
    np.testing.assert_array_equal(line(epochs, "good")[1], good.y)
    raw = [line for line in first.lines if line.get_label() != "good"]
    np.testing.assert_array_equal(raw[0].get_ydata(), good.y)  # type: ignore[arg-type]


def test_residuals_are_actual_minus_predicted() -> None:
    actual, predicted = np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.0, 2.0])
    left, right = plots.residuals(actual, predicted, "job 0").axes
    np.testing.assert_array_equal(left.lines[0].get_ydata(), predicted)  # type: ignore[arg-type]
    np.testing.assert_array_equal(right.lines[0].get_ydata(), [-0.5, 0.0, 1.0])  # type: ignore[arg-type]


def test_a_surface_shows_the_parameter_path_from_start_to_end() -> None:
    first, second = np.linspace(-3, 3, 20), np.linspace(-2, 2, 15)
    cost = first[None] ** 2 + second[:, None] ** 2
    path = np.array([[2.0, 1.0], [1.0, 0.5], [0.0, 0.0]])
    figure = plots.surface(("weight", "bias"), (first, second, cost), [("batch_size=1", path), ("full", path / 2)])
    assert [axes.get_title() for axes in figure.axes] == ["batch_size=1", "full"]
    artist = figure.axes[1].lines[0]
    np.testing.assert_array_equal(np.column_stack([artist.get_xdata(), artist.get_ydata()]), path / 2)
    assert line(figure.axes[0], "start") == ([2.0], [1.0])
    assert line(figure.axes[0], "end") == ([0.0], [0.0])


def test_every_axis_has_a_label() -> None:
    x = np.arange(3.0)
    curve = Curve("a", x, x + 1)
    figures = [
        plots.fits((x, x), (x, x), [curve], curve),
        plots.curves([("every iteration", [curve])], [curve], "val/loss"),
        plots.residuals(x, x, "a"),
        plots.surface(("weight", "bias"), (x, x, np.add.outer(x, x)), [("a", np.ones((2, 2)))]),
    ]
    for figure in figures:
        assert all(axes.get_xlabel() for axes in figure.axes)
