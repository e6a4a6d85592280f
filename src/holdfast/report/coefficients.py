"""The coefficients of a linear model in the units of its table, as numbers and as a figure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from holdfast.report import style
from holdfast.report.comparison import MAX_PANELS
from holdfast.report.read import Numbers
from holdfast.report.style import COLOURS, literal, styled
from holdfast.report.units import Units

MAX_INPUTS = 25
"""Inputs that are drawn; of more, those whose bars are longest."""


class Coefficients(NamedTuple):
    """A linear model f(x) = intercept + x per_unit of the columns of a table.

    For a regression f(x) are the targets in their units. For two classes it is the log-odds of the second, and for
    more classes the log-odds of each against the geometric mean of all: only these differences decide.

    Attributes:
        inputs: names of the inputs.
        outputs: name of each f(x).
        per_unit: change of f(x) where an input grows by 1 in the units of the table, shape `(inputs, outputs)`.
        intercept: f(x) where all inputs are 0 in the units of the table, shape `(outputs,)`.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    per_unit: Numbers
    intercept: Numbers


def coefficients_of(layer: nn.Linear, units: Units) -> Coefficients:
    """The coefficients of a linear layer that was trained on standardised columns.

    With inputs (x - mean) / scale, a weight w becomes w / scale per unit of x; targets multiply it by their scale.

    >>> layer = nn.Linear(1, 1)
    >>> _ = nn.init.constant_(layer.weight, 3.0), nn.init.constant_(layer.bias, 1.0)
    >>> of_x, of_y = (np.array([10.0]), np.array([2.0])), (np.array([100.0]), np.array([4.0]))
    >>> coefficients = coefficients_of(layer, Units(("x",), ("y",), (), *of_x, *of_y))
    >>> coefficients.per_unit.tolist(), coefficients.intercept.tolist()  # y = 100 + 4 * (1 + 3 * (x - 10) / 2)
    ([[6.0]], [44.0])
    """
    assert layer.bias is not None, "the linear model has a bias"
    weight = np.asarray(layer.weight.detach().double().T)  # (inputs, outputs)
    bias = np.asarray(layer.bias.detach().double())
    outputs = units.classes or units.targets
    if len(units.classes) == 2:
        weight, bias, outputs = weight[:, 1:] - weight[:, :1], bias[1:] - bias[:1], units.classes[1:]
    elif units.classes:
        weight, bias = weight - weight.mean(1, keepdims=True), bias - bias.mean()
    else:
        weight, bias = weight * units.y_scale, bias * units.y_scale + units.y_mean
    per_unit = weight / units.x_scale[:, None]
    return Coefficients(units.inputs, outputs, per_unit, bias - units.x_mean @ per_unit)


def caption_of(coefficients: Coefficients, units: Units) -> str:
    """What the figure shows, with the intercepts."""
    what = "the log-odds of a class" if units.classes else " or ".join(units.targets[:MAX_PANELS])
    intercepts = ", ".join(
        f"{value:.6g}" if len(coefficients.outputs) == 1 else f"{name} {value:.6g}"
        for name, value in zip(coefficients.outputs[:MAX_PANELS], coefficients.intercept, strict=False)
    )
    inputs, outputs = len(coefficients.inputs), len(coefficients.outputs)
    fewer = f" The {MAX_INPUTS} longest of {inputs} inputs." if inputs > MAX_INPUTS else ""
    fewer += f" The first {MAX_PANELS} of {outputs}." if outputs > MAX_PANELS else ""
    against = " Log-odds are against the mean over the classes." if len(units.classes) > 2 else ""
    return (
        f"Coefficients: a bar is the change of {what} with one standard deviation of an input among the training rows, "
        f"the number beside it the change with one unit of the column. Intercept: {intercepts}.{against}{fewer}"
    )


@styled
def coefficients_figure(coefficients: Coefficients, deviations: Numbers, units: Units) -> Figure:
    """Plot a bar for each input, the longest at the top, in a panel for each output.

    Args:
        coefficients: of a linear model.
        deviations: standard deviation of each input, in the units of the table, shape `(inputs,)`.
        units: of the table.
    """
    effects = coefficients.per_unit * deviations[:, None]
    shown = np.argsort(-np.abs(effects).max(1), kind="stable")[:MAX_INPUTS]
    outputs = coefficients.outputs[:MAX_PANELS]
    width = 3.2 + 2.6 * len(outputs)
    figure, panels = style.new_figure(len(outputs), width=width, height=1.4 + 0.24 * len(shown))
    for index, (axes, name) in enumerate(zip(panels, outputs, strict=True)):
        _draw_bars(axes, effects[shown, index], coefficients.per_unit[shown, index])
        labels = [literal(coefficients.inputs[row]) for row in shown] if index == 0 else []
        axes.set_yticks(range(len(shown)), labels=labels or [""] * len(shown))
        style.set_labels(axes, "change per standard deviation", "")
        axes.set_title(f"log-odds of\n{literal(name)}" if units.classes else literal(name))
    return figure


def _draw_bars(axes: Axes, effects: Numbers, per_unit: Numbers) -> None:
    colours = [COLOURS[0] if effect >= 0 else COLOURS[1] for effect in effects]
    bars = axes.barh(range(len(effects)), effects, color=colours, height=0.7)
    axes.bar_label(bars, labels=[f"{value:.4g}" for value in per_unit], padding=3, fontsize=7)
    axes.axvline(0, color="#555555", linewidth=0.8)
    axes.invert_yaxis()
    axes.margins(x=0.3)  # room for the numbers
