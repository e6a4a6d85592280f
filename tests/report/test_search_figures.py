"""Figures of searches and repeats hold the numbers that the files hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.report.search_figures import Band, bands, best_so_far, scatter
from holdfast.store.folders import SweepFolder
from tests.conftest import command_line


def points(axes: Any, label: str) -> np.ndarray:
    (line,) = (line for line in axes.lines if line.get_label() == label)
    return np.asarray(line.get_ydata())


@pytest.mark.parametrize(("mode", "expected"), [("min", [3, 3, 1, 1, 1]), ("max", [3, 3, 3, 4, 4])])
def test_the_best_so_far_passes_over_trials_without_a_metric(mode: str, expected: list[float]) -> None:
    values = [3.0, float("nan"), 1.0, 4.0, 2.0]
    (axes,) = best_so_far(values, "val/loss", mode).axes
    np.testing.assert_array_equal(points(axes, "the best so far"), expected)
    np.testing.assert_array_equal(points(axes, "a trial"), values)


def test_every_searched_key_has_a_panel_with_the_winner_in_it() -> None:
    keys = [(f"key{number}", np.arange(1.0, 8.0) * (number + 1)) for number in range(6)]
    figure = scatter(keys, np.arange(7.0, 0.0, -1.0), "val/loss", 6)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_xlabel() for axes in shown] == [key for key, _ in keys]
    for axes, (_, x) in zip(shown, keys, strict=True):
        dots, star = axes.lines
        np.testing.assert_array_equal(dots.get_xdata(), x)
        assert (star.get_xdata()[0], star.get_ydata()[0]) == (x[6], 1.0)


def test_a_band_is_one_standard_error_around_the_mean() -> None:
    mean, error = np.array([3.0, 2.0, 1.5]), np.array([0.5, 0.25, 0.1])
    (axes,) = bands([Band("lr=0.1", np.arange(3), mean, error)], "val/loss").axes
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (pytest.approx(1.4), pytest.approx(3.5))
    np.testing.assert_array_equal(points(axes, "lr=0.1"), mean)


def test_a_search_with_folds_has_its_figures_and_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("lr=loginterval(1e-3,1e-1)", "data.noise=0.1,0.2", "sweep.trials=4", "sweep.folds=3", "epochs=2")
    code, said = command_line("-m", *words, "batch_size=20", "hydra.sweep.dir=sweep")
    assert code == 0, said
    sweep = SweepFolder(Path("sweep"))
    drawn = {path.stem for path in sweep.figures.iterdir()}
    assert {"data1_best_so_far", "data1_searched", "data1_curves_of_settings"} <= drawn
    page, selection = sweep.page.read_text(), json.loads(sweep.selection.read_text())
    for entry in selection["data_sets"]:
        assert f"python train.py {' '.join(entry['refit_overrides'])}" in page
        assert f"Mean val/loss {entry['repeats']['mean']:.6g} ± " in page
        assert f"so its val/loss flatters; its test/loss is {entry['test']['test/loss']:.6g}" in page
    assert "Training rows of folds overlap, so that the standard error is too small." in page
