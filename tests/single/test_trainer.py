"""Runs compared with independent answers: update rules written by hand, and least squares."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from holdfast.data import Line, row_order
from holdfast.errors import DataError
from holdfast.model import Linear
from holdfast.store.folders import RunFolder
from tests.conftest import ROOT
from tests.forked import python
from tests.record.test_events import read

ROWS, VAL, TEST = (
    Line(outliers={0: 0.0, "50:55": 20.0}).draw(split)
    for split in ("train", "val", "test")  # type: ignore[arg-type]
)
X, Y = ROWS.x.double(), ROWS.y.double()
START = ["model.weight=-15", "model.bias=-10", "precision=64-true"]


def batches(batch_size: int, epochs: int, seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    for epoch in range(epochs):
        order = row_order(60, seed, epoch)
        for rows in order.split(batch_size):
            yield X[rows], Y[rows]


def gradient(w: float, b: float, x: Tensor, y: Tensor) -> tuple[float, float]:
    """dl/dw and dl/db of the mean squared error, by hand."""
    error = w * x + b - y
    return float((2 * error * x).mean()), float((2 * error).mean())


def loss(w: float, b: float, x: Tensor, y: Tensor) -> float:
    return float(((w * x + b - y) ** 2).mean())


def weights(folder: RunFolder, name: str = "last") -> tuple[float, float]:
    state = torch.load(getattr(folder, name), weights_only=True)
    state = state.get("state_dict", state)
    weight, bias = state.values()  # model.pth has other names than a checkpoint
    return weight.item(), bias.item()


@pytest.mark.parametrize(("batch_size", "word"), [(1, "1"), (5, "5"), (7, "7"), (60, "full")])
def test_weights_losses_and_best_epoch_are_those_of_the_hand_written_rule(
    batch_size: int, word: str, holdfast: Callable[..., Any]
) -> None:
    ran = holdfast("lr=0.005", f"batch_size={word}", *START)
    w, b, losses, curve = -15.0, -10.0, [], []
    per_epoch = math.ceil(60 / batch_size)
    for number, (x, y) in enumerate(batches(batch_size, 10), start=1):
        losses.append(loss(w, b, x, y))
        dw, db = gradient(w, b, x, y)
        w, b = w - 0.005 * dw, b - 0.005 * db
        if number % per_epoch == 0:
            curve.append((loss(w, b, VAL.x.double(), VAL.y.double()), loss(w, b, X, Y), w, b))
    assert weights(ran.folder) == pytest.approx((w, b), rel=1e-12)
    best = min(range(10), key=lambda epoch: curve[epoch][0])
    result = ran.result
    assert (ran.code, result.status, result.epochs, result.iterations) == (0, "completed", 10, 10 * per_epoch)
    assert result.best["epoch"] == best
    assert result.last["epoch"] == 9
    assert weights(ran.folder, "best") == pytest.approx(curve[best][2:], rel=1e-12)
    assert weights(ran.folder, "weights") == weights(ran.folder, "best")
    for entry, epoch in ((result.best, best), (result.last, 9)):
        assert (entry["val/loss"], entry["train/loss"]) == pytest.approx(curve[epoch][:2], rel=1e-9)
    seen = read(ran.folder.path)
    steps = seen.Scalars("train/loss_step")
    assert [event.step for event in steps] == list(range(10 * per_epoch))
    np.testing.assert_allclose([event.value for event in steps], losses, rtol=1e-6)
    np.testing.assert_allclose(
        [event.value for event in seen.Scalars("val/loss")], [row[0] for row in curve], rtol=1e-6
    )
    means = np.array(losses).reshape(10, per_epoch).mean(1)
    np.testing.assert_allclose([event.value for event in seen.Scalars("train/loss_epoch")], means, rtol=1e-6)
    assert {"train/loss", "train/lr", "val/mae", "val/r2"} <= set(seen.Tags()["scalars"])
    assert not ran.folder.experiment.exists(), "nobody used torch's SummaryWriter"


@pytest.mark.parametrize("lr", [0.0001, 0.001, 0.01, 0.1, 1])
@pytest.mark.parametrize("batch_size", [1, 5, 60])
def test_the_learning_rates_that_diverge_are_those_of_the_hand_written_rule(
    lr: float, batch_size: int, holdfast: Callable[..., Any]
) -> None:
    w, b, ended = -15.0, -10.0, None
    per_epoch = math.ceil(60 / batch_size)
    for number, (x, y) in enumerate(batches(batch_size, 10)):
        if not loss(w, b, x, y) <= 1e12:
            ended = number // per_epoch
            break
        dw, db = gradient(w, b, x, y)
        w, b = w - lr * dw, b - lr * db
        whole = (loss(w, b, X, Y), loss(w, b, VAL.x.double(), VAL.y.double()))
        if (number + 1) % per_epoch == 0 and not max(whole) <= 1e12:
            ended = number // per_epoch
            break
    ran = holdfast(f"lr={lr}", f"batch_size={batch_size}", *START)
    assert ran.code == 0
    if ended is None:
        assert ran.result.status == "completed"
        assert ran.result.best is not None
    else:
        assert ran.result.status == "diverged"
        assert f"diverged in epoch {ended}" in ran.result.error
        assert f"diverged in epoch {ended}" in ran.out
        assert ran.result.epochs == ended + 1
        assert (ran.result.best is None) == (ended == 0) == (not ran.folder.best.exists())


def test_least_squares_is_the_bound_of_the_training_loss(holdfast: Callable[..., Any]) -> None:
    design = torch.cat([X, torch.ones_like(X)], 1)
    w, b = torch.linalg.lstsq(design, Y).solution[:, 0].tolist()
    bound = loss(w, b, X, Y)
    short = holdfast("batch_size=full", "lr=0.05", *START)
    long = holdfast("batch_size=full", "lr=0.05", "epochs=300", "trainer.full_train_loss=true", *START)
    assert short.result.last["train/loss"] > bound
    assert bound <= long.result.last["train/loss"] * (1 + 1e-12)
    assert long.result.last["train/loss"] == pytest.approx(bound, rel=1e-9)
    assert weights(long.folder) == pytest.approx((w, b), rel=1e-6)


@pytest.mark.parametrize(
    ("momentum", "dampening", "nesterov", "decay"),
    [
        (0.9, 0.0, False, 0.0),
        (0.9, 0.5, False, 0.0),
        (0.9, 0.0, True, 0.0),
        (0.0, 0.0, False, 0.1),
        (0.5, 0.0, True, 0.1),
    ],
)
def test_momentum_by_hand(
    momentum: float, dampening: float, nesterov: bool, decay: float, holdfast: Callable[..., Any]
) -> None:
    numbers = {"momentum": momentum, "dampening": dampening, "nesterov": str(nesterov).lower(), "weight_decay": decay}
    ran = holdfast("lr=0.001", "batch_size=5", *START, *(f"optimizer.{key}={value}" for key, value in numbers.items()))
    point, velocity = np.array([-15.0, -10.0]), None
    for x, y in batches(5, 10):
        step = np.array(gradient(*point, x, y)) + decay * point
        if momentum:
            velocity = step if velocity is None else momentum * velocity + (1 - dampening) * step
            step = step + momentum * velocity if nesterov else velocity
        point = point - 0.001 * step
    assert weights(ran.folder) == pytest.approx(tuple(point), rel=1e-10)


def test_adam_and_rmsprop_by_hand(holdfast: Callable[..., Any]) -> None:
    point, mean, square = np.array([-15.0, -10.0]), np.zeros(2), np.zeros(2)
    other, running = point.copy(), np.zeros(2)
    for step, (x, y) in enumerate(batches(5, 10), start=1):
        g = np.array(gradient(*point, x, y))
        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2
        point = point - 0.1 * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        g = np.array(gradient(*other, x, y))
        running = 0.99 * running + 0.01 * g**2
        other = other - 0.1 * g / (np.sqrt(running) + 1e-8)
    for name, expected in (("adam", point), ("rmsprop", other)):
        ran = holdfast(f"optimizer={name}", "lr=0.1", "batch_size=5", *START)
        assert weights(ran.folder) == pytest.approx(tuple(expected), rel=1e-8)


def test_accumulated_batches_are_one_larger_batch(holdfast: Callable[..., Any]) -> None:
    small = holdfast("lr=0.01", "batch_size=5", "trainer.accumulate_grad_batches=4", *START)
    large = holdfast("lr=0.01", "batch_size=20", *START)
    assert small.result.iterations == large.result.iterations == 30
    assert weights(small.folder) == pytest.approx(weights(large.folder), rel=1e-12)


MODULES = """
import torch
from holdfast.model import Linear, Module

class NeverZeroed(Linear):
    def optimizer_zero_grad(self, epoch, batch_idx, optimizer):
        pass
    def on_validation_model_zero_grad(self):
        pass

class Raises(Linear):
    def loss(self, batch):
        raise RuntimeError("the loss of Raises cannot be computed")

class ValLoss(Linear):
    '''Logs given validation losses.'''
    def __init__(self, values):
        super().__init__()
        self.values = list(values)
    def on_validation_epoch_end(self):
        self._sums = []
        self.log("val/loss", torch.tensor(float(self.values[self.current_epoch])))

class Shaped(Linear):
    '''Has a loss of a given shape.'''
    statistics, metrics = Module.statistics, staticmethod(Module.metrics)
    def __init__(self, shape):
        super().__init__(weight=-15.0, bias=-10.0)
        self.shape = tuple(shape)
    def loss(self, batch):
        return super().loss(batch).reshape(self.shape)
    def on_validation_epoch_end(self):
        super().on_validation_epoch_end()
        self.log("val/shaped", torch.full(self.shape, 3.0))
"""


@pytest.fixture
def users_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Write the config of a user's module; returns the overrides that select it."""
    (tmp_path / "users_models.py").write_text(MODULES)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "conf" / "model").mkdir(parents=True)

    def choose(name: str, keys: str = "") -> list[str]:
        (tmp_path / "conf" / "model" / "mine.yaml").write_text(f"_target_: users_models.{name}\n{keys}")
        return ["--config-dir", str(tmp_path / "conf"), "model=mine"]

    return choose


def test_without_zero_grad_gradients_accumulate(
    users_model: Callable[..., list[str]], holdfast: Callable[..., Any]
) -> None:
    overrides = users_model("NeverZeroed", "weight: -15.0\nbias: -10.0\n")
    ran = holdfast(*overrides, "precision=64-true", "lr=0.0001", "batch_size=5", "epochs=2")
    point, summed = np.array([-15.0, -10.0]), np.zeros(2)
    for x, y in batches(5, 2):
        summed = summed + np.array(gradient(*point, x, y))
        point = point - 0.0001 * summed
    assert weights(ran.folder) == pytest.approx(tuple(point), rel=1e-12)


def test_torch_continues_from_the_optimizer_state_of_a_checkpoint(holdfast: Callable[..., Any]) -> None:
    overrides = ("lr=0.001", "batch_size=5", "optimizer.momentum=0.9", *START)
    half, whole = holdfast("epochs=3", *overrides), holdfast("epochs=6", *overrides)
    checkpoint = torch.load(half.folder.last, weights_only=True)
    layer = torch.nn.Linear(1, 1, dtype=torch.float64)
    layer.load_state_dict({key.removeprefix("network."): value for key, value in checkpoint["state_dict"].items()})
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    optimizer.load_state_dict(checkpoint["optimizer_states"][0])
    for x, y in list(batches(5, 6))[36:]:
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(layer(x), y).backward()
        optimizer.step()
    assert (layer.weight.item(), layer.bias.item()) == pytest.approx(weights(whole.folder), rel=1e-12)


@pytest.mark.parametrize(
    ("overrides", "rates"),
    [
        (["scheduler=none"], [0.01] * 6),
        (["scheduler=step", "scheduler.step_size=2"], [0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001]),
        (["scheduler=exponential", "scheduler.gamma=0.5"], [0.01 * 0.5**epoch for epoch in range(6)]),
        (["scheduler=cosine"], [0.005 * (1 + math.cos(math.pi * epoch / 6)) for epoch in range(6)]),
    ],
)
def test_schedulers_by_formula(overrides: list[str], rates: list[float], holdfast: Callable[..., Any]) -> None:
    ran = holdfast("lr=0.01", "epochs=6", "batch_size=full", *overrides, *START)
    np.testing.assert_allclose([event.value for event in read(ran.folder.path).Scalars("train/lr")], rates, rtol=1e-6)
    w, b = -15.0, -10.0
    for rate, (x, y) in zip(rates, batches(60, 6), strict=True):
        dw, db = gradient(w, b, x, y)
        w, b = w - rate * dw, b - rate * db
    assert weights(ran.folder) == pytest.approx((w, b), rel=1e-10)


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradient_clipping_by_hand(algorithm: str, holdfast: Callable[..., Any]) -> None:
    clip = ["trainer.gradient_clip_val=3", f"trainer.gradient_clip_algorithm={algorithm}"]
    ran = holdfast("lr=0.01", "batch_size=5", "epochs=3", *clip, *START)
    point = np.array([-15.0, -10.0])
    for x, y in batches(5, 3):
        g = np.array(gradient(*point, x, y))
        point = point - 0.01 * (g * min(1, 3 / (np.hypot(*g) + 1e-6)) if algorithm == "norm" else g.clip(-3, 3))
    assert weights(ran.folder) == pytest.approx(tuple(point), rel=1e-10)


def test_the_same_command_twice_gives_the_same_bits_and_seed_0_is_a_seed(holdfast: Callable[..., Any]) -> None:
    overrides = ("data=linear", "data.rows=100", "model=mlp", "model.dropout=0.2", "batch_size=8", "epochs=3")
    torch.manual_seed(1)
    first = holdfast(*overrides)
    torch.manual_seed(2)
    again, other = holdfast(*overrides, "seed=0"), holdfast(*overrides, "seed=1")
    for name in ("weights", "best", "last"):
        states = [torch.load(getattr(ran.folder, name), weights_only=True) for ran in (first, again, other)]
        states = [state.get("state_dict", state) for state in states]
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
        assert not all(torch.equal(states[0][key], states[2][key]) for key in states[0])
    assert first.result.best == again.result.best
    assert first.folder.weights.read_bytes() == again.folder.weights.read_bytes()


def test_a_run_leaves_the_callers_random_numbers_alone(holdfast: Callable[..., Any]) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    holdfast("epochs=1", "model=mlp", "model.dropout=0.5")
    assert torch.equal(torch.rand(3), expected)


def test_checkpoints_load_as_lightning_loads_them(holdfast: Callable[..., Any]) -> None:
    ran = holdfast("epochs=3", "batch_size=5")
    for path in (ran.folder.best, ran.folder.last):
        checkpoint = torch.load(path, weights_only=True)
        assert {"state_dict", "optimizer_states", "lr_schedulers", "loops", "hyper_parameters"} <= checkpoint.keys()
        model = Linear.load_from_checkpoint(path, weights_only=True, map_location="cpu")
        assert torch.equal(model.network.weight, checkpoint["state_dict"]["network.weight"])
    assert torch.load(ran.folder.last, weights_only=True)["epoch"] == 2
    assert weights(ran.folder, "weights") == weights(ran.folder, "best")


def test_the_test_rows_are_opened_once_with_the_best_weights(holdfast: Callable[..., Any]) -> None:
    closed, opened = holdfast("batch_size=5"), holdfast("batch_size=5", "test=true")
    assert (closed.result.test, closed.result.test_opened) == (None, 0)
    assert opened.result.test_opened == 1
    assert opened.result.best["epoch"] != opened.result.last["epoch"]
    w, b = weights(opened.folder, "weights")
    assert opened.result.test["test/loss"] == pytest.approx(loss(w, b, TEST.x.double(), TEST.y.double()), rel=1e-6)
    assert set(opened.result.test) == {"test/loss", "test/mae", "test/r2"}
    assert opened.result.best == closed.result.best
    assert "test rows opened 1x" in opened.out
    assert [event.value for event in read(opened.folder.path).Scalars("test/loss")] == pytest.approx(
        [opened.result.test["test/loss"]], rel=1e-6
    )


def test_an_exception_is_recorded_in_the_result_and_in_the_exit_code(
    users_model: Callable[..., list[str]], holdfast: Callable[..., Any]
) -> None:
    ran = holdfast(*users_model("Raises"))
    assert ran.code == 1
    assert ran.result.status == "failed"
    assert re.fullmatch(
        r"RuntimeError: the loss of Raises cannot be computed \(users_models.py, line \d+, in loss\)", ran.result.error
    )
    assert "Traceback" in ran.folder.log.read_text()
    assert "the loss of Raises cannot be computed" in ran.err


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
@pytest.mark.parametrize("epoch", [0, 2])
def test_a_validation_loss_that_is_not_finite_is_never_the_best(
    value: str, epoch: int, users_model: Callable[..., list[str]], holdfast: Callable[..., Any]
) -> None:
    values = ["3.0", "2.0", "1.0", "0.5"]
    values[epoch] = value
    ran = holdfast(*users_model("ValLoss", f"values: [{', '.join(values)}]\n"), "epochs=4")
    assert (ran.code, ran.result.status) == (0, "diverged")
    assert ran.result.last["val/loss"] is None
    if epoch == 0:
        assert ran.result.best is None
        assert not ran.folder.best.exists()
        assert not ran.folder.weights.exists()
    else:
        assert (ran.result.best["epoch"], ran.result.best["val/loss"]) == (1, 2.0)


def test_the_first_of_equal_losses_is_the_best(
    users_model: Callable[..., list[str]], holdfast: Callable[..., Any]
) -> None:
    ran = holdfast(*users_model("ValLoss", "values: [2.0, 1.0, 1.0]\n"), "epochs=3")
    assert ran.result.best["epoch"] == 1


def test_early_stopping_ends_a_run_that_no_longer_improves(
    users_model: Callable[..., list[str]], holdfast: Callable[..., Any]
) -> None:
    overrides = users_model("ValLoss", "values: [3.0, 2.0, 2.5, 2.4, 1.0]\n")
    ran = holdfast(*overrides, "epochs=5", "callbacks.early_stopping.patience=2")
    assert (ran.result.status, ran.result.epochs, ran.result.best["epoch"]) == ("completed", 4, 1)


def test_a_metric_that_is_not_logged_is_refused_with_a_suggestion(holdfast: Callable[..., Any]) -> None:
    ran = holdfast("metric=val/lss")
    assert (ran.code, ran.result.status) == (1, "failed")
    assert "did you mean val/loss?" in ran.err
    assert "Traceback" not in ran.err


def test_a_run_that_diverges_inside_a_long_epoch_ends_there(holdfast: Callable[..., Any]) -> None:
    ran = holdfast("data=linear", "data.rows=20000", "lr=1000", "epochs=3")
    assert (ran.result.status, ran.result.epochs, ran.result.iterations) == ("diverged", 1, 1000)


@pytest.mark.parametrize(
    ("overrides", "missing"),
    [(["logger=none"], "events"), (["trainer.full_train_loss=false"], "train/loss")],
)
def test_outputs_that_are_switched_off_are_not_written(
    overrides: list[str], missing: str, holdfast: Callable[..., Any]
) -> None:
    ran = holdfast("epochs=1", *overrides)
    assert ran.code == 0
    if missing == "events":
        assert not list(ran.folder.path.glob("events.out.tfevents.*"))
    else:
        assert ran.result.best["train/loss"] is None
        assert ran.result.best["train/loss_epoch"] > 0


def test_a_users_logger_is_given_the_same_metrics(holdfast: Callable[..., Any]) -> None:
    ran = holdfast("epochs=2", "batch_size=full", "logger=csv", "trainer.log_every_n_steps=1")
    rows = [line.split(",") for line in (ran.folder.path / "metrics.csv").read_text().splitlines()]
    last = dict(zip(rows[0], rows[-1], strict=True))
    assert float(last["val/loss"]) == pytest.approx(ran.result.last["val/loss"])
    assert sum(bool(dict(zip(rows[0], row, strict=True))["train/loss_step"]) for row in rows[1:]) == 2


@pytest.mark.parametrize("shape", ["[1]", "[1,1]"])
def test_a_loss_with_one_entry_is_recorded_like_a_scalar(
    shape: str, users_model: Callable[..., list[str]], holdfast: Callable[..., Any]
) -> None:
    overrides = [*users_model("Shaped", "shape: []\n"), "lr=0.001", "epochs=2", "batch_size=20", "logger=csv"]
    overrides.append("trainer.accumulate_grad_batches=2")
    scalar, shaped = holdfast(*overrides), holdfast(*overrides, f"model.shape={shape}")
    assert (shaped.code, shaped.err) == (0, "")
    assert shaped.result.best == scalar.result.best
    assert shaped.result.best["val/shaped"] == 3.0
    curves = [[event.value for event in read(ran.folder.path).Scalars("train/loss_step")] for ran in (scalar, shaped)]
    assert len(curves[0]) == 6
    assert curves[0] == curves[1]
    tables = [(ran.folder.path / "metrics.csv").read_text() for ran in (scalar, shaped)]
    assert tables[0] == tables[1]


def test_accumulated_batches_are_recorded_with_the_loss_of_each_batch(holdfast: Callable[..., Any]) -> None:
    ran = holdfast("lr=0.001", "batch_size=5", "epochs=1", "trainer.accumulate_grad_batches=4", *START)
    w, b, losses, summed = -15.0, -10.0, [], np.zeros(2)
    for number, (x, y) in enumerate(batches(5, 1), start=1):
        losses.append(loss(w, b, x, y))
        summed += np.array(gradient(w, b, x, y)) / 4
        if number % 4 == 0:
            w, b = np.array([w, b]) - 0.001 * summed
            summed[:] = 0
    seen = read(ran.folder.path).Scalars("train/loss_step")
    np.testing.assert_allclose([event.value for event in seen], losses, rtol=1e-6)
    assert ran.result.last["train/loss_epoch"] == pytest.approx(sum(losses) / 12, rel=1e-9)


@pytest.mark.parametrize("steps", [30, 90])
def test_a_last_epoch_that_max_steps_cuts_short_is_validated(steps: int, holdfast: Callable[..., Any]) -> None:
    ran = holdfast(f"trainer.max_steps={steps}", "lr=0.001", *START)
    w, b = weights(ran.folder)
    assert (ran.result.iterations, ran.result.epochs) == (steps, math.ceil(steps / 60))
    assert ran.result.last["val/loss"] == pytest.approx(loss(w, b, VAL.x.double(), VAL.y.double()), rel=1e-9)


def test_targets_that_torch_would_broadcast_are_refused() -> None:
    with pytest.raises(DataError, match=r"\(rows, 1\)"):
        Linear().loss((torch.zeros(4, 1), torch.zeros(4)))


USERS = """
import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset
from holdfast.model import Module

class Pairs(Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, row):
        return {"x": torch.full((1,), float(row)), "y": torch.full((1,), 2.0 * row)}

class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield {"x": torch.ones(1), "y": torch.ones(1)}

class Data(pl.LightningDataModule):
    def __init__(self, endless=False):
        super().__init__()
        self.endless = endless
    def train_dataloader(self):
        return DataLoader(Endless() if self.endless else Pairs(), 4)
    def val_dataloader(self):
        return DataLoader(Pairs(), 8)
    def test_dataloader(self):
        return DataLoader(Pairs(), 8)

class OnlyLoss(Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(1.0))
    def loss(self, batch):
        return ((self.w * batch["x"] - batch["y"]) ** 2).mean()

class OtherLoss(pl.LightningModule):
    '''loss() takes two arguments, as in many projects.'''
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(1.0))
    def loss(self, prediction, y):
        return ((prediction - y) ** 2).mean()
    def training_step(self, batch):
        value = self.loss(self.w * batch["x"], batch["y"])
        self.log("train/loss", value, on_step=False, on_epoch=True)
        return value
    def validation_step(self, batch):
        self.log("val/loss", self.loss(self.w * batch["x"], batch["y"]))
        self.logger.experiment.add_scalar("mine/w", self.w, self.current_epoch)
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.001)
"""


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    (tmp_path / "users_modules.py").write_text(USERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    for group, name, keys in (
        ("data", "Data", "endless: false\n"),
        ("model", "OnlyLoss", ""),
        ("model", "OtherLoss", ""),
    ):
        (tmp_path / "conf" / group).mkdir(parents=True, exist_ok=True)
        text = f"_target_: users_modules.{name}\n{keys}"
        (tmp_path / "conf" / group / f"{name.lower()}.yaml").write_text(text)
    return lambda model: ["--config-dir", str(tmp_path / "conf"), "data=data", f"model={model}"]


def test_a_module_with_nothing_but_a_loss_is_trained_validated_and_tested(
    plugged: Callable[[str], list[str]], holdfast: Callable[..., Any]
) -> None:
    ran = holdfast(*plugged("onlyloss"), "lr=0.001", "epochs=2", "optimizer.momentum=0.5", "test=true")
    assert ran.code == 0, ran.err
    w, velocity = 1.0, 0.0
    x = torch.arange(8.0).double()
    for _ in range(2):
        for rows in (x[:4], x[4:]):
            velocity = 0.5 * velocity + float((2 * (w - 2) * rows**2).mean())
            w -= 0.001 * velocity
    state = torch.load(ran.folder.weights, weights_only=True)
    assert state["w"].item() == pytest.approx(w, rel=1e-5)
    expected = (w - 2) ** 2 * float((x**2).mean())
    for value in (ran.result.best["val/loss"], ran.result.best["train/loss"], ran.result.test["test/loss"]):
        assert value == pytest.approx(expected, rel=1e-5)
    assert ran.result.test_opened == 1


def test_a_loss_with_another_signature_and_an_endless_loader_give_no_training_metrics(
    plugged: Callable[[str], list[str]], holdfast: Callable[..., Any]
) -> None:
    ran = holdfast(*plugged("otherloss"), "epochs=2")
    assert ran.code == 0, ran.err
    assert ran.result.best["train/loss"] > 0
    assert len(read(ran.folder.path / "experiment").Scalars("mine/w")) == 2
    endless = holdfast(
        *plugged("onlyloss"), "data.endless=true", "trainer.limit_train_batches=3", "lr=0.001", "epochs=2"
    )
    assert endless.code == 0, endless.err
    assert (endless.result.iterations, endless.result.best["train/loss"]) == (6, None)
    unable = holdfast(*plugged("otherloss"), "epochs=1", "test=true")
    assert unable.code == 1
    assert "needs a test_step" in unable.err


def test_a_users_option_may_leave_arguments_at_their_defaults(tmp_path: Path, holdfast: Callable[..., Any]) -> None:
    (tmp_path / "conf" / "optimizer").mkdir(parents=True)
    (tmp_path / "conf" / "optimizer" / "short.yaml").write_text("_target_: torch.optim.SGD\nlr: ${lr}\n")
    (tmp_path / "conf" / "optimizer" / "unset.yaml").write_text("_target_: torch.optim.SGD\nlr: ???\n")
    overrides = ["--config-dir", str(tmp_path / "conf"), "batch_size=5"]
    assert holdfast(*overrides, "optimizer=short").result.best == holdfast("batch_size=5").result.best
    unset = holdfast(*overrides, "optimizer=unset")
    assert unset.code == 2
    assert "optimizer.lr" in unset.err


def test_a_loader_that_fails_is_told_by_its_own_error(tmp_path: Path) -> None:
    (tmp_path / "unreadable.py").write_text(
        "from holdfast.data import Line\n"
        "class Rows(Line):\n"
        "    def train_dataloader(self):\n"
        "        return self\n"
        "    def __iter__(self):\n"
        "        raise ValueError('row 7 cannot be read')\n"
    )
    (tmp_path / "my_conf" / "data").mkdir(parents=True)
    (tmp_path / "my_conf" / "data" / "unreadable.yaml").write_text("_target_: unreadable.Rows\n")
    words = ["--config-dir", "my_conf", "data=unreadable", "epochs=1", "hydra.run.dir=run"]
    done = python(ROOT / "train.py", *words, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    result = RunFolder(tmp_path / "run").read()
    assert result is not None
    assert (result.error or "").startswith("ValueError: row 7 cannot be read (unreadable.py, line 6")


def test_a_mean_that_a_module_logs_itself_is_the_one_in_the_result(
    tmp_path: Path, holdfast: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "logs_mean.py").write_text(
        "from holdfast.model import Linear\n"
        "class Logs(Linear):\n"
        "    def training_step(self, batch):\n"
        "        loss = self.loss(batch)\n"
        "        self.log('train/loss', loss, on_step=True, on_epoch=True)\n"
        "        return loss\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    ran = holdfast("model._target_=logs_mean.Logs", "batch_size=40", "epochs=1")  # batches of 40 and 20 rows
    (file,) = ran.folder.curves()
    seen = read(file)
    logged = [event.value for event in seen.Scalars("train/loss_epoch")]
    assert ran.result.last["train/loss_epoch"] == pytest.approx(logged[-1], rel=1e-6)
    steps = [event.value for event in seen.Scalars("train/loss_step")][:2]
    assert logged[-1] == pytest.approx((40 * steps[0] + 20 * steps[1]) / 60, rel=1e-5)
