"""Every argument of Lightning's Trainer is passed through, or refused with the key to use."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from lightning.fabric.plugins.environments import LightningEnvironment

from holdfast.cli.main import CONF
from holdfast.compose.recompose import compose
from holdfast.config.schema import SET_BY_HOLDFAST, Trainer
from holdfast.data import Line
from holdfast.errors import ConfigError
from holdfast.planning.share import share
from holdfast.single import build
from tests.config import trainer_arguments

SIGNATURE = dict(list(inspect.signature(pl.Trainer.__init__).parameters.items())[1:])

CHANGED: dict[str, tuple[str, Any]] = {
    "strategy": ("{_target_: lightning.pytorch.strategies.SingleDeviceStrategy}", pl.strategies.SingleDeviceStrategy),
    "num_nodes": ("2", 2),
    "fast_dev_run": ("3", 3),
    "min_epochs": ("2", 2),
    "max_steps": ("7", 7),
    "min_steps": ("2", 2),
    "max_time": ("00:00:01:00", "00:00:01:00"),
    "limit_train_batches": ("0.5", 0.5),
    "limit_val_batches": ("2", 2),
    "limit_test_batches": ("2", 2),
    "limit_predict_batches": ("0.25", 0.25),
    "overfit_batches": ("1", 1),
    "val_check_interval": ("0.25", 0.25),
    "check_val_every_n_epoch": ("3", 3),
    "num_sanity_val_steps": ("1", 1),
    "log_every_n_steps": ("5", 5),
    "enable_progress_bar": ("true", True),
    "enable_model_summary": ("true", True),
    "accumulate_grad_batches": ("2", 2),
    "gradient_clip_val": ("0.5", 0.5),
    "gradient_clip_algorithm": ("value", "value"),
    "deterministic": ("warn", "warn"),
    "benchmark": ("true", True),
    "inference_mode": ("false", False),
    "use_distributed_sampler": ("false", False),
    "profiler": ("simple", "simple"),
    "detect_anomaly": ("true", True),
    "plugins": (
        "{_target_: lightning.fabric.plugins.environments.LightningEnvironment}",
        LightningEnvironment,
    ),
    "sync_batchnorm": ("true", True),
    "reload_dataloaders_every_n_epochs": ("1", 1),
    "enable_autolog_hparams": ("false", False),
    "model_registry": ("mine", "mine"),
}
"""For each argument another value than Lightning's: as typed, and as the Trainer gets it."""

IN_A_STACK = {"gradient_clip_val", "gradient_clip_algorithm", "deterministic", "benchmark", "log_every_n_steps"} | {
    *("enable_progress_bar", "enable_model_summary"),
}


def test_the_table_is_that_of_the_installed_trainer() -> None:
    assert trainer_arguments.FILE.read_text() == trainer_arguments.source()


def test_every_argument_is_in_the_table_or_set_by_holdfast() -> None:
    assert CHANGED.keys() | SET_BY_HOLDFAST.keys() - {"_target_"} == SIGNATURE.keys()


def test_a_narrower_type_leaves_the_default_as_it_is() -> None:
    changed = {"gradient_clip_algorithm": "norm", "deterministic": False}  # what None means to the Trainer
    for field in fields(Trainer):
        if field.name != "full_train_loss":
            assert field.default is not MISSING
            assert field.default == changed.get(field.name, SIGNATURE[field.name].default), field.name


@pytest.mark.parametrize("name", CHANGED)
def test_an_argument_reaches_the_trainer_and_decides_whether_the_job_is_stacked(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed, expected = CHANGED[name]
    config = compose([f"trainer.{name}={typed}"], CONF)
    given: dict[str, Any] = {}
    monkeypatch.setattr(build.pl, "Trainer", lambda **arguments: given.update(arguments))
    build.build_trainer(config, Line())
    if isinstance(expected, type):
        (value,) = given[name][-1:] if name == "plugins" else [given[name]]
        assert type(value) is expected
    else:
        assert given[name] == expected
    monkeypatch.undo()
    (shared,) = share([config])
    assert shared.reason == (None if name in IN_A_STACK else f"trainer.{name} is the Trainer's")


@pytest.mark.parametrize("name", SET_BY_HOLDFAST)
def test_an_argument_that_holdfast_sets_is_refused_with_the_key_to_use(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose([f"trainer.{name}=1"], CONF)
    (problem,) = error.value.problems
    assert problem.lesson == SET_BY_HOLDFAST[name]


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("optimizer.maximize=true", "maximize"),
        ("optimizer.foreach=true", "foreach"),
        ("optimizer.fused=true", "fused"),
        ("optimizer=adam optimizer.fused=true", "fused"),
        ("optimizer=adamw optimizer.foreach=true", "foreach"),
        ("optimizer=rmsprop optimizer.maximize=true", "maximize"),
        ("optimizer=adam optimizer.capturable=true", "capturable"),
        ("optimizer.differentiable=true", "differentiable"),
    ],
)
def test_arguments_of_torchs_optimizers_are_passed_through(words: str, key: str) -> None:
    config = compose(words.split(), CONF)
    module = build.build_module(config)
    optimizer: Any = module.configure_optimizers()
    assert optimizer.defaults[key] is True
    (shared,) = share([config, compose([*words.split(), "lr=0.3"], CONF)])
    if key in ("maximize", "foreach"):  # no formula, but the optimizer's own code can be mapped over jobs
        assert (shared.reason, shared.by_steps) == (None, True)
    else:
        assert shared.reason == f"optimizer.{key} chooses code of torch's that trains one job"


def test_a_file_of_the_users_needs_no_more_keys_than_it_sets(tmp_path: Path) -> None:
    from holdfast.compose.recompose import Recomposer

    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "mine.yaml").write_text("fast_dev_run: true\n")
    config = Recomposer(CONF, ["--config-dir", str(tmp_path)]).compose(["trainer=mine"]).config
    assert config.trainer.fast_dev_run is True
    assert config.trainer.full_train_loss is True
