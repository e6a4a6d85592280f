"""Gradients, metrics and hooks of the Lightning modules, against values computed by hand."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.data import Line
from holdfast.model import MLP, Linear, Module
from holdfast.model.module import measure
from tests.conftest import bare_trainer

ROWS = Line().rows("train")


@pytest.mark.parametrize("make", [Linear, MLP, lambda: MLP(hidden=[4, 4], activation="relu")])
def test_the_gradient_is_that_of_the_mean_squared_error(make: Any) -> None:
    model = make().double()
    x, y = ROWS.x.double(), ROWS.y.double()
    loss = model.loss((x, y))
    loss.backward()
    torch.testing.assert_close(loss, ((model(x) - y) ** 2).sum() / 60)
    for parameter in model.parameters():
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        for index in range(len(flat)):
            before, step = flat[index].item(), 1e-6
            flat[index] = before + step
            above = model.loss((x, y)).item()
            flat[index] = before - step
            below = model.loss((x, y)).item()
            flat[index] = before
            assert gradient[index].item() == pytest.approx((above - below) / (2 * step), rel=1e-4, abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 15), min_size=1, max_size=4), st.floats(-5, 5), st.floats(-5, 5))
def test_metrics_do_not_depend_on_how_rows_are_batched(sizes: list[int], weight: float, bias: float) -> None:
    model = Linear(weight=weight, bias=bias)
    count = sum(sizes)
    x, y = ROWS.x[:count], ROWS.y[:count]
    with torch.no_grad():
        sums = [model.statistics(batch) for batch in zip(x.split(sizes), y.split(sizes), strict=True)]
        error = (model(x) - y).double()
    metrics = measure(model, sums, "val")
    assert metrics["val/loss"] == pytest.approx(float(error.square().mean()), rel=1e-6)
    assert metrics["val/mae"] == pytest.approx(float(error.abs().mean()), rel=1e-6)
    if count > 1:
        spread = float((y.double() - y.double().mean()).square().sum())
        assert metrics["val/r2"] == pytest.approx(1 - float(error.square().sum()) / spread, rel=1e-5, abs=1e-6)
    else:
        assert metrics["val/r2"] != metrics["val/r2"]


class Clipped(Linear):
    """What the network returns, held at or above zero by `forward` alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).clamp_min(0.0)


def test_loss_and_metrics_are_those_of_forward() -> None:
    model, batch = Clipped(weight=1.0, bias=0.0), (torch.tensor([[-2.0], [3.0]]), torch.tensor([[1.0], [1.0]]))
    assert model.loss(batch).item() == ((0 - 1) ** 2 + (3 - 1) ** 2) / 2
    assert measure(model, [model.statistics(batch)], "val")["val/mae"] == (1 + 2) / 2


def test_initial_values_are_constant() -> None:
    model = Linear(features=3, weight=-15.0, bias=-10.0)
    assert model(torch.ones(2, 3)).tolist() == [[-55.0], [-55.0]]


def test_a_module_needs_only_a_loss() -> None:
    class Absolute(Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.tensor(2.0))

        def loss(self, batch: Any) -> torch.Tensor:
            x, y = batch
            return (self.w * x - y).abs().mean()

    model = Absolute()
    sums = [
        model.statistics((torch.ones(3, 1), torch.zeros(3, 1))),
        model.statistics((torch.ones(1, 1), torch.ones(1, 1))),
    ]
    assert measure(model, sums, "val") == {"val/loss": 7 / 4}


class Doubling(Linear):
    """A module whose hook doubles the targets."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        x, y = batch
        return x, 2 * y


class DoublingData(Line):
    """A data module whose hook doubles the targets."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        x, y = batch
        return x, 2 * y


@pytest.mark.parametrize(
    ("model", "data", "factor"), [(Linear, Line, 1), (Doubling, Line, 2), (Linear, DoublingData, 2)]
)
@pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning")
@pytest.mark.filterwarnings("ignore:You have overridden .on_after_batch_transfer. in .LightningModule.:UserWarning")
def test_transfer_hooks_of_the_user_are_called(model: Any, data: Any, factor: int) -> None:
    module, batches = model(weight=0.0, bias=0.0), []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, index: int) -> None:
            batches.append(batch)

    module.optimize_with(lambda parameters: torch.optim.SGD(parameters, lr=0.0), None, "val/loss")
    bare_trainer(Watch()).fit(module, datamodule=data(batch_size="full", shuffle=False))
    assert torch.equal(batches[0][1], factor * ROWS.y)
