"""Validation that is not run once at the end of each epoch: the best weights are those that were measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from holdfast.cli.main import main
from holdfast.data import Linear as Rows8
from holdfast.data.order import EVALUATION_ROWS
from holdfast.model import Linear
from tests.conftest import Ran, command_line

X = torch.linspace(-1, 1, 60).unsqueeze(1)
Y = 3 * X + 1


class Points(pl.LightningDataModule):
    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(X, Y), 5, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(X, Y), 60)


class Wandering(pl.LightningModule):
    """Its loss rises and falls from one validation to the next, since the learning rate is too large at times."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(1, 1)

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return nn.functional.mse_loss(self.line(x), y)

    def training_step(self, batch: Any, index: int) -> Tensor:
        return self.loss(batch) * (1 if (self.global_step // 7) % 2 else -0.5)

    def validation_step(self, batch: Any) -> None:
        self.log("val/loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.05)


class Noting(pl.Callback):
    """Measures the module at every validation by itself, and writes epoch, step and loss into a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            with Path(self.path).open("a") as stream, torch.no_grad():
                loss = float(pl_module.loss((X, Y)))  # type: ignore[operator]
                stream.write(json.dumps([trainer.current_epoch, trainer.global_step, loss]) + "\n")


HERE = "tests.single.test_validation_schedule"
OWN = {
    "model/wandering.yaml": f"_target_: {HERE}.Wandering",
    "data/points.yaml": f"_target_: {HERE}.Points",
    "callbacks/noting.yaml": f"defaults: [default]\nnoting: {{_target_: {HERE}.Noting, path: noted}}",
    "callbacks/interrupted.yaml": f"defaults: [noting]\nstop: {{_target_: {HERE}.Interrupt, epoch: 3}}",
}
WORDS = ["--config-dir", "my_conf", "model=wandering", "data=points", "epochs=6"]
SCHEDULES = {
    "every epoch": [],
    "every second epoch": ["trainer.check_val_every_n_epoch=2"],
    "every fourth epoch": ["trainer.check_val_every_n_epoch=4"],
    "four times an epoch": ["trainer.val_check_interval=0.25"],
    "every five batches": ["trainer.val_check_interval=5"],
    "every five batches across epochs": ["trainer.val_check_interval=5", "trainer.check_val_every_n_epoch=null"],
    "every thirty batches": ["trainer.val_check_interval=30", "trainer.check_val_every_n_epoch=null"],
    "after a check at the start": ["trainer.num_sanity_val_steps=2", "trainer.val_check_interval=0.5"],
    "the higher the better": ["trainer.val_check_interval=0.25", "mode=max"],
    "until a number of updates": ["trainer.max_steps=40", "trainer.val_check_interval=5"],
}


@pytest.fixture
def run(holdfast: Callable[..., Ran], tmp_path: Path) -> Callable[..., Ran]:
    """Train `Wandering` on `Points`."""
    for name, text in OWN.items():
        (tmp_path / "my_conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "my_conf" / name).write_text(text)
    return lambda *words: holdfast(*WORDS, *words)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_best_weights_are_those_of_the_best_validation(name: str, run: Callable[..., Ran], tmp_path: Path) -> None:
    words = SCHEDULES[name]
    ran = run("callbacks=noting", *words)
    assert ran.code == 0, ran.err
    noted = [json.loads(line) for line in (tmp_path / "noted").read_text().splitlines()]
    epoch, step, loss = (max if "mode=max" in words else min)(noted, key=lambda entry: entry[2])
    best = ran.result.best
    assert best is not None
    assert (best["epoch"], best["val/loss"]) == (epoch, pytest.approx(loss, rel=1e-6))
    checkpoint = torch.load(ran.folder.best, weights_only=True)
    assert checkpoint["global_step"] == step
    module = Wandering()
    module.load_state_dict(checkpoint["state_dict"])
    assert float(module.loss((X, Y)).detach()) == pytest.approx(loss, rel=1e-6)
    at_the_end = [entry for entry in noted if entry[1] == ran.result.iterations]
    assert ran.result.last is not None
    assert ran.result.last["val/loss"] == (pytest.approx(at_the_end[0][2], rel=1e-6) if at_the_end else None)


@pytest.mark.parametrize("name", ["every second epoch", "four times an epoch", "every five batches across epochs"])
def test_a_run_that_is_resumed_ends_as_if_it_had_not_been_interrupted(
    name: str, run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run("callbacks=noting", *SCHEDULES[name])
    cut = run("callbacks=interrupted", *SCHEDULES[name])
    assert cut.code == 130
    assert cut.folder.last.exists()
    monkeypatch.setattr(Interrupt, "on_train_epoch_start", lambda *_: None)
    with pytest.raises(SystemExit):
        main(["--config-dir", "my_conf", f"resume={cut.folder.path}"])
    result = cut.folder.read()
    assert result is not None
    assert (result.best, result.last) == (whole.result.best, whole.result.last)
    assert cut.folder.weights.read_bytes() == whole.folder.weights.read_bytes()


class Interrupt(pl.Callback):
    """Stands for Ctrl-C at the start of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            raise KeyboardInterrupt


def test_epochs_without_a_validation_do_not_count_as_waiting(holdfast: Callable[..., Ran]) -> None:
    words = ["epochs=12", "trainer.check_val_every_n_epoch=3", "callbacks.early_stopping.patience=2"]
    ran = holdfast(*words, "callbacks.early_stopping.min_delta=1e9")
    assert ran.result.epochs == 9  # validated after 3, 6 and 9 epochs: the first counts as an improvement


def test_validations_inside_an_epoch_that_bring_nothing_count_as_waiting(run: Callable[..., Ran]) -> None:
    words = ["trainer.val_check_interval=0.7", "callbacks.early_stopping.patience=1"]
    ran = run(*words, "callbacks.early_stopping.min_delta=1e9")
    assert (ran.result.status, ran.result.epochs) == ("completed", 2)


def test_a_misspelt_metric_is_told_after_the_first_validation(run: Callable[..., Ran]) -> None:
    ran = run("trainer.val_check_interval=0.7", "metric=val/los")
    assert ran.code == 1
    assert "metric=val/los is not logged by Wandering: did you mean val/loss?" in ran.err
    assert ran.result.epochs == 0


@pytest.mark.parametrize("more", [[], ["trainer.min_epochs=3"], ["trainer.min_steps=90"]])
@pytest.mark.parametrize("steps", [4, 20])
def test_the_weights_after_the_last_update_are_validated(steps: int, more: list[str], run: Callable[..., Ran]) -> None:
    ran = run(f"trainer.max_steps={steps}", *more)
    assert ran.code == 0, ran.err
    module = Wandering()
    module.load_state_dict(torch.load(ran.folder.last, weights_only=True)["state_dict"])
    assert ran.result.last is not None
    assert ran.result.iterations == steps
    assert ran.result.last["val/loss"] == pytest.approx(float(module.loss((X, Y)).detach()), rel=1e-6)


class TwoUpdates(Wandering):
    """Two optimizers: Lightning counts two updates a batch, and passes over an odd limit."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, index: int) -> Tensor:
        loss = self.loss(batch)
        for optimizer in self.optimizers():  # type: ignore[union-attr]
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():  # type: ignore[union-attr]
            optimizer.step()
        return loss

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD([value], 0.05) for value in self.parameters()]


def test_a_limit_that_is_passed_over_ends_the_run_with_a_validation(run: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "my_conf" / "model" / "wandering.yaml").write_text(f"_target_: {HERE}.TwoUpdates")
    ran = run("trainer.max_steps=7")
    assert ran.code == 0, ran.err
    assert ran.result.iterations == 8
    assert ran.result.best is not None


def test_losses_are_those_of_the_batches_whatever_a_callback_accumulates(
    run: Callable[..., Ran], tmp_path: Path
) -> None:
    scheduler = "{_target_: lightning.pytorch.callbacks.GradientAccumulationScheduler, scheduling: {0: 1, 1: 4}}"
    (tmp_path / "my_conf" / "callbacks" / "gas.yaml").write_text(f"defaults: [default]\ngas: {scheduler}\n")
    (tmp_path / "my_conf" / "model" / "wandering.yaml").write_text(f"_target_: {HERE}.Still")
    plain, accumulated = run(), run("callbacks=gas")
    assert accumulated.code == 0, accumulated.err
    assert plain.result.last is not None
    assert accumulated.result.last is not None
    assert accumulated.result.last["train/loss_epoch"] == pytest.approx(plain.result.last["train/loss_epoch"], rel=1e-6)


class Still(Wandering):
    """Its weights never move, so that the losses of an epoch are known."""

    def __init__(self) -> None:
        super().__init__()
        nn.init.constant_(self.line.weight, 0.5)
        nn.init.constant_(self.line.bias, 0.5)

    def training_step(self, batch: Any, index: int) -> Tensor:
        return self.loss(batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.0)


def test_early_stopping_waits_for_min_epochs_but_divergence_does_not(holdfast: Callable[..., Ran]) -> None:
    never = ["callbacks.early_stopping.patience=1", "callbacks.early_stopping.min_delta=1e9"]
    assert holdfast(*never).result.epochs == 2
    assert holdfast(*never, "trainer.min_epochs=5").result.epochs == 5
    assert holdfast(*never, "trainer.min_steps=200").result.epochs == 4  # of 60 iterations each
    diverged = holdfast("lr=1", "trainer.min_epochs=5", "trainer.min_steps=200").result
    assert (diverged.status, diverged.epochs) == ("diverged", 1)


def test_a_metric_that_was_never_measured_is_an_error(holdfast: Callable[..., Ran]) -> None:
    ran = holdfast("epochs=3", "trainer.check_val_every_n_epoch=5")
    assert ran.code == 1
    assert "metric=val/loss was never measured: no validation took place in 3 epochs" in ran.err
    assert ran.result.status == "failed"


class ByHand(Wandering):
    """Updates its parameters behind Lightning's back, and measures a metric of its own while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, index: int) -> Tensor:
        optimizer = self.optimizers(use_pl_optimizer=False)
        optimizer.zero_grad()  # type: ignore[union-attr]
        loss = self.loss(batch)
        self.manual_backward(loss * (1 if ((self.current_epoch * 12 + index) // 7) % 2 else -0.5))
        optimizer.step()  # type: ignore[union-attr,call-arg]
        self.log("own", loss.detach(), on_step=False, on_epoch=True)
        return loss


@pytest.mark.parametrize("name", ["every second epoch", "four times an epoch"])
def test_updates_that_lightning_does_not_count_make_no_metric_stale(
    name: str, run: Callable[..., Ran], tmp_path: Path
) -> None:
    (tmp_path / "my_conf" / "model" / "wandering.yaml").write_text(f"_target_: {HERE}.ByHand")
    ran = run("callbacks=noting", *SCHEDULES[name])
    assert ran.code == 0, ran.err
    noted = [json.loads(line) for line in (tmp_path / "noted").read_text().splitlines()]
    epoch, _, loss = min(noted, key=lambda entry: entry[2])
    best = ran.result.best
    assert best is not None
    assert (best["epoch"], best["val/loss"]) == (epoch, pytest.approx(loss, rel=1e-6))
    module = ByHand()
    module.load_state_dict(torch.load(ran.folder.best, weights_only=True)["state_dict"])
    assert float(module.loss((X, Y)).detach()) == pytest.approx(loss, rel=1e-6)


def test_a_metric_of_an_earlier_epoch_never_chooses_weights_inside_the_next(run: Callable[..., Ran]) -> None:
    (path := Path("my_conf/model/wandering.yaml")).write_text(f"_target_: {HERE}.ByHand")
    assert path.exists()
    ran = run("metric=own", "mode=min", "trainer.val_check_interval=0.25")
    assert ran.code == 0, ran.err
    checkpoint = torch.load(ran.folder.best, weights_only=True)
    assert checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["completed"] == 12


class TwoLoaders(Points):
    def val_dataloader(self) -> Any:  # type: ignore[override]
        return [DataLoader(TensorDataset(X, Y), 60), DataLoader(TensorDataset(X, -Y), 60)]


class OfTwo(Wandering):
    def validation_step(self, batch: Any, index: int, dataloader_idx: int = 0) -> None:  # type: ignore[override]
        self.log("val/loss", self.loss(batch))


@pytest.mark.parametrize(("metric", "sign"), [("val/loss/dataloader_idx_0", 1), ("val/loss/dataloader_idx_1", -1)])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_any_metric_of_several_validation_loaders_chooses_the_best_epoch(
    metric: str, sign: int, mode: str, run: Callable[..., Ran], tmp_path: Path
) -> None:
    (tmp_path / "my_conf" / "data" / "points.yaml").write_text(f"_target_: {HERE}.TwoLoaders")
    (tmp_path / "my_conf" / "model" / "wandering.yaml").write_text(f"_target_: {HERE}.OfTwo")
    refused = run()
    assert refused.code == 1
    assert "metric=val/loss is not logged by OfTwo: there is val/loss/dataloader_idx_0, val" in refused.err
    ran = run(f"metric={metric}", f"mode={mode}", "trainer.val_check_interval=0.5")
    assert ran.code == 0, ran.err
    module = OfTwo()
    module.load_state_dict(torch.load(ran.folder.best, weights_only=True)["state_dict"])
    assert ran.result.best is not None
    assert float(module.loss((X, sign * Y)).detach()) == pytest.approx(ran.result.best[metric], rel=1e-6)


def test_the_winner_is_tested_with_the_trainers_arguments_too(run: Callable[..., Ran], tmp_path: Path) -> None:
    words = ["lr=0.1,0.2", "trainer.limit_test_batches=1", "epochs=1", "data=linear", "data.rows=50000"]
    code, said = command_line("-m", *words, "batch_size=full", "hydra.sweep.dir=sweep")
    assert code == 0, said
    tested = json.loads((tmp_path / "sweep" / "selection.json").read_text())["test"]
    module = Linear.load_from_checkpoint(tmp_path / "sweep" / "best.ckpt", weights_only=True)
    rows = Rows8(rows=50000, features=8, fractions=[0.6, 0.2, 0.2]).draw("test")
    assert len(rows.x) > EVALUATION_ROWS
    first = module.loss((rows.x[:EVALUATION_ROWS], rows.y[:EVALUATION_ROWS]))
    assert tested["test/loss"] == pytest.approx(float(first.detach()), rel=1e-5)


def test_a_try_of_one_batch_leaves_a_finished_run(holdfast: Callable[..., Ran]) -> None:
    ran = holdfast("trainer.fast_dev_run=true")
    assert (ran.code, ran.result.status, ran.result.iterations) == (0, "completed", 1)
    assert ran.folder.best.exists()
