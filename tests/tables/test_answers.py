"""Tables against answers that this project did not compute: published fits, least squares, scikit-learn's metrics."""

from __future__ import annotations

import csv
import gzip
import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    log_loss,
    mean_absolute_error,
    mean_squared_error,
    r2_score,
)
from torch import Tensor

from holdfast.record.archive import StackArchive
from holdfast.tables.splits import at_random, by_group
from tests.conftest import Ran, command_line, leaderboard_of
from tests.stacked.test_loop import assert_folders_alike

Columns = dict[str, list[Any]]
Holdfast = Callable[..., Ran]

MIXED = ("data=table", "data.path=mixed.csv", "data.split=part", "report=false")
DESCENT = ("batch_size=full", "precision=64-true", "report=false", "logger=none", "metric=train/loss")
"""Gradient descent with all rows in every iteration, to the optimum: the best weights are those of the least loss."""

EIGENVALUES = ("lr=0.45", "optimizer.momentum=0.83", "epochs=400")
"""The best rate and momentum for the diabetes table, by the extreme eigenvalues of its correlations, 4.02 and 0.009."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Two threads wait for each other at every operation while the machine is busy, and these are small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write(file: str, columns: Mapping[str, Sequence[Any]], delimiter: str = ",", decimal: str = ".") -> None:
    """Write a table as CSV; None is an empty cell, and a float has all of its digits."""

    def text(value: Any) -> str:
        if isinstance(value, float):
            return repr(float(value)).replace(".", decimal)
        return "" if value is None else str(value)

    with gzip.open(file, "wt", newline="") if file.endswith(".gz") else open(file, "w", newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows([[text(value) for value in row] for row in zip(*columns.values(), strict=True)])


def weights(ran: Ran) -> dict[str, Tensor]:
    loaded: dict[str, Tensor] = torch.load(ran.folder.weights, weights_only=True)
    return loaded


def bits(ran: Ran) -> dict[str, bytes]:
    """The bytes of every weight."""
    return {name: value.numpy().tobytes() for name, value in weights(ran).items()}


def parts_of(rows: int) -> list[str]:
    """The split of each row, named in a column: of every five, three train."""
    return [("train", "train", "val", "train", "test")[row % 5] for row in range(rows)]


def where(columns: Columns, part: str) -> NDArray[np.bool_]:
    return np.array(columns["part"]) == part


def mixed(rows: int = 200) -> Columns:
    """A table with numbers, whole numbers, booleans and texts, some of them missing, and two targets."""
    draw = np.random.default_rng(3)
    size = draw.lognormal(4, 0.5, rows)
    floor = draw.integers(0, 12, rows)
    lift = draw.random(rows) < 0.4
    district = draw.choice(["north", "south", "old town"], rows, p=[0.5, 0.3, 0.2])
    effect = {"north": 0.0, "south": 50.0, "old town": 120.0}
    price = 3.5 * size - 8.0 * floor + 30.0 * lift + [effect[name] for name in district] + draw.normal(0, 20, rows)
    without_size, without_district = draw.random(rows) < 0.15, draw.random(rows) < 0.1
    return {
        "size": [None if gone else float(value) for value, gone in zip(size, without_size, strict=True)],
        "floor": [int(value) for value in floor],
        "lift": ["true" if value else "false" for value in lift],
        "district": [None if gone else str(value) for value, gone in zip(district, without_district, strict=True)],
        "price": [float(value) for value in price],
        "rent": [float(value) for value in 0.3 * price + draw.normal(0, 10, rows) + 1000],
        "part": parts_of(rows),
    }


def by_hand(columns: Columns) -> NDArray[np.float64]:
    """The inputs of the mixed table, without the encoder: numbers, indicators, then the levels of each text."""
    train = where(columns, "train")
    size = np.array([np.nan if value is None else value for value in columns["size"]])
    missing = np.isnan(size)
    size[missing] = np.median(size[train & ~missing])
    numbers = [size, np.array(columns["floor"], float), np.array([value == "true" for value in columns["lift"]], float)]
    scaled = [(each - each[train].mean()) / each[train].std() for each in numbers]
    levels = [np.array([value == name for value in columns["district"]]) for name in ("north", "old town", "south")]
    return np.stack([*scaled, missing, *levels, ~np.any(levels, axis=0)], 1).astype(np.float64)


def test_diabetes_has_its_published_least_squares(holdfast: Holdfast) -> None:
    bunch = load_diabetes(scaled=False)
    names = list(bunch.feature_names)
    write("d.csv", {**{name: bunch.data[:, j] for j, name in enumerate(names)}, "progression": bunch.target})
    files = ("data.path=d.csv", "data.val_path=d.csv", "data.test_path=d.csv", "data.target=progression")
    ran = holdfast("data=table", *files, *DESCENT, *EIGENVALUES, "test=true")
    assert ran.result.best is not None
    assert ran.result.test is not None
    for metrics in (ran.result.best, {name.replace("test/", "val/"): value for name, value in ran.result.test.items()}):
        assert metrics["val/r2"] == pytest.approx(0.517748, abs=5e-7)
        assert metrics["val/loss"] == pytest.approx(2859.69634758675, rel=1e-7)

    weight, bias = weights(ran)["linear.weight"][0].numpy(), float(weights(ran)["linear.bias"])
    mean, scale = bunch.target.mean(), bunch.target.std()
    published = [-10.01, -239.816, 519.846, 324.385, -792.176, 476.739, 101.043, 177.063, 751.274, 67.627]
    np.testing.assert_allclose(weight * scale * np.sqrt(len(bunch.target)), published, atol=6e-3)
    assert bias * scale + mean == pytest.approx(152.1335, abs=5e-5)

    slopes = weight * scale / bunch.data.std(0)
    intercept = bias * scale + mean - slopes @ bunch.data.mean(0)
    fitted = LinearRegression().fit(bunch.data, bunch.target)
    np.testing.assert_allclose(slopes, fitted.coef_, rtol=2e-5)
    assert intercept == pytest.approx(fitted.intercept_, rel=2e-5)
    solved = np.linalg.lstsq(np.column_stack([bunch.data, np.ones(len(bunch.target))]), bunch.target, rcond=None)[0]
    np.testing.assert_allclose([*slopes, intercept], solved, rtol=2e-5)


def test_the_body_mass_index_alone_has_its_published_fit_and_test(holdfast: Holdfast) -> None:
    bunch = load_diabetes()
    bmi, target = bunch.data[:, 2], bunch.target
    write("train.csv", {"bmi": bmi[:-20], "progression": target[:-20]})
    write("test.csv", {"bmi": bmi[-20:], "progression": target[-20:]})
    files = ("data.path=train.csv", "data.val_path=train.csv", "data.test_path=test.csv", "data.target=progression")
    ran = holdfast("data=table", *files, *DESCENT, "lr=0.4", "epochs=30", "test=true")
    weight, bias = float(weights(ran)["linear.weight"]), float(weights(ran)["linear.bias"])
    slope = weight * target[:-20].std() / bmi[:-20].std()
    assert slope == pytest.approx(938.237861, abs=2e-4)
    assert bias * target[:-20].std() + target[:-20].mean() - slope * bmi[:-20].mean() == pytest.approx(152.918862)
    assert ran.result.test is not None
    assert ran.result.test["test/loss"] == pytest.approx(2548.07, abs=5e-3)
    assert ran.result.test["test/r2"] == pytest.approx(0.4726, abs=5e-5)


def test_texts_and_missing_values_converge_to_least_squares(holdfast: Holdfast) -> None:
    columns = mixed()
    write("mixed.csv", columns)
    ran = holdfast(
        *("data=table", "data.path=mixed.csv", "data.split=part", "data.target=price", "data.drop=[rent]", *DESCENT),
        *("epochs=400", "lr=0.5", "optimizer.momentum=0.9", "test=true"),
    )
    train, inputs = where(columns, "train"), torch.from_numpy(by_hand(columns))
    design, price = torch.cat([inputs, torch.ones(len(inputs), 1)], 1), torch.tensor(columns["price"])
    assert torch.linalg.matrix_rank(design[train]) == design.shape[1] - 1  # the levels of a text sum to the constant
    price = price.double()
    solution = torch.linalg.lstsq(design[train], price[train, None], driver="gelsd").solution
    fitted = (design @ solution)[:, 0].numpy()
    assert ran.result.best is not None
    assert ran.result.test is not None
    for part, metrics in (("val", ran.result.best), ("train", ran.result.best), ("test", ran.result.test)):
        rows = where(columns, part)
        assert metrics[f"{part}/loss"] == pytest.approx(mean_squared_error(price[rows], fitted[rows]), rel=1e-5)
        assert metrics[f"{part}/mae"] == pytest.approx(mean_absolute_error(price[rows], fitted[rows]), rel=1e-5)
        assert metrics[f"{part}/r2"] == pytest.approx(r2_score(price[rows], fitted[rows]), rel=1e-5)


def blobs(classes: int) -> Columns:
    """Classes that overlap, so that the likelihood has a finite maximum; the last one is rare."""
    draw = np.random.default_rng(classes)
    names = ["adelie", "chinstrap", "gentoo"][:classes]
    index = draw.choice(classes, 240, p=[0.6, 0.4] if classes == 2 else [0.5, 0.35, 0.15])
    centre = np.array([[0.0, 0.0], [1.2, 0.4], [0.3, 1.5]])
    points = (centre[index] + draw.normal(size=(240, 2))) * [5.0, 0.1] + [40.0, 1.0]
    species = [names[each] for each in index]
    return {"bill": [*map(float, points[:, 0])], "ratio": [*map(float, points[:, 1])], "species": species}


@pytest.mark.parametrize("classes", [2, 3])
def test_a_linear_classifier_converges_to_logistic_regression(classes: int, holdfast: Holdfast) -> None:
    columns = {**blobs(classes), "part": parts_of(240)}
    write("b.csv", columns)
    ran = holdfast(
        *("data=table", "data.path=b.csv", "data.target=species", "data.split=part", *DESCENT, "epochs=120", "lr=2"),
        *("optimizer.momentum=0.8", "test=true"),
    )
    points = np.column_stack([columns["bill"], columns["ratio"]])
    train, species = where(columns, "train"), np.array(columns["species"])
    points = (points - points[train].mean(0)) / points[train].std(0)
    parameters = weights(ran)
    logits = torch.from_numpy(points) @ parameters["linear.weight"].T + parameters["linear.bias"]
    probabilities = logits.softmax(1).numpy()
    names = sorted(set(species))
    residual = probabilities[train] - (species[train, None] == names)
    assert np.abs(residual.T @ np.column_stack([points[train], np.ones(train.sum())])).max() < 1e-4  # the gradient
    # infinite C: no penalty
    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(points[train], species[train])
    np.testing.assert_allclose(probabilities, fitted.predict_proba(points), atol=1e-5)
    assert ran.result.best is not None
    assert ran.result.test is not None
    for part, metrics in (("val", ran.result.best), ("train", ran.result.best), ("test", ran.result.test)):
        rows = where(columns, part)
        predicted = fitted.predict(points[rows])
        assert metrics[f"{part}/loss"] == pytest.approx(log_loss(species[rows], fitted.predict_proba(points[rows])))
        assert metrics[f"{part}/accuracy"] == pytest.approx(accuracy_score(species[rows], predicted))
        assert metrics[f"{part}/balanced_accuracy"] == pytest.approx(balanced_accuracy_score(species[rows], predicted))


@pytest.mark.parametrize("targets", [["price"], ["price", "rent"]], ids=" ".join)
def test_metrics_of_a_network_are_those_of_scikit_learn(targets: list[str], holdfast: Holdfast) -> None:
    columns = mixed()
    write("mixed.csv", columns)
    words = ("model=mlp", "model.hidden=[5]", "model.activation=tanh", "batch_size=16", "epochs=4", "data.drop=[rent]")
    words = words if len(targets) == 1 else words[:-1]
    ran = holdfast(*MIXED, f"data.target=[{','.join(targets)}]", *words)
    first, second = (list(weights(ran).values())[at : at + 2] for at in (0, 2))
    hidden = torch.from_numpy(by_hand(columns)).float() @ first[0].T + first[1]
    output = (hidden.tanh() @ second[0].T + second[1]).double().numpy()
    train, val = where(columns, "train"), where(columns, "val")
    actual = np.column_stack([columns[name] for name in targets])
    predicted = output * actual[train].std(0) + actual[train].mean(0)
    metrics = ran.result.best
    assert metrics is not None
    assert metrics["val/loss"] == pytest.approx(mean_squared_error(actual[val], predicted[val]), rel=1e-5)
    assert metrics["val/mae"] == pytest.approx(mean_absolute_error(actual[val], predicted[val]), rel=1e-5)
    assert metrics["val/r2"] == pytest.approx(r2_score(actual[val], predicted[val]), rel=1e-5)
    for index, name in enumerate(targets if len(targets) > 1 else []):
        own = mean_squared_error(actual[val, index], predicted[val, index])
        assert metrics[f"val/loss_{name}"] == pytest.approx(own, rel=1e-5)


@pytest.mark.parametrize("target", ["price", "lift", "floor data.task=classification", "district"])
def test_every_format_gives_the_same_weights_bit_for_bit(target: str, holdfast: Holdfast) -> None:
    columns = mixed()
    columns["district"] = [value or "lake" for value in columns["district"]]
    columns["floor"] = [value % 3 for value in columns["floor"]]
    write("t.csv", columns)
    write("t.csv.gz", columns)
    write("decimal_commas.csv", columns, ";", ",")
    typed = pa.table({**columns, "lift": [value == "true" for value in columns["lift"]]})
    pq.write_table(typed, "t.parquet", row_group_size=70)
    coded = typed.set_column(3, "district", typed.column("district").dictionary_encode())
    pq.write_table(coded, "categories.parquet")
    for start in (0, 90):
        pq.write_table(typed.slice(start, 90 if start == 0 else None), f"part{start:02}.pq")
    files = ("t.csv", "t.csv.gz", "decimal_commas.csv", "t.parquet", "categories.parquet", "part*.pq")
    words = (
        "data=table",
        "data.split=part",
        *f"data.target={target}".split(),
        "epochs=2",
        "report=false",
    )
    expected, *others = [bits(holdfast(*words, f"data.path={file}", "batch_size=16")) for file in files]
    for file, found in zip(files[1:], others, strict=True):
        assert found == expected, file


TRAINED = {
    "linear": ("mixed.csv", "data.target=price data.drop=[rent] data.split=part"),
    "two targets": ("mixed.csv", "data.target=[price,rent] data.split=part model=mlp model.hidden=[4]"),
    "classes": ("b.csv", "data.target=species model=mlp model.hidden=[4] optimizer=adam"),
}


@pytest.mark.parametrize(("file", "words"), TRAINED.values(), ids=TRAINED.keys())
def test_a_stack_agrees_with_jobs_trained_alone(file: str, words: str, holdfast: Holdfast) -> None:
    write("mixed.csv", mixed())
    write("b.csv", blobs(3))
    words = f"data=table data.path={file} {words} report=false epochs=3 batch_size=20"
    cases = (("32-true", "seed=0,1", 1e-4, 1e-5), ("64-true", "lr=0.01,0.05", 1e-9, 1e-12))
    for precision, swept, rtol, atol in cases:
        for launcher in ("stacked", "basic"):
            launch = (f"hydra/launcher={launcher}", f"hydra.sweep.dir={launcher}_{precision}")
            code, said = command_line("-m", *words.split(), f"precision={precision}", swept, *launch)
            assert code == 0, said
        assert Path(f"stacked_{precision}", "stacks").exists()
        for number in range(2):
            folders = (Path(f"{launcher}_{precision}", str(number)) for launcher in ("stacked", "basic"))
            assert_folders_alike(*folders, rtol, atol)


@pytest.mark.usefixtures("holdfast")
def test_a_stack_that_is_interrupted_and_resumed_has_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    write("mixed.csv", mixed())
    words = (
        "-m data=table data.path=mixed.csv data.target=price data.split=part model=mlp model.hidden=[4] report=false"
    )
    words += " optimizer=adam epochs=6 batch_size=20 lr=0.001,0.01,0.1 seed=0,1"
    assert command_line(*words.split(), "hydra.sweep.dir=whole")[0] == 0
    moments, pause = iter(range(100)), StackArchive.pause

    def interrupting(self: StackArchive, snapshot: Any) -> None:
        if next(moments) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        pause(self, snapshot)

    with monkeypatch.context() as patched:
        patched.setattr(StackArchive, "pause", interrupting)
        code, said = command_line(*words.split(), "hydra.sweep.dir=resumed")
    assert code not in (0, 1, 2), said
    assert not Path("resumed", "0", "result.json").exists()
    code, said = command_line("-m", "resume=resumed")
    assert code == 0, said
    for number in range(6):
        loaded = [torch.load(Path(sweep, str(number), "model.pth")) for sweep in ("whole", "resumed")]
        for name, value in loaded[0].items():
            assert value.numpy().tobytes() == loaded[1][name].numpy().tobytes(), (number, name)
    assert leaderboard_of(Path("whole")) == leaderboard_of(Path("resumed"))


def dates(rows: int) -> list[str]:
    """Different days, in no order."""
    days = np.datetime64("2019-12-01") + np.random.default_rng(5).permutation(rows)
    return [str(day) for day in days]


def with_other_tests(columns: Columns, tests: NDArray[np.bool_], draw: np.random.Generator) -> Columns:
    """The table with other values of the same types in every test row, and with missing ones where there may be."""
    changed = {name: list(values) for name, values in columns.items()}
    for row in np.flatnonzero(tests):
        for name, values in columns.items():
            if isinstance(values[row], float) or (values[row] is None and name == "size"):
                changed[name][row] = float(draw.normal(1e4, 1e4))
            elif isinstance(values[row], int):
                changed[name][row] = int(draw.integers(-900, 900))
            elif name == "lift":
                changed[name][row] = "true" if values[row] == "false" else "false"
            elif name == "district":
                changed[name][row] = f"elsewhere {draw.integers(5)}"
            elif name == "species":
                changed[name][row] = "gentoo" if values[row] == "adelie" else "adelie"
    return changed


SEALED = {
    "at random": ("data.target=price", "data.fractions=[0.5,0.2,0.3]"),
    "a column": ("data.target=price", "data.split=part"),
    "classes, a column": ("data.target=species", "data.split=part"),
    "classes, at random": ("data.target=species", "data.fractions=[0.5,0.2,0.3]"),
    "groups": ("data.target=price", "data.group=house"),
    "times": ("data.target=price", "data.time=sold"),
}


@pytest.mark.parametrize("words", SEALED.values(), ids=SEALED.keys())
def test_no_value_of_a_test_row_changes_a_weight_or_a_metric(words: tuple[str, str], holdfast: Holdfast) -> None:
    """But for the values by which rows are split: the time, the group, or the class that has the fractions."""
    columns = {**mixed(), "species": blobs(3)["species"][:200]}
    columns["house"], columns["sold"] = [f"house {row % 50}" for row in range(200)], dates(200)
    if words[1] == "data.split=part":
        tests = where(columns, "test")
    elif words[1] == "data.time=sold":
        tests = np.array(columns["sold"]) >= sorted(columns["sold"])[160]
    elif words[1] == "data.group=house":
        tests = by_group(np.array(columns["house"]), (0.6, 0.2, 0.2), 0) == 2
    else:
        seen = list(dict.fromkeys(columns["species"]))
        strata = [seen.index(each) if "species" in words[0] else 0 for each in columns["species"]]
        tests = at_random(np.array(strata), (0.5, 0.2, 0.3), 0) == 2
    other = with_other_tests(columns, tests, np.random.default_rng(0))
    if words == SEALED["classes, at random"]:
        other["species"] = columns["species"]
    write("before.csv", columns)
    write("after.csv", other)
    splitting = {"part", "house", "sold"}
    assert all(columns[name] != other[name] for name in columns if name not in splitting | {"species"})
    drop = ",".join(splitting - {words[1].rpartition("=")[2]})
    common = ("data=table", *words, "model=mlp", "model.hidden=[4]", "batch_size=16", "epochs=3", "report=false")
    ran = [
        holdfast(*common, f"data.drop=[{drop}]", f"data.path={file}", "test=true")
        for file in ("before.csv", "after.csv")
    ]
    assert bits(ran[0]) == bits(ran[1])
    results = [json.loads(each.folder.result.read_text()) for each in ran]
    for name in ("best", "last", "status", "epochs", "iterations"):
        assert results[0][name] == results[1][name]
    assert results[0]["test"] != results[1]["test"]


FRACTIONS = [(0.6, 0.2, 0.2), (0.7, 0.15, 0.15), (0.5, 0.25, 0.25), (0.98, 0.01, 0.01), (1 / 3, 1 / 3, 1 / 3)]


@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=300),
    st.integers(0, 2**31),
    st.sampled_from(FRACTIONS),
    st.integers(1, 300),
)
@settings(max_examples=60, deadline=None)
def test_appended_rows_leave_the_split_of_those_before_them(
    strata: list[int], seed: int, fractions: tuple[float, float, float], first: int
) -> None:
    numbers = np.array(strata, dtype=np.int64)
    assert (at_random(numbers[:first], fractions, seed) == at_random(numbers, fractions, seed)[:first]).all()
    groups = numbers * 7 % 5
    assert (by_group(groups[:first], fractions, seed) == by_group(groups, fractions, seed)[:first]).all()


@pytest.mark.parametrize("fractions", FRACTIONS, ids=str)
@pytest.mark.parametrize("rows", [200, 2000, 20_000])
def test_every_stratum_has_the_fractions_to_rounding(fractions: tuple[float, float, float], rows: int) -> None:
    draw = np.random.default_rng(rows)
    for seed in range(5):
        strata = draw.choice(3, rows, p=[0.7, 0.2, 0.1])
        split = at_random(strata, fractions, seed)
        for stratum in range(3):
            counts = np.bincount(split[strata == stratum], minlength=3)
            expected = np.array(fractions) * counts.sum()
            # rows of the last, incomplete block of 20 are a sample of a whole one, without replacement
            assert np.abs(counts - expected).max() <= 6, (seed, stratum, counts, expected)
        whole = at_random(np.zeros(rows, dtype=np.int64), fractions, seed)
        counts = np.bincount(whole, minlength=3)
        exact = all(float(20 * fraction).is_integer() for fraction in fractions)
        assert np.abs(counts - np.array(fractions) * rows).max() <= (1e-6 if exact else 2.5), counts


def test_rows_are_split_at_random() -> None:
    """No split follows the order of the rows: their mean place, and neighbours that share a split, are by chance."""
    split = at_random(np.zeros(20_000, dtype=np.int64), (0.6, 0.2, 0.2), 0)
    for part, fraction in enumerate((0.6, 0.2, 0.2)):
        assert np.flatnonzero(split == part).mean() == pytest.approx(10_000, abs=100)
        both = (split[1:] == part) & (split[:-1] == part)
        assert both.mean() == pytest.approx(fraction**2, abs=0.02)
    assert (split != at_random(np.zeros(20_000, dtype=np.int64), (0.6, 0.2, 0.2), 1)).mean() > 0.5


def test_each_class_has_the_fractions(holdfast: Holdfast) -> None:
    sizes = {"adelie": 200, "chinstrap": 100, "gentoo": 20}
    order = np.random.default_rng(1).permutation([name for name, count in sizes.items() for _ in range(count)])
    write("p.csv", {"bill": [row % 3 for row in range(320)], "species": order})
    ran = holdfast("data=table", "data.path=p.csv", "data.target=species", "epochs=1", "report=false")
    assert "192 training, 64 validation, 64 test rows" in ran.out
    strata = np.array([list(dict.fromkeys(order)).index(name) for name in order])
    counts = Counter(zip(order.tolist(), at_random(strata, (0.6, 0.2, 0.2), 0).tolist(), strict=True))
    assert counts == {(name, part): sizes[name] // 5 * (3, 1, 1)[part] for name in sizes for part in range(3)}


def test_a_column_with_one_value_and_missing_ones_does_not_blow_up(holdfast: Holdfast) -> None:
    """The standard deviation of equal numbers is not exactly 0 in floating point: it is no scale."""
    columns = mixed()
    train = where(columns, "train")
    columns["dose"] = [None if row % 7 == 0 else 0.1 if train[row] else 0.2 for row in range(200)]
    write("mixed.csv", columns)
    words = (*MIXED, "data.target=price", "data.drop=[rent]", "epochs=3", "batch_size=16", "lr=0.02")
    with_dose = holdfast(*words).result.best
    assert with_dose is not None
    assert with_dose["val/loss"] < np.var([columns["price"][row] for row in np.flatnonzero(where(columns, "val"))])


def test_rows_in_more_than_one_split_are_counted(holdfast: Holdfast) -> None:
    columns = mixed()
    repeated = next(row for row in range(200) if columns["size"][row] is None)
    for name, values in columns.items():
        columns[name] = [*values, values[repeated], values[repeated]]
    part = parts_of(200)[repeated]
    one, two = (name for name in ("train", "val", "test") if name != part)
    words = ("data=table", "data.path=t.csv", "data.split=part", "data.target=price", "epochs=1", "report=false")
    for further, shared in (([one, two], 3), ([part, one], 3), ([part, part], 0)):
        write("t.csv", {**columns, "part": [*parts_of(200), *further]})
        lines = [line for line in holdfast(*words).out.splitlines() if "in more than one split" in line]
        line = f"warning: {shared} rows are in more than one split, with the same values in all used columns"
        assert lines == ([line] if shared else [])


def test_the_lines_before_a_run(holdfast: Holdfast) -> None:
    columns = mixed()
    columns = {"": [*range(200)], **columns, "country": ["CH"] * 200, "note": [None] * 200}
    columns["key"] = [f"k{row}" for row in range(200)]
    columns["street"] = [f"street {row % 23}" for row in range(200)]
    write("mixed.csv", columns)
    ran = holdfast(*MIXED, "data.target=price", "data.drop=[rent]", "epochs=1")
    train = where(columns, "train")
    size, district = (sum(columns[name][row] is None for row in np.flatnonzero(train)) for name in ("size", "district"))
    assert ran.out.splitlines()[:5] == [
        "table: price (a number) from 5 columns: size, floor, lift, district (text, 3 levels), "
        "street (text, 20 levels)",
        f"missing values in training rows, which are filled: size {size}, district {district}",
        "120 training, 40 validation, 40 test rows",
        "street: the 20 commonest of 23 texts; all others are one",
        "left out: (unnamed) (an index), country (constant), note (empty), key (a different text in every row)",
    ]
