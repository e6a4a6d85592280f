"""python benchmarks/selection.py: does choosing by folds choose better than choosing on one hold-out split?

Three problems whose risk is known, on 100 data sets each, and two real tables with 40 outer splits each. On every data
set the same 32 settings are tried, once ranked by one validation split and once by five folds, each by one command; the
risk of both exported models is compared, with a sign test. It also says how often the true risk lies within one and two
standard errors of the mean over the folds.

The risk of a model f of the problems is E[(f(x) - y)^2] over new rows: x from N(0, 1), y = x w + b + noise.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import binomtest
from sklearn.datasets import load_breast_cancer

from holdfast.cli.main import main as holdfast
from holdfast.data.seeding import derive

SEARCH = ["lr=loginterval(1e-3,1)", "optimizer.weight_decay=loginterval(1e-4,3)", "sweep.trials=32"]
QUIET = ["report=false", "sweep.keep=1", "logger=none"]
FOLDS = 5
NEW_ROWS = 20_000


class Problem(NamedTuple):
    """A problem whose risk is known.

    Attributes:
        name: what is difficult about it.
        features, noise: of its rows.
        words: of the command line.
    """

    name: str
    features: int
    noise: float
    words: list[str]


PROBLEMS = [
    Problem("few rows, many columns", 20, 2.0, ["data.rows=80", "batch_size=full", "epochs=100"]),
    Problem("outliers", 5, 1.0, ["data.rows=120", "data.outlier_fraction=0.1", "batch_size=full", "epochs=100"]),
    Problem("a network", 8, 1.0, ["data.rows=100", "batch_size=full", "epochs=100", "model=mlp", "model.hidden=[16]"]),
]


def sweep(folder: Path, *words: str) -> tuple[Path, dict[str, Any]]:
    """Run a sweep in a folder; returns its folder and what it selected."""
    path = folder / f"sweep{len(list(folder.iterdir()))}"
    with open(os.devnull, "w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
        try:
            holdfast(["-m", *SEARCH, *QUIET, *words, f"hydra.sweep.dir={path}"])
        except SystemExit as stop:
            if stop.code != 0:
                raise RuntimeError(f"exit code {stop.code} of {' '.join(words)}") from stop
    return path, json.loads((path / "selection.json").read_text())


def risk(problem: Problem, seed: int, model: Path) -> float:
    """The risk of an exported model, over new rows without noise and the variance of the noise."""
    rows = int(problem.words[0].partition("=")[2])
    generator = torch.Generator().manual_seed(derive(seed, "linear"))
    torch.randn(rows, problem.features, generator=generator)  # the rows are drawn first
    weight = torch.randn(problem.features, 1, generator=generator)
    bias = torch.randn(1, generator=generator)
    x = torch.randn(NEW_ROWS, problem.features, generator=torch.Generator().manual_seed(seed))
    state = torch.load(model, weights_only=True)
    if "linear.weight" in state:
        predicted = x @ state["linear.weight"].T + state["linear.bias"]
    else:
        weights, shifts, last, shift = state.values()
        predicted = torch.tanh(x @ weights.T + shifts) @ last.T + shift
    return float((predicted - x @ weight - bias).square().mean()) + problem.noise**2


def compared(name: str, pairs: Callable[[], Iterator[tuple[float, float]]]) -> None:
    """Print the mean of both ways to choose, and on how many data sets folds are better."""
    hold_out, folds = np.array(list(pairs())).T
    wins, losses = int((folds < hold_out).sum()), int((folds > hold_out).sum())
    p = binomtest(wins, wins + losses, alternative="greater").pvalue if wins + losses else 1.0
    print(
        f"{name:<24} hold-out {hold_out.mean():.4g}, {FOLDS} folds {folds.mean():.4g}; "
        f"folds are better on {wins}, worse on {losses} (p = {p:.1g})",
        flush=True,
    )


def of_problem(
    problem: Problem, count: int, covered: list[tuple[float, float, float]]
) -> Iterator[tuple[float, float]]:
    """The risks of both choices on each data set of a problem."""
    common = ["data=linear", f"data.features={problem.features}", f"data.noise={problem.noise}", *problem.words]
    common += [f"model.features={problem.features}"]
    for seed in range(count):
        with tempfile.TemporaryDirectory() as name, chdir(name):
            hold_out, _ = sweep(Path(name), *common, f"data.seed={seed}")
            folds, selection = sweep(Path(name), *common, f"data.seed={seed}", f"sweep.folds={FOLDS}")
            found = risk(problem, seed, folds / "model.pth")
            repeats = selection["repeats"]
            covered.append((repeats["mean"], repeats["standard_error"], found))
            yield risk(problem, seed, hold_out / "model.pth"), found


def of_table(words: list[str], count: int) -> Iterator[tuple[float, float]]:
    """The test losses of both choices on each outer split of a table."""
    for seed in range(count):
        with tempfile.TemporaryDirectory() as name, chdir(name):
            chosen = [
                sweep(Path(name), *words, f"data.seed={seed}", *more)[1] for more in ([], [f"sweep.folds={FOLDS}"])
            ]
            hold_out, folds = (selection["test"]["test/loss"] for selection in chosen)
            yield hold_out, folds


def main(count: int = 100, outer: int = 40) -> None:
    """Print one line per problem, and per table."""
    for problem in PROBLEMS:
        covered: list[tuple[float, float, float]] = []
        compared(problem.name, lambda: of_problem(problem, count, covered))  # noqa: B023
        mean, error, found = np.array(covered).T
        within = [float((np.abs(mean - found) <= times * error).mean()) for times in (1, 2)]
        print(
            f"{'':<24} the risk is within one standard error on {within[0]:.0%}, within two on {within[1]:.0%}",
            flush=True,
        )
    with tempfile.TemporaryDirectory() as folder:
        x, y = load_breast_cancer(return_X_y=True)
        lines = [
            ",".join([*map(repr, map(float, row)), "malignant" if kind == 0 else "benign"])
            for row, kind in zip(x, y, strict=True)
        ]
        file = Path(folder, "cancer.csv")
        file.write_text("\n".join([",".join([*(f"x{column}" for column in range(x.shape[1])), "kind"]), *lines]))
        cancer = ["data=table", f"data.path={file}", "data.target=kind", "batch_size=full", "epochs=50"]
        compared(
            "diabetes, test loss", lambda: of_table(["experiment=diabetes", "batch_size=full", "epochs=50"], outer)
        )
        compared("breast cancer, test loss", lambda: of_table(cancer, outer))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
