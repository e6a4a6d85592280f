"""Loggers of the user's: they get the whole configuration once, and steps that never fall."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers.logger import Logger
from torch import Tensor

from tests.conftest import Ran, command_line
from tests.single.test_validation_schedule import Points, Wandering

HERE = "tests.single.test_loggers"
OWN = {
    "model/logging.yaml": f"_target_: {HERE}.Logging\nlr: ${{lr}}",
    "data/points.yaml": f"_target_: {Points.__module__}.Points",
    "logger/steps.yaml": f"tensorboard: true\nsteps: {{_target_: {HERE}.Steps}}",
    "logger/wandb.yaml": (
        "tensorboard: true\n"
        "wandb:\n"
        "  _target_: lightning.pytorch.loggers.WandbLogger\n"
        "  offline: true\n"
        "  project: holdfast\n"
        "  save_dir: ${hydra:runtime.output_dir}\n"
    ),
}
WORDS = ["--config-dir", "my_conf", "data=points", "trainer.log_every_n_steps=5", "trainer.val_check_interval=0.5"]


class Logging(Wandering):
    """Logs in the training step too, as most modules do."""

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.save_hyperparameters()

    def training_step(self, batch: Any, index: int) -> Tensor:
        loss = self.loss(batch)
        self.log("train/mine", loss, on_step=True, on_epoch=True)
        return loss


class Steps(Logger):
    """Writes all that it is given into a file, since what a job leaves in variables is restored after it."""

    name, version = "steps", "0"

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._write([step, dict(metrics)])

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self._write(["hyperparameters", dict(params)])

    def _write(self, entry: Any) -> None:
        with Path("logged").open("a") as stream:
            stream.write(json.dumps(entry) + "\n")


def logged() -> tuple[list[tuple[int, dict[str, float]]], list[dict[str, Any]]]:
    """What `Steps` was given: metrics with their steps, and hyperparameters."""
    entries = [json.loads(line) for line in Path("logged").read_text().splitlines()]
    Path("logged").unlink()
    metrics = [(step, values) for step, values in entries if step != "hyperparameters"]
    return metrics, [values for step, values in entries if step == "hyperparameters"]


@pytest.fixture(autouse=True)
def _own(tmp_path: Path) -> None:
    for name, text in OWN.items():
        (tmp_path / "my_conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "my_conf" / name).write_text(text)


@pytest.mark.parametrize("more", [[], ["trainer.accumulate_grad_batches=2"], ["trainer.check_val_every_n_epoch=2"]])
@pytest.mark.parametrize("model", ["logging", "linear"])
def test_steps_never_fall(model: str, more: list[str], holdfast: Callable[..., Ran]) -> None:
    assert holdfast(*WORDS, f"model={model}", "logger=steps", "epochs=3", *more).code == 0
    metrics, _ = logged()
    steps = [step for step, _ in metrics]
    assert steps == sorted(steps)
    names = {name for _, values in metrics for name in values}
    assert {"train/loss_step", "val/loss", "train/loss_epoch"} <= names
    losses = [step for step, values in metrics if "train/loss_step" in values]
    updates = 18 if "trainer.accumulate_grad_batches=2" in more else 36
    assert losses == list(range(4, updates, 5))


def test_the_configuration_is_logged_once_with_its_values_resolved(holdfast: Callable[..., Ran]) -> None:
    holdfast(*WORDS, "model=logging", "logger=steps", "epochs=1", "lr=0.02", "vars.note=hello")
    ours, modules = logged()[1]
    assert modules == {"lr": 0.02}  # Lightning's own call; the key is not logged twice
    assert "lr" not in ours
    assert ours["model"] == {"_target_": f"{HERE}.Logging", "lr": 0.02}
    assert (ours["epochs"], ours["vars"]) == (1, {"note": "hello"})
    holdfast(*WORDS, "model=logging", "logger=steps", "epochs=1", "trainer.enable_autolog_hparams=false")
    assert logged()[1] == []


def records(path: Path) -> Iterator[Any]:
    """The records of a run of Weights & Biases: blocks of 32 KiB, each record with checksum, length and kind."""
    from wandb.proto import wandb_internal_pb2

    content, offset, parts = path.read_bytes(), 7, b""
    while offset + 7 <= len(content):
        if 32768 - offset % 32768 < 7:
            offset += 32768 - offset % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, offset)
        parts += content[offset + 7 : offset + 7 + length]
        offset += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def test_weights_and_biases_gets_a_run_for_each_job(
    holdfast: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    words = [*WORDS, "model=logging", "logger=wandb", "epochs=2", "lr=0.02,0.04", "hydra.sweep.dir=sweep"]
    code, said = command_line("-m", *words)
    assert code == 0, said
    for number, rate in enumerate((0.02, 0.04)):
        (path,) = (tmp_path / "sweep" / str(number) / "wandb").glob("offline-run-*/*.wandb")
        configuration: dict[str, Any] = {}
        steps, values = [], []
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind in ("run", "config"):
                updates = (record.run.config if kind == "run" else record.config).update
                configuration |= {item.key: json.loads(item.value_json) for item in updates if item.key}
            if kind == "history":
                row = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
                steps.append(int(row["trainer/global_step"]))
                values += [float(row["val/loss"])] if "val/loss" in row else []
        assert (configuration["lr"], configuration["epochs"]) == (rate, 2)
        assert steps == sorted(steps)
        result = json.loads((tmp_path / "sweep" / str(number) / "result.json").read_text())
        assert result["best"]["val/loss"] == pytest.approx(min(values), rel=1e-6)


def test_a_module_and_its_rows_train_without_hydra(tmp_path: Path) -> None:
    """As in a notebook: a Trainer of Lightning's, and SGD at `lr`."""
    from holdfast.data import Line
    from holdfast.model import Linear

    rows, model = Line(outliers=None, noise=0.0), Linear(lr=0.05)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(max_epochs=40, default_root_dir=tmp_path, **options)  # type: ignore[arg-type]
    trainer.fit(model, rows)
    (optimizer,) = trainer.optimizers
    assert (type(optimizer), optimizer.param_groups[0]["lr"]) == (torch.optim.SGD, 0.05)
    assert [float(value.detach()) for value in model.parameters()] == pytest.approx([-3.0, 1.0], abs=1e-3)
