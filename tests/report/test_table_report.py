"""The report of a table: figures and remarks are in its units, and agree with numbers that are computed without it."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.report.style import literal
from holdfast.store.folders import RunFolder, SweepFolder
from holdfast.store.test_ledger import TestLedger as Ledger
from holdfast.tables.source import TableSource
from tests.conftest import Ran, command_line
from tests.report.test_report import figures_of, line, swept

Run = Callable[..., Ran]
Numbers = np.ndarray[Any, Any]
ROWS = 120
SPLIT = np.array(["train", "train", "val", "train", "test"] * (ROWS // 5))
TRAIN, VAL = SPLIT == "train", SPLIT == "val"
LONG = ("batch_size=full", "precision=64-true", "epochs=1500", "logger=none", "metric=train/loss")


class Houses:
    """A table of houses; its test rows hold numbers that would show in any figure."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.area = random.normal(120, 40, ROWS).round(2)
        self.age = random.uniform(0, 80, ROWS).round()
        self.age[::7] = np.nan
        self.garden = random.random(ROWS) < 0.4
        self.price = (50 + 3 * self.area - np.nan_to_num(self.age) + 40 * self.garden).round(1)
        self.price += random.normal(0, 30, ROWS).round(1)
        self.rent = (self.area / 10 + random.normal(0, 1, ROWS)).round(2)
        self.area[SPLIT == "test"] = 1e6
        self.price[SPLIT == "test"] = -1e9
        self.city = random.choice(["Bonn", "Essen", "Jena"], ROWS)
        self.sold = np.where(self.price + random.normal(0, 100, ROWS) > 400, "sold", "free")
        self.kind = np.digitize(self.area + random.normal(0, 20, ROWS), [100, 140]).astype(str)

    def design(self, rows: Numbers) -> Numbers:
        """Area, age, garden, whether the age is missing, and ones, as raw columns."""
        age = np.where(np.isnan(self.age), np.nanmedian(self.age[TRAIN]), self.age)
        columns = (self.area, age, self.garden, np.isnan(self.age), np.ones(ROWS))
        return np.column_stack([np.asarray(column, dtype=float)[rows] for column in columns])

    def write(self, path: Path, *names: str) -> list[str]:
        """Write some columns; the overrides that train on them."""
        with path.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow([*names, "part"])
            for row in range(ROWS):
                cells = [getattr(self, name)[row] for name in names]
                writer.writerow(["" if cell != cell else cell for cell in cells] + [SPLIT[row]])  # noqa: PLR0124
        return ["data=table", f"data.path={path}", "data.split=part", f"data.target={names[-1]}"]


@pytest.fixture
def houses() -> Houses:
    return Houses()


def bars(axes: Any) -> tuple[list[float], list[float]]:
    """The lengths of the bars, and the numbers beside them."""
    return [bar.get_width() for bar in axes.patches], [float(text.get_text()) for text in axes.texts]


def by_input(figure: Any, panel: int = 0) -> dict[str, float]:
    """The coefficients per unit that a figure shows, by input."""
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    return dict(zip(names, bars(figure.axes[panel])[1], strict=True))


def intercept(caption: str) -> float:
    (text,) = re.findall(r"Intercept: (\S+?)\.(?: |$)", caption)
    return float(text)


def weights(folder: SweepFolder) -> tuple[Numbers, Numbers]:
    """The weights of the winner, shape (inputs, outputs), and its biases."""
    state = torch.load(folder.path / "model.pth", weights_only=True)
    return state["linear.weight"].double().numpy().T, state["linear.bias"].double().numpy()


def standardised(values: Numbers) -> Numbers:
    return np.asarray((values - values[TRAIN].mean(0)) / values[TRAIN].std(0))


def test_coefficients_are_those_of_least_squares_on_the_raw_columns(
    holdfast: Run, houses: Houses, tmp_path: Path
) -> None:
    table = houses.write(tmp_path / "houses.csv", "area", "age", "garden", "price")
    folder = swept(holdfast, tmp_path / "sweep", *table, "lr=0.2,0.001", *LONG)
    figure = figures_of(folder)["coefficients"]
    solution = np.linalg.lstsq(houses.design(TRAIN), houses.price[TRAIN], rcond=None)[0]
    names = ("area", "age", "garden", "age is missing")
    shown = by_input(figure.figure)
    np.testing.assert_allclose([shown[name] for name in names], solution[:-1], rtol=1e-3)
    assert intercept(figure.caption) == pytest.approx(solution[-1], rel=1e-4)
    # a bar is the coefficient times the deviation of the column
    deviations = dict(zip(names, houses.design(TRAIN)[:, :-1].std(0), strict=True))
    lengths, numbers = bars(figure.figure.axes[0])
    np.testing.assert_allclose(lengths, [numbers[k] * deviations[name] for k, name in enumerate(shown)], rtol=1e-3)
    assert lengths == sorted(lengths, key=lambda length: -abs(length))
    assert figure.figure.axes[0].get_title() == "price"


def test_least_squares_is_stated_in_the_units_of_the_table(holdfast: Run, houses: Houses, tmp_path: Path) -> None:
    table = houses.write(tmp_path / "houses.csv", "area", "city", "price")
    folder = swept(holdfast, tmp_path / "sweep", *table, "lr=0.2,0.001", *LONG)
    columns = np.column_stack([houses.area, *(houses.city == city for city in ("Bonn", "Essen", "Jena"))])
    solution = np.linalg.lstsq(columns[TRAIN], houses.price[TRAIN], rcond=None)[0]
    errors = [np.mean((columns[rows] @ solution - houses.price[rows]) ** 2) for rows in (VAL, TRAIN)]
    page = folder.page.read_text()
    stated = re.search(r"has val/loss (\S+) \(the winner: .*?\) and train/loss (\S+) \(the winner: (\S+),", page)
    assert stated, page
    np.testing.assert_allclose([float(text) for text in stated.groups()[:2]], errors, rtol=1e-4)
    assert float(stated[3]) >= errors[1] * (1 - 1e-5)  # it is the bound of the training loss
    # of a text only the differences between its levels are determined
    shown = by_input(figures_of(folder)["coefficients"].figure)
    assert shown["city=Essen"] - shown["city=Bonn"] == pytest.approx(solution[2] - solution[1], rel=2e-3)


def test_predictions_and_residuals_are_in_the_units_of_the_table(holdfast: Run, houses: Houses, tmp_path: Path) -> None:
    table = houses.write(tmp_path / "houses.csv", "area", "rent", "price")
    folder = swept(holdfast, tmp_path / "sweep", *table, "lr=0.1,0.01", "epochs=3", "batch_size=8")
    figures = figures_of(folder)
    assert set(figures) == {"loss_lr", "residuals", "coefficients", "curves"}
    left, right = figures["residuals"].figure.axes
    weight, bias = weights(folder)
    x = standardised(np.column_stack([houses.area, houses.rent]))
    predicted = ((x @ weight + bias)[:, 0] * houses.price[TRAIN].std() + houses.price[TRAIN].mean())[VAL]
    np.testing.assert_allclose(left.lines[0].get_xdata(), houses.price[VAL], rtol=1e-5)
    np.testing.assert_allclose(left.lines[0].get_ydata(), predicted, rtol=1e-4)
    np.testing.assert_allclose(right.lines[0].get_ydata(), houses.price[VAL] - predicted, rtol=1e-3, atol=1e-2)
    assert (left.get_xlabel(), left.get_ylabel()) == ("actual price", "predicted price")
    assert (right.get_xlabel(), right.get_ylabel()) == ("predicted price", "actual - predicted price")
    assert figures["loss_lr"].figure.axes[0].get_ylabel() == "loss (mean squared error, price²)"


def test_a_table_with_one_column_has_a_fitted_line_in_its_units(holdfast: Run, houses: Houses, tmp_path: Path) -> None:
    table = houses.write(tmp_path / "houses.csv", "area", "price")
    folder = swept(holdfast, tmp_path / "sweep", *table, "lr=0.1,0.01", "epochs=5", "batch_size=full")
    figures = figures_of(folder)
    assert set(figures) == {"loss_lr", "fit", "coefficients", "surface", "curves"}
    (axes,) = figures["fit"].figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("area", "price")
    for label, rows in (("training rows", TRAIN), ("validation rows", VAL)):
        np.testing.assert_allclose(line(axes, label), [houses.area[rows], houses.price[rows]], rtol=1e-5)
    x, y = line(axes, "least squares")
    slope, offset = np.polyfit(houses.area[TRAIN], houses.price[TRAIN], 1)
    np.testing.assert_allclose(y, slope * x + offset, rtol=1e-5)
    # the line of the winner is that of the coefficients
    x, y = line(axes, "lr=0.1")
    drawn = (y[-1] - y[0]) / (x[-1] - x[0])
    assert by_input(figures["coefficients"].figure)["area"] == pytest.approx(drawn, rel=1e-3)
    assert intercept(figures["coefficients"].caption) == pytest.approx(y[0] - drawn * x[0], rel=1e-3)
    # the path ends at the least squares of standardised columns, or is on the way there
    surface = figures["surface"].figure.axes[0]
    assert surface.get_xlabel() == "weight, standardised"
    assert abs(line(surface, "end")[0][0]) < 2


def test_losses_of_iterations_and_of_epochs_are_in_one_unit(holdfast: Run, houses: Houses, tmp_path: Path) -> None:
    table = houses.write(tmp_path / "houses.csv", "area", "age", "price")
    folder = swept(holdfast, tmp_path / "sweep", *table, "lr=1e-30,1e-29", "epochs=2", "batch_size=full")
    result = folder.job(0).read()
    assert result
    assert result.best
    panel, _ = figures_of(folder)["curves"].figure.axes
    np.testing.assert_allclose(panel.lines[0].get_ydata(), [result.best["train/loss"]] * 2, rtol=1e-4)  # type: ignore[arg-type]


def test_several_targets_have_panels_of_their_own(holdfast: Run, houses: Houses, tmp_path: Path) -> None:
    table = houses.write(tmp_path / "houses.csv", "area", "age", "rent", "price")[:-1]
    words = [*table, "data.target=[price,rent]", "lr=0.1,0.01", "epochs=20", "batch_size=full", "logger=none"]
    folder = swept(holdfast, tmp_path / "sweep", *words)
    figures = figures_of(folder)
    shown = {axes.get_xlabel(): axes.lines[0].get_xdata() for axes in figures["residuals"].figure.axes}
    np.testing.assert_allclose(shown["actual price"], houses.price[VAL], rtol=1e-5)
    np.testing.assert_allclose(shown["actual rent"], houses.rent[VAL], rtol=1e-5)
    panels = [axes.get_title() for axes in figures["coefficients"].figure.axes]
    scale = {name: getattr(houses, name)[TRAIN].std() for name in panels}
    weight, _ = weights(folder)
    for index, name in enumerate(panels):
        area = by_input(figures["coefficients"].figure, index)["area"]
        assert area == pytest.approx(weight[0, index] * scale[name] / houses.area[TRAIN].std(), rel=1e-3)
    design = houses.design(TRAIN)[:, [0, 1, 3, 4]]
    targets = np.column_stack([houses.price, houses.rent])[TRAIN]
    error = np.mean((design @ np.linalg.lstsq(design, targets, rcond=None)[0] - targets) ** 2)
    assert f"train/loss {error:.5g}" in folder.page.read_text()
    assert figures["loss_lr"].figure.axes[0].get_ylabel() == "loss (mean squared error, mean over the targets)"


@pytest.mark.parametrize("model", ["linear", "mlp"])
def test_a_confusion_matrix_counts_validation_rows(model: str, holdfast: Run, houses: Houses, tmp_path: Path) -> None:
    table = houses.write(tmp_path / "houses.csv", "area", "rent", "kind")
    words = [*table, "data.task=classification", "lr=0.1,0.01", "epochs=5", "batch_size=8", f"model={model}"]
    folder = swept(holdfast, tmp_path / "sweep", *words)
    figures = figures_of(folder)
    drawn = {"loss_lr", "confusion", "curves"}
    assert set(figures) == (drawn | {"coefficients"} if model == "linear" else drawn)
    x = torch.from_numpy(standardised(np.column_stack([houses.area, houses.rent]))[VAL])
    state = torch.load(folder.path / "model.pth", weights_only=True)
    for name in [name for name in state if name.endswith("weight")]:
        x = x @ state[name].double().T + state[name.replace("weight", "bias")].double()
        if model == "mlp" and name != list(state)[-2]:
            x = x.tanh()
    expected = [[0] * 3 for _ in range(3)]
    for actual, predicted in zip(houses.kind[VAL], x.argmax(1).tolist(), strict=True):
        expected[int(actual)][predicted] += 1
    axes = figures["confusion"].figure.axes[0]
    counts = [int(text.get_text()) for text in axes.texts]
    assert np.array(counts).reshape(3, 3).tolist() == expected
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "1", "2"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted kind", "actual kind")
    assert f"{sum(expected[k][k] for k in range(3))} of 24 " in figures["confusion"].caption
    assert figures["loss_lr"].figure.axes[0].get_ylabel() == "loss (cross entropy)"


def test_coefficients_of_two_classes_are_those_of_logistic_regression(
    holdfast: Run, houses: Houses, tmp_path: Path
) -> None:
    table = houses.write(tmp_path / "houses.csv", "area", "rent", "sold")
    folder = swept(holdfast, tmp_path / "sweep", *table, "lr=2,0.001", *LONG)
    figure = figures_of(folder)["coefficients"]
    design = np.column_stack([houses.area, houses.rent, np.ones(ROWS)])[TRAIN]
    is_sold = (houses.sold == "sold")[TRAIN]
    solution = np.zeros(3)
    for _ in range(30):  # Newton's method
        chance = 1 / (1 + np.exp(-design @ solution))
        curvature = design.T @ (design * (chance * (1 - chance))[:, None])
        solution += np.linalg.solve(curvature, design.T @ (is_sold - chance))
    shown = by_input(figure.figure)
    np.testing.assert_allclose([shown["area"], shown["rent"]], solution[:2], rtol=2e-3)
    assert intercept(figure.caption) == pytest.approx(solution[2], rel=2e-3)
    assert figure.figure.axes[0].get_title() == "log-odds of\nsold"


def test_coefficients_of_more_classes_are_differences_from_their_mean(
    holdfast: Run, houses: Houses, tmp_path: Path
) -> None:
    table = houses.write(tmp_path / "houses.csv", "area", "rent", "city")
    folder = swept(holdfast, tmp_path / "sweep", *table, "lr=0.1,0.01", "epochs=5")
    figure = figures_of(folder)["coefficients"].figure
    weight, _ = weights(folder)
    panels = [by_input(figure, panel) for panel in range(3)]
    assert sum(panel["area"] for panel in panels) == pytest.approx(0, abs=1e-4)
    difference = (weight[0, 2] - weight[0, 1]) / houses.area[TRAIN].std()
    assert panels[2]["area"] - panels[1]["area"] == pytest.approx(difference, rel=1e-2)


def words_of(model: str, table: Sequence[str]) -> list[str]:
    return [*table, f"model={model}", "epochs=2", "report=true"]


def test_a_run_has_the_figures_and_the_test_rows_stay_sealed(
    holdfast: Run, houses: Houses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, rows_of = [], TableSource.rows_of
    monkeypatch.setattr(
        TableSource, "rows_of", lambda self, split, *more: (read.append(split), rows_of(self, split, *more))[1]
    )
    drawn = {"curves.png"}
    for target, models in (
        ("price", {"linear": {"residuals", "coefficients"}, "mlp": {"residuals"}}),
        ("sold", {"linear": {"confusion", "coefficients"}, "mlp": {"confusion"}}),
    ):
        table = houses.write(tmp_path / f"{target}.csv", "area", "age", target)
        for model, names in models.items():
            ran = holdfast(*words_of(model, table))
            files = {path.name for path in ran.folder.figures.iterdir()}
            assert files == {f"{name}.png" for name in {"curves", *names}}
            assert command_line("report", str(ran.folder.path))[0] == 0
            assert ran.result.test_opened == 0
            drawn |= files
    assert set(read) == {"train", "val"}
    assert drawn | {"fit.png", "surface.png"} == set(RunFolder.FIGURES)


def test_the_report_of_a_sweep_opens_no_test_rows(holdfast: Run, houses: Houses, tmp_path: Path) -> None:
    table = houses.write(tmp_path / "houses.csv", "area", "age", "price")
    folder = swept(holdfast, tmp_path / "sweep", *table, "lr=0.1,0.01", "epochs=2", "report=false")
    opened = Ledger(folder.test_ledger).count()
    assert command_line("report", str(folder.path))[0] == 0
    assert Ledger(folder.test_ledger).count() == opened == 1
    for figure in figures_of(folder).values():
        for axes in figure.figure.axes:
            assert max(map(abs, (*axes.get_xlim(), *axes.get_ylim()))) < 1e6, figure.name


def test_without_its_table_a_sweep_has_the_figures_that_need_no_rows(
    holdfast: Run, houses: Houses, tmp_path: Path
) -> None:
    table = houses.write(tmp_path / "houses.csv", "area", "age", "price")
    folder = swept(holdfast, tmp_path / "sweep", *table, "lr=0.1,0.01", "epochs=2")
    before = {path.name: path.read_bytes() for path in folder.figures.iterdir()}
    (tmp_path / "houses.csv").unlink()
    for path in folder.figures.iterdir():
        path.unlink()
    assert command_line("report", str(folder.path))[0] == 0
    after = {path.name: path.read_bytes() for path in folder.figures.iterdir()}
    assert after == {name: before[name] for name in ("loss_lr.png", "curves.png")}
    assert "fits, residuals, confusion, coefficients, surface, least squares: " in folder.page.read_text()


def test_a_table_that_has_changed_is_not_drawn_over(holdfast: Run, houses: Houses, tmp_path: Path) -> None:
    table = houses.write(tmp_path / "houses.csv", "area", "age", "price")
    ran = holdfast(*words_of("linear", table))
    houses.area[TRAIN] += 1000
    houses.write(tmp_path / "houses.csv", "area", "age", "price")
    code, printed = command_line("report", str(ran.folder.path))
    assert code == 0
    assert "residuals, coefficients: the table has changed since" in printed


def test_names_are_drawn_as_they_are(holdfast: Run, houses: Houses, tmp_path: Path) -> None:
    assert literal("$x^$ and\n$y") == r"\$x^\$ and \$y"
    table = houses.write(tmp_path / "houses.csv", "area", "age", "price")
    text = (tmp_path / "houses.csv").read_text()
    (tmp_path / "houses.csv").write_text(text.replace("area,age,price", r"$\nothing$,面積,$price_$"))
    ran = holdfast(*words_of("linear", [*table[:-1], "data.target='$price_$'"]))
    assert ran.code == 0
    assert "could not" not in ran.out
    assert {path.name for path in ran.folder.figures.iterdir()} == {"residuals.png", "coefficients.png", "curves.png"}
