"""Stacks against the same jobs trained alone, against other stacks, and against loops trained by hand."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from holdfast.arithmetic.layout import Layout
from holdfast.arithmetic.least_squares import LeastSquares
from holdfast.arithmetic.mapped import Mapped
from holdfast.arithmetic.tracing import TRACED_AFTER
from holdfast.cli.main import CONF
from holdfast.compose.recompose import compose
from holdfast.config.job import JobSpec
from holdfast.config.schema import Config
from holdfast.model import MLP, Linear, Module
from holdfast.planning.share import share
from holdfast.record.history import StackHistory
from holdfast.single.trainer import train_one
from holdfast.stacked.formula_engine import FormulaEngine
from holdfast.stacked.inputs import StackInputs
from holdfast.stacked.loop import Stack
from holdfast.stacked.stack_trainer import train_stack
from holdfast.stacked.stored import StoredStacks
from holdfast.store.folders import RunFolder, SweepFolder
from holdfast.store.result import Result
from holdfast.sweeps.keep import write_folders
from tests.conftest import job_spec

NETWORKS = ("model=linear", "model=mlp model.hidden=[4]", "model=mlp model.hidden=[3,4] model.activation=relu")
OPTIMIZERS = (
    "optimizer=sgd",
    "optimizer.momentum=0.9 optimizer.nesterov=true optimizer.weight_decay=0.01",
    "optimizer.momentum=0.5 optimizer.dampening=0.3 trainer.gradient_clip_val=1.0",
    "optimizer=adam optimizer.amsgrad=true optimizer.weight_decay=0.1",
    "optimizer=adamw optimizer.betas=[0.5,0.9]",
    "optimizer=rmsprop optimizer.centered=true optimizer.momentum=0.5",
)
SCHEDULERS = (
    "scheduler=none",
    "scheduler=step scheduler.step_size=1",
    "scheduler=exponential",
    "scheduler=cosine scheduler.eta_min=1e-4",
)
BATCHES = ("batch_size=1", "batch_size=7", "batch_size=20", "batch_size=full")
DATA = ("data=line", "data=linear data.rows=100 data.features=3")


@cache
def configured(*overrides: str) -> Config:
    return compose([*overrides, "accelerator=cpu"], CONF)


def specs(configs: Iterable[Config], overrides: Sequence[Sequence[str]] = ()) -> list[JobSpec]:
    """Jobs with these configurations, numbered from 0."""
    jobs = zip_longest(configs, overrides, fillvalue=())
    return [job_spec(config, words)._replace(number=number) for number, (config, words) in enumerate(jobs)]


def stacked(jobs: Sequence[JobSpec], folder: Path, *, by_steps: bool = False) -> tuple[list[Result], SweepFolder]:
    """Train jobs as one program and write their folders."""
    folder.mkdir(exist_ok=True)
    sweep = SweepFolder(folder)
    train_stack(jobs, sweep.stack(0), by_steps=by_steps)
    stacks = StoredStacks(sweep, [job.config_hash for job in jobs])
    results = write_folders(sweep, stacks, jobs, stacks.results(jobs), lambda job: {})
    return [results[job.number] for job in jobs], sweep


def alone(overrides: Sequence[str], folder: Path) -> RunFolder:
    """Train one job with a Trainer."""
    folder.mkdir(parents=True)
    train_one(job_spec(configured(*overrides), overrides), RunFolder(folder))
    return RunFolder(folder)


def assert_alike(one: Any, other: Any, rtol: float, atol: float, path: str = "") -> None:
    """Compare containers: keys, order, types, and numbers within a tolerance."""
    assert type(one) is type(other), path
    if isinstance(one, dict):
        assert list(one) == list(other), path
        for key in one:
            assert_alike(one[key], other[key], rtol, atol, f"{path}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for index, (mine, yours) in enumerate(zip(one, other, strict=True)):
            assert_alike(mine, yours, rtol, atol, f"{path}/{index}")
    elif isinstance(one, Tensor):
        torch.testing.assert_close(one, other, rtol=rtol, atol=atol, equal_nan=True, msg=lambda text: f"{path}: {text}")
        # a file holds the whole memory of a tensor, which must not be that of other jobs too
        assert one.untyped_storage().nbytes() <= other.untyped_storage().nbytes(), path
    elif isinstance(one, float):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=atol, equal_nan=True, err_msg=path)
    else:
        assert one == other, path


def curves(folder: Path) -> dict[str, Any]:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    # events hold single precision
    scalars = {tag: [[e.step, float(e.value)] for e in events.Scalars(tag)] for tag in sorted(events.Tags()["scalars"])}
    return {"scalars": scalars, "tensors": [*events.Tags()["tensors"]]}


def assert_folders_alike(mine: Path, yours: Path, rtol: float, atol: float) -> None:
    """Compare every file of a stacked job with that of the same job trained alone."""
    names = [sorted(path.name.partition(".tfevents")[0] for path in folder.iterdir()) for folder in (mine, yours)]
    assert names[0] == names[1]
    results = [json.loads((folder / "result.json").read_text()) for folder in (mine, yours)]
    for result in results:
        del result["seconds"], result["sha256"]
    assert_alike(results[0], results[1], rtol, atol, "result")
    paths = [np.load(folder / "descent.npy") for folder in (mine, yours) if "descent.npy" in names[0]]
    if paths:
        np.testing.assert_allclose(*paths, rtol=max(rtol, 1e-6), atol=max(atol, 1e-6))
    for name in {"best.ckpt", "last.ckpt", "model.pth"} & set(names[0]):
        loaded = [torch.load(folder / name, weights_only=True) for folder in (mine, yours)]
        assert_alike(loaded[0], loaded[1], rtol, atol, name)
    assert_alike(curves(mine), curves(yours), max(rtol, 1e-6), atol, "events")


def combinations() -> list[tuple[str, ...]]:
    """Every network with every optimizer, combined with the schedulers, batch sizes and data in turn."""
    found = []
    for number in range(len(NETWORKS) * len(OPTIMIZERS)):
        parts = (
            NETWORKS[number % 3],
            OPTIMIZERS[number % 6 if number < 6 else (number // 3 + number) % 6],
            SCHEDULERS[(number // 2) % 4],
            BATCHES[(number + number // 4) % 4],
            DATA[(number // 5) % 2],
        )
        found.append(tuple(override for part in parts for override in part.split()))
    return found


@pytest.mark.parametrize("overrides", combinations(), ids=" ".join)
def test_stack_equals_alone(overrides: tuple[str, ...], tmp_path: Path) -> None:
    jobs = [
        (*overrides, "precision=64-true", "epochs=3", f"lr={lr}", f"seed={seed}")
        for lr in (0.003, 0.03)
        for seed in (0, 1)
    ]
    _, sweep = stacked(specs([configured(*words) for words in jobs], jobs), tmp_path / "stack")
    for number, job in enumerate(jobs):
        folder = alone(job, tmp_path / f"alone{number}")
        assert_folders_alike(sweep.job(number).path, folder.path, rtol=1e-9, atol=1e-12)
        assert sweep.job(number).finished("h")


@pytest.mark.parametrize("overrides", ["batch_size=1", "batch_size=20 model=mlp", "batch_size=full optimizer=adam"])
def test_in_single_precision_too_where_jobs_converge(overrides: str, tmp_path: Path) -> None:
    jobs = [
        (*overrides.split(), f"lr={lr}", f"seed={seed}", "data.outliers={}") for lr in (0.001, 0.01) for seed in (0, 5)
    ]
    _, sweep = stacked(specs([configured(*words) for words in jobs], jobs), tmp_path / "stack")
    for number, job in enumerate(jobs):
        folder = alone(job, tmp_path / f"alone{number}")
        assert_folders_alike(sweep.job(number).path, folder.path, rtol=1e-4, atol=1e-6)


def test_jobs_diverge_and_stop_in_the_same_epoch_as_alone(tmp_path: Path) -> None:
    """Some jobs diverge at once, some late, some stop early and some reach the end; the stack shrinks in between."""
    overrides = ("epochs=12", "precision=64-true", "batch_size=4", "callbacks.early_stopping.patience=2")
    jobs = [
        (*overrides, f"lr={lr}", f"seed={seed}") for lr in (1e-4, 0.05, 0.2, 0.29, 0.4, 5.0, 1e6) for seed in (0, 1)
    ]
    results, sweep = stacked(specs([configured(*words) for words in jobs], jobs), tmp_path / "stack")
    ends = [(result.status, result.epochs) for result in results]
    assert len(set(ends)) > 3
    for number, job in enumerate(jobs):
        assert_folders_alike(sweep.job(number).path, alone(job, tmp_path / f"alone{number}").path, 1e-7, 1e-10)


def test_a_job_that_diverges_inside_a_long_epoch_is_frozen_there(tmp_path: Path) -> None:
    overrides = ("data=linear", "data.rows=4000", "data.features=2", "epochs=2", "precision=64-true")
    jobs = [(*overrides, f"lr={lr}") for lr in (1e-3, 0.1, 3.0)]
    results, sweep = stacked(specs([configured(*words) for words in jobs], jobs), tmp_path / "stack")
    assert [result.iterations for result in results] == [4800, 4800, 1000]
    for number, job in enumerate(jobs):
        assert_folders_alike(sweep.job(number).path, alone(job, tmp_path / f"alone{number}").path, 1e-7, 1e-10)


def test_the_numbers_of_data_may_differ(tmp_path: Path) -> None:
    overrides = ("epochs=2", "precision=64-true", "batch_size=20")
    differing = (
        "data.noise=0.1",
        "data.noise=2.0",
        "data.seed=3",
        "data.outliers={}",
        "data.shuffle=false",
        "model.weight=4.0",
    )
    jobs = [(*overrides, override) for override in differing]
    _, sweep = stacked(specs([configured(*words) for words in jobs], jobs), tmp_path / "stack")
    for number, job in enumerate(jobs):
        assert_folders_alike(sweep.job(number).path, alone(job, tmp_path / f"alone{number}").path, 1e-9, 1e-12)


def test_numbers_of_optimizer_and_scheduler_may_differ(tmp_path: Path) -> None:
    overrides = ("epochs=4", "precision=64-true", "batch_size=20", "scheduler=step")
    differing = (
        ("optimizer.momentum=0.0", "scheduler.step_size=1"),
        ("optimizer.momentum=0.9", "scheduler.step_size=2", "scheduler.gamma=0.5"),
        ("optimizer.momentum=0.5", "optimizer.dampening=0.2", "optimizer.weight_decay=0.1"),
    )
    jobs = [(*overrides, *some) for some in differing]
    _, sweep = stacked(specs([configured(*words) for words in jobs], jobs), tmp_path / "stack")
    for number, job in enumerate(jobs):
        assert_folders_alike(sweep.job(number).path, alone(job, tmp_path / f"alone{number}").path, 1e-9, 1e-12)


def test_against_a_loop_in_numpy() -> None:
    """Batch gradient descent on y = -3x + 1 without noise, by numpy: losses of every iteration, weights of the last."""
    rates, momenta = (0.01, 0.05, 0.1), (0.0, 0.9)
    fixed = ("data.noise=0", "data.outliers={}", "batch_size=full", "model.weight=-15", "model.bias=-10")
    jobs = [
        (*fixed, "epochs=15", "precision=64-true", f"lr={rate}", f"optimizer.momentum={momentum}")
        for rate in rates
        for momentum in momenta
    ]
    history = Stack(FormulaEngine(StackInputs([configured(*overrides) for overrides in jobs]))).train()
    x = (-3 + 0.1 * np.arange(60)).astype(np.float32).astype(np.float64)
    y = (-3 * (-3 + 0.1 * np.arange(60)) + 1).astype(np.float32).astype(np.float64)
    for number, (rate, momentum) in enumerate((rate, momentum) for rate in rates for momentum in momenta):
        w, b, velocity, losses = -15.0, -10.0, np.zeros(2), []
        for _ in range(15):
            error = w * x + b - y
            losses.append(np.mean(error**2))
            velocity = momentum * velocity + np.array([2 * np.mean(error * x), 2 * np.mean(error)])
            w, b = w - rate * velocity[0], b - rate * velocity[1]
        np.testing.assert_allclose(history.curves.of_jobs([number]).losses[:, 0], losses, rtol=1e-9)
        np.testing.assert_allclose(history.last.tensors["parameters"][:, number].numpy(), [w, b], rtol=1e-9)


def test_one_diverged_job_of_a_thousand_changes_no_other_number() -> None:
    rates = [float(rate) for rate in np.geomspace(1e-4, 0.05, 1000)]

    def with_rate(rate_of_500: float) -> StackHistory:
        config = configured("batch_size=20", "epochs=3")
        jobs = [
            dataclasses.replace(config, lr=rate, optimizer={**config.optimizer, "lr": rate})
            for rate in [*rates[:500], rate_of_500, *rates[501:]]
        ]
        return Stack(FormulaEngine(StackInputs(jobs))).train()

    healthy, diverged = with_rate(rates[500]), with_rate(1e6)
    assert np.flatnonzero(diverged.standing.end == "diverged").tolist() == [500]
    others = [number for number in range(1000) if number != 500]
    for one, other in zip(healthy.curves.of_jobs(others), diverged.curves.of_jobs(others), strict=True):
        if one.shape[-1] == len(others):  # all but the times
            assert np.array_equal(one, other)
    assert np.array_equal(healthy.best.epoch[others], diverged.best.epoch[others])


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.data())
def test_a_layout_holds_every_job_once_and_repeats_jobs_of_the_same_stream_only(streams: list[int], data: Any) -> None:
    stream_of = np.array(streams)
    live = np.array(sorted(data.draw(st.sets(st.integers(0, len(streams) - 1), min_size=1))))
    layout = Layout.of(live, stream_of)
    assert sorted(layout.live) == list(live)
    assert np.array_equal(layout.jobs.flatten()[layout.columns], layout.live)
    assert np.array_equal(stream_of[layout.jobs], np.repeat(layout.streams[:, None], layout.jobs.shape[1], axis=1))
    assert layout.jobs.size <= 2 * len(live)


@given(st.integers(1, 5), st.integers(1, 12), st.integers(1, 30), st.integers(1, 9), st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_the_formula_is_the_gradient(streams: int, jobs: int, batch: int, features: int, seed: int) -> None:
    module = Linear(features).double()
    generator = torch.Generator().manual_seed(seed)
    draw = {"generator": generator, "dtype": torch.float64}
    parameters = torch.randn(features + 1, streams, jobs, **draw)  # type: ignore[call-overload]
    x = torch.randn(1, streams, batch, features, **draw)  # type: ignore[call-overload]
    y = torch.randn(1, streams, batch, 1, **draw)  # type: ignore[call-overload]
    formula, general = LeastSquares(), Mapped(module, torch.no_grad)
    ones = torch.cat([x, torch.ones_like(y)], -1)
    outcome, gradient = formula(parameters, formula.batches((ones, -y), jobs)[0])
    losses, mapped = general(parameters, general.batches((x, y), jobs)[0])
    torch.testing.assert_close(gradient, mapped)
    torch.testing.assert_close(formula.losses([outcome]), general.losses([losses]))
    rows = (x[0, 0], y[0, 0])
    torch.testing.assert_close(
        formula.statistics(parameters[:, 0], formula.prepare(rows), np.arange(jobs)),
        general.statistics(parameters[:, 0], general.prepare(rows), np.arange(jobs)),
    )


def test_a_traced_gradient_is_the_untraced_one() -> None:
    general = Mapped(MLP(2, [4], "relu"), torch.no_grad)
    parameters, batch = torch.randn(17, 2, 3), (torch.randn(2, 5, 2), torch.randn(2, 5, 1))
    results = [general(parameters, batch) for _ in range(TRACED_AFTER + 2)]
    assert general._gradient._traced
    torch.testing.assert_close(results[0], results[-1], rtol=0, atol=1e-7)


class Noisy(Linear):
    def loss(self, batch: Any) -> Tensor:
        return super().loss(batch) + 0 * torch.rand(())


class Counts(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def loss(self, batch: Any) -> Tensor:
        self.calls += 1
        return super().loss(batch)


class Branches(Linear):
    def loss(self, batch: Any) -> Tensor:
        loss = super().loss(batch)
        return loss if loss > 1 else 2 * loss


class Hooked(Linear):
    def on_train_epoch_end(self) -> None:
        pass


class Normed(Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1))

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return nn.functional.l1_loss(self.network(x), y)


class Shared(Module):
    """A layer used twice, a parameter shared by two layers, a frozen parameter, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(1, 1, bias=False)
        self.second, self.third = self.first, nn.Linear(1, 1)
        self.third.weight = self.first.weight
        self.frozen = nn.Parameter(torch.tensor([0.5]), requires_grad=False)
        self.register_buffer("shift", torch.tensor([0.1]))
        self.save_hyperparameters()

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return nn.functional.huber_loss(self.first(x) + self.second(x) * self.frozen + self.third(x) + self.shift, y)


class Unused(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.Parameter(torch.zeros(1))


class Absolute(Module):
    """A module with nothing but a loss: it can be stacked."""

    def __init__(self, power: float = 1.0) -> None:
        super().__init__()
        self.network, self.power = nn.Linear(1, 1), power

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return ((self.network(x) - y).abs() ** self.power).mean()


HERE = "tests.stacked.test_loop"


def test_what_only_shows_something_forbids_no_stack() -> None:
    words = ["+callbacks.bar._target_=lightning.pytorch.callbacks.RichProgressBar", "trainer.enable_model_summary=true"]
    (shared,) = share([users_config(*words)])
    assert shared.reason is None


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ("++model._target_={here}.Branches", "reads the value of a tensor"),
        ("trainer.max_steps=5", "trainer.max_steps"),
        ("trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches"),
        (
            "+callbacks.early._target_=lightning.pytorch.callbacks.EarlyStopping",
            "callbacks.early_stopping.patience stops",
        ),
        ("+callbacks.best._target_=lightning.pytorch.callbacks.ModelCheckpoint", "best.ckpt"),
        ("+callbacks.rate._target_=lightning.pytorch.callbacks.LearningRateMonitor", "train/lr is recorded"),
        ("+callbacks.bar._target_=mine.callbacks.RichProgressBar", "callbacks.bar needs a Trainer"),
        ("logger=csv logger.csv.save_dir=x", "logger.csv needs a Trainer"),
        ("precision=16-mixed", "precision=16-mixed"),
        ("++optimizer._target_=torch.optim.LBFGS", "LBFGS is not one of the optimizers"),
    ],
)
def test_jobs_that_need_a_trainer_are_refused_with_a_reason(overrides: str, reason: str) -> None:
    words = overrides.format(here=HERE).split()
    (shared,) = share([users_config(*words, f"seed={seed}") for seed in (0, 1)])
    assert shared.reason is not None
    assert reason in shared.reason


@pytest.mark.parametrize(
    "overrides",
    [
        "++model._target_={here}.Noisy",
        "++model._target_={here}.Counts",
        "++model._target_={here}.Hooked",
        "++model._target_={here}.Normed batch_size=5",
        "++model._target_={here}.Unused",
        "model=mlp model.dropout=0.5",
        "++optimizer._target_=torch.optim.ASGD",
        "++scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau",
    ],
)
def test_what_has_no_formula_is_stacked_by_its_steps(overrides: str, tmp_path: Path) -> None:
    words = [*overrides.format(here=HERE).split(), "epochs=3", "precision=64-true", "report=false"]
    words += [] if "batch_size" in overrides else ["batch_size=20"]
    configs = [users_config(*words, f"seed={seed}") for seed in (0, 1)]
    (shared,) = share(configs)
    assert (shared.reason, shared.by_steps) == (None, True)
    _, sweep = stacked(specs(configs), tmp_path / "stack", by_steps=True)
    for number, config in enumerate(configs):
        (folder := tmp_path / f"alone{number}").mkdir()
        train_one(job_spec(config), RunFolder(folder))
        assert_folders_alike(sweep.job(number).path, folder, rtol=1e-9, atol=1e-12)


def users_config(*overrides: str) -> Config:
    """A configuration in which `++group._target_=...` names an option that has no config file."""
    config = configured(*(override for override in overrides if not override.startswith("++")))
    for override in overrides:
        if override.startswith("++"):
            group, value = override[2:].split("._target_=")
            config = dataclasses.replace(
                config, **{group: {"_target_": value, **({"lr": 0.1} if group == "optimizer" else {})}}
            )
    return config


@pytest.mark.parametrize("name", ["Absolute", "Shared"])
def test_a_module_with_nothing_but_a_loss_is_stacked(name: str, tmp_path: Path) -> None:
    overrides = (
        f"++model._target_={HERE}.{name}",
        "epochs=2",
        "batch_size=20",
        "precision=64-true",
        "optimizer.momentum=0.9",
    )
    configs = [users_config(*overrides, f"seed={seed}") for seed in (0, 1)]
    assert [shared.reason for shared in share(configs)] == [None]
    _, sweep = stacked(specs(configs), tmp_path / "stack")
    for number, config in enumerate(configs):
        (folder := tmp_path / f"alone{number}").mkdir()
        train_one(job_spec(config), RunFolder(folder))
        assert_folders_alike(sweep.job(number).path, folder, rtol=1e-9, atol=1e-12)


def test_metrics_that_take_only_numbers_are_computed_job_by_job() -> None:
    from holdfast.stacked.evaluation import measure_jobs

    class Careful(Linear):
        @staticmethod
        def metrics(sums: Any) -> dict[str, Any]:
            return {"loss": sums[1] / sums[0], "large": 1.0 if sums[1] > 5 else 0.0}

    found = measure_jobs(Careful(), torch.tensor([[2.0, 4.0], [2.0, 8.0], [2.0, 1.0]]), "val")
    assert {key: value.tolist() for key, value in found.items()} == {"val/loss": [2, 4, 0.5], "val/large": [0, 1, 0]}
