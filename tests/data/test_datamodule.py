"""Test rows are sealed until a Trainer tests, and each opening is counted."""

from __future__ import annotations

import gc
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from holdfast.data import DataModule, Line, Linear
from holdfast.errors import SealedError
from holdfast.model import Linear as LinearModel
from tests.conftest import bare_trainer

pytestmark = pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning")

SEED = 987  # no other test makes rows with this seed


class Spy(pl.Callback):
    """A callback that tries to read test rows through the data module, and searches memory for them."""

    def __init__(self) -> None:
        self.refused = 0
        self.found_rows = False

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        test_rows = Line(seed=SEED).draw("test").y
        with pytest.raises(SealedError, match="test=true"):
            data.test_dataloader()
        with pytest.raises(SealedError, match="test=true"):
            data.rows("test")
        self.refused += 1
        tensors = [part for part in gc.get_objects() if issubclass(type(part), torch.Tensor) and part is not test_rows]
        self.found_rows |= any(part.shape == test_rows.shape and torch.equal(part, test_rows) for part in tensors)


def module() -> LinearModel:
    model = LinearModel()
    model.optimize_with(lambda parameters: torch.optim.SGD(parameters, lr=0.01), None, "val/loss")
    return model


def test_training_code_cannot_read_test_rows() -> None:
    data, spy = Line(batch_size=30, seed=SEED), Spy()
    bare_trainer(spy).fit(module(), datamodule=data)
    assert spy.refused == 2
    assert not spy.found_rows
    assert data.test_opened == 0


def test_the_spy_finds_leaked_test_rows() -> None:
    class Leaky(Line):
        def setup(self, stage: str) -> None:
            super().setup(stage)
            self.leaked = self.draw("test").y

    spy = Spy()
    bare_trainer(spy).fit(module(), datamodule=Leaky(batch_size=60, seed=SEED))
    assert spy.found_rows


def test_each_opening_of_the_test_rows_is_counted() -> None:
    data, model, tester = Line(), module(), bare_trainer()
    for opened in (1, 2):
        tester.test(model, datamodule=data, verbose=False)
        assert data.test_opened == opened
    rows = Line().draw("test")
    with torch.no_grad():
        expected = torch.nn.functional.mse_loss(model(rows.x), rows.y)
    assert float(tester.callback_metrics["test/loss"]) == pytest.approx(float(expected), rel=1e-6)
    assert not hasattr(data, "test")


@pytest.mark.parametrize("data", [Line(batch_size=7), Linear(batch_size=7, rows=100, features=3)])
def test_without_a_trainer_only_the_test_rows_are_sealed(data: DataModule) -> None:
    data.setup("fit")
    x, y = next(iter(data.train_dataloader()))
    assert len(x) == len(y) == 7
    assert sum(len(y) for _, y in data.val_dataloader()) == len(data.val)
    with pytest.raises(SealedError):
        data.test_dataloader()


def test_batch_size_full_is_one_batch() -> None:
    data = Line(batch_size="full")
    data.setup("fit")
    assert len(data.train_dataloader()) == 1
