"""The course is true: its commands run and draw its pictures, and its statements about them hold."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from docs import larger_than_memory
from docs.larger_than_memory import ORDERS
from docs.make import PAGE, figure, lessons
from holdfast.cli.main import CONF
from holdfast.data import buffered
from holdfast.report import read
from holdfast.store.folders import RunFolder, SweepFolder
from holdfast.store.result import Result
from tests.conftest import Ran

TEXT = PAGE.read_text()
LESSONS = lessons()
NOT_LESSONS = {"diabetes", "penguins", "grid", "stacked_1000"}


@cache
class LinearRegression(torch.nn.Module):
    """The model of the course."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)  # type: ignore[no-any-return]


def experiment(command: str) -> str:
    return str(re.findall(r"experiment=(\w+)", command)[0])


def test_every_experiment_is_a_lesson() -> None:
    names = {path.stem for path in (CONF / "experiment").glob("*.yaml")}
    assert {experiment(command) for command, _ in LESSONS} == names - NOT_LESSONS
    assert TEXT.count("```bash") == len(LESSONS) + 1 == 13
    assert all(pictures for _, pictures in LESSONS)


def test_every_picture_exists() -> None:
    pictures = re.findall(r"!\[.*?\]\((.+?)\)", TEXT)
    assert sorted(path.name for path in (PAGE.parent / "course").iterdir()) == sorted(
        Path(picture).name for picture in pictures
    )
    assert all((PAGE.parent / picture).stat().st_size < 100_000 for picture in pictures)


def train(holdfast: Callable[..., Ran], command: str) -> RunFolder | SweepFolder:
    arguments = shlex.split(command)[2:]
    done = holdfast(*arguments, *(["hydra.sweep.dir=sweep"] if "-m" in arguments else []))
    assert (done.code, done.err) == (0, "")
    return SweepFolder(Path("sweep")) if "-m" in arguments else done.folder


@pytest.mark.parametrize(("command", "pictures"), LESSONS, ids=[experiment(command) for command, _ in LESSONS])
def test_every_command_draws_its_pictures(command: str, pictures: list[str], holdfast: Callable[..., Ran]) -> None:
    folder = train(holdfast, command)
    drawn = {path.name for path in folder.figures.iterdir()}
    assert {figure(command, picture) for picture in pictures} <= drawn


def results(folder: SweepFolder) -> dict[str, Result]:
    """The results of a sweep over one key, by its value."""
    jobs = read.jobs_of(folder)
    key = next(iter(jobs[0].given))
    return {job.given[key]: job.result for job in jobs}


def value(result: Result, name: str = "val/loss", of: str = "best") -> float:
    entry: dict[str, Any] = getattr(result, of)
    return float(entry[name])


def rows() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    from holdfast.data.synthetic import line

    data = line("train", slope=-3.0, intercept=0.0)
    return data.x[:, 0].double().numpy(), data.y[:, 0].double().numpy()


def test_batch_gradient_descent_is_the_equation(holdfast: Callable[..., Ran]) -> None:
    folder = train(holdfast, "python train.py experiment=batch_gd")
    x, y = rows()
    w, b = -15.0, -10.0
    for _ in range(15):
        error = w * x + b - y
        w, b = w - 0.1 * 2 * np.mean(error * x), b - 0.1 * 2 * np.mean(error)
    last = torch.load(folder.path / "last.ckpt", weights_only=True)["state_dict"]
    np.testing.assert_allclose([float(part) for part in last.values()], [w, b], rtol=1e-5)
    path = np.load(RunFolder(folder.path).parameter_path).astype(np.float64)
    assert path is not None
    assert path.shape == (16, 2)


def test_stochastic_and_mini_batch_need_fewer_passes(holdfast: Callable[..., Ran]) -> None:
    batch, sgd, mini = (holdfast(f"experiment={name}").result for name in ("batch_gd", "sgd", "mini_batch"))
    assert (batch.iterations, sgd.iterations, mini.iterations) == (15, 300, 60)
    assert f"the validation loss is {value(batch):.2f}, not yet" in " ".join(TEXT.split())
    assert value(sgd) < 0.013 < value(batch)
    assert value(mini) < 0.013
    folder = holdfast("experiment=sgd").folder
    losses = read.JobRecords(lambda number: folder).curves([0], ["val/loss"])[0]["val/loss"][1]
    assert f"epoch the validation loss is {losses[0]:.2f}, after two {losses[1]:.3f}" in TEXT.replace("\n", " ")


def test_small_batches_have_a_lower_loss_after_ten_epochs(holdfast: Callable[..., Ran]) -> None:
    by_value = results(train(holdfast, "python train.py -m experiment=batch_size"))  # type: ignore[arg-type]
    last = [value(by_value[size], of="last") for size in ("1", "5", "20", "full")]
    assert last[0] < 0.02
    assert last[1] < 0.02
    assert last[1] < last[2] < last[3]


def test_the_limit_of_the_learning_rate(holdfast: Callable[..., Ran]) -> None:
    by_value = results(train(holdfast, "python train.py -m experiment=rates"))  # type: ignore[arg-type]
    x, _ = rows()
    curvature = max(np.linalg.eigvalsh(2 * np.array([[np.mean(x * x), np.mean(x)], [np.mean(x), 1.0]])))
    for rate, result in by_value.items():
        assert (result.status == "diverged") == (float(rate) > 2 / curvature)
    assert value(by_value["0.003"]) > 100 > value(by_value["0.1"])


def test_outliers_raise_the_loss_as_the_page_says(holdfast: Callable[..., Ran]) -> None:
    folder = train(holdfast, "python train.py -m experiment=outliers")
    without, outliers = results(folder).values()  # type: ignore[arg-type]
    assert f"compared: {value(without):.3f} without, {value(outliers):.0f} with outliers" in TEXT.replace("\n", " ")


def test_overfitting_raises_the_validation_loss(holdfast: Callable[..., Ran]) -> None:
    result = holdfast("experiment=overfitting").result
    assert result.best is not None
    assert f"lowest in epoch {result.best['epoch']} " in TEXT
    assert value(result, of="last") > 1.5 * value(result)
    assert value(result, "train/loss", of="last") < 0.1 * value(result, "train/loss")


def test_a_momentum_of_one_half_wins(holdfast: Callable[..., Ran]) -> None:
    by_value = results(train(holdfast, "python train.py -m experiment=momentum"))  # type: ignore[arg-type]
    assert min(by_value, key=lambda key: value(by_value[key])) == "0.5"


def test_adam_moves_by_its_learning_rate(holdfast: Callable[..., Ran]) -> None:
    folder = train(holdfast, "python train.py -m experiment=optimizers")
    by_value = results(folder)  # type: ignore[arg-type]
    assert min(by_value, key=lambda key: value(by_value[key])) == "sgd"
    path = np.load(SweepFolder(folder.path).job(list(by_value).index("adam")).parameter_path).astype(np.float64)
    assert path is not None
    steps = np.abs(np.diff(path[:, 0]))[:60]  # while the gradient falls to a fraction of its first value
    assert steps.max() < 0.101
    assert steps.min() > 0.05


def test_the_last_lesson(holdfast: Callable[..., Ran]) -> None:
    folder = train(holdfast, "python train.py -m experiment=learning_rate")
    by_value = results(folder)  # type: ignore[arg-type]
    finished = {key: result for key, result in by_value.items() if result.status == "completed"}
    assert min(finished, key=lambda key: value(finished[key], "train/loss")) == "0.001"
    selection = json.loads((folder.path / "selection.json").read_text())
    page = TEXT.replace("\n", " ")
    assert f"validation loss, {selection['value']:.3f}, is biased" in page
    assert f"the test loss, {selection['test']['test/loss']:.3f}, is not" in page
    model = LinearRegression()
    model.load_state_dict(torch.load(folder.path / "model.pth"))
    assert float(model(torch.tensor([[2.0]])).detach()) == pytest.approx(-3 * 2 + 1, abs=0.5)


def test_the_table_that_is_larger_than_its_buffer(
    tmp_path: Path, holdfast: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    larger_than_memory.make_table(tmp_path)
    script, command = larger_than_memory.commands()
    assert script == "python make_table.py"
    streamed = next(order for order in ORDERS if order.title == "a buffer of 16 blocks")
    words = [*larger_than_memory.TABLE, *streamed.words, f"epochs={larger_than_memory.EPOCHS}"]
    assert shlex.split(command) == ["python", "train.py", *words]
    losses = re.findall(r"^\| .* \| ([\d.]+) \| ([\d.]+) \|$", TEXT, re.MULTILINE)
    for order, (first, last) in zip(ORDERS, losses, strict=True):
        monkeypatch.setattr(buffered, "LEAST_BLOCKS", order.blocks)
        ran = holdfast(*larger_than_memory.TABLE, *order.words, f"epochs={larger_than_memory.EPOCHS}")
        assert ran.code == 0, ran.err
        measured = larger_than_memory.validation_losses(ran.folder)
        assert (measured[0], measured[-1]) == pytest.approx((float(first), float(last)), rel=0.01)
    assert json.loads((tmp_path / "ran" / "2" / "run.json").read_text())["buffer_rows"] == 65_536


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory of a process is read from /proc")
def test_the_memory_of_a_run_is_sampled(tmp_path: Path) -> None:
    larger_than_memory.make_table(tmp_path, 0.01)
    run = larger_than_memory.sampled(tmp_path, larger_than_memory.STREAMED)
    assert 0 < run.opened < run.read < run.seconds[-1]
    assert 100 < max(run.megabytes) < 10_000
    runs = [("read whole", "reading", run)] * 2
    assert larger_than_memory.draw_memory(runs, 1.0).axes


def test_more_trials_find_what_the_page_says(holdfast: Callable[..., Ran]) -> None:
    folder = train(holdfast, "python train.py -m experiment=search")
    assert isinstance(folder, SweepFolder)
    best = [
        (number, result.best["val/loss"]) for number, result in sorted(folder.read_results().items()) if result.best
    ]
    for trials, stated in ((8, 3.3), (16, 0.14), (64, 0.027)):
        assert min(value for number, value in best if number < trials) == pytest.approx(stated, rel=0.02)
    assert min(best, key=lambda each: each[1])[0] == 21
    selection = json.loads(folder.selection.read_text())
    assert f"The test loss\nbeside it, {selection['test']['test/loss']:.3f}, does not" in TEXT


def test_folds_tell_apart_what_the_page_says(holdfast: Callable[..., Ran]) -> None:
    folder = train(holdfast, "python train.py -m experiment=folds")
    assert isinstance(folder, SweepFolder)
    repeats = json.loads(folder.selection.read_text())["repeats"]
    assert f"the best mean is {repeats['mean']:.0f}, with a standard error of 120" in TEXT
    assert repeats["standard_error"] == pytest.approx(120, abs=5)
    with folder.leaderboard.open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["difference"]]
    second = rows[0]
    assert float(second["difference"]) == pytest.approx(9.9, abs=0.1)
    assert float(second["difference_standard_error"]) == pytest.approx(18, abs=0.5)
    assert float(second["optimizer.weight_decay"]) < 0.01
