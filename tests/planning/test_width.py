"""How wide stacks are, and which jobs are left to Trainers."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (as everyone imports it)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from holdfast.config.schema import Config
from holdfast.execute.alone import train_run
from holdfast.planning import width
from holdfast.planning.plan import Share, describe, plan
from holdfast.planning.share import share
from holdfast.planning.width import Cost, check_pays, multiplications, widest
from holdfast.store.folders import RunFolder
from holdfast.usercode.watch import UnstackableError
from tests.stacked.test_loop import assert_folders_alike, configured, specs, stacked
from tests.zoo.modules import Regressor

CPU, GPU = torch.device("cpu"), torch.device("cuda")
GIB = 1 << 30
ANY = configured()


def memory(monkeypatch: pytest.MonkeyPatch, free: int, total: int) -> None:
    monkeypatch.setattr(width, "_memory", lambda: (free, total))


class Wide(Regressor):
    """An MLP of three million parameters."""

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__(lr)
        self.net = nn.Sequential(nn.Linear(8, 1700), nn.Tanh(), nn.Linear(1700, 1700), nn.Tanh(), nn.Linear(1700, 1))


def jobs_of(target: str, count: int, *overrides: str, data: str = "Numbers", **arguments: list[Any]) -> list[Config]:
    """Jobs with several rates, and several values of other arguments."""
    config = configured("report=false", *overrides)
    rows, jobs = {"_target_": f"tests.zoo.data.{data}"}, []
    for lr, *values in itertools.islice(itertools.product((0.01, 0.02, 0.03, 0.04, 0.05), *arguments.values()), count):
        model = {"_target_": target, "lr": lr, **dict(zip(arguments, values, strict=True))}
        jobs.append(dataclasses.replace(config, model=model, data=rows))
    return jobs


@pytest.mark.parametrize("free", [24, 20, 16, 12])
def test_the_width_depends_on_the_memory_of_the_machine_not_on_what_others_leave(
    free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory(monkeypatch, free * GIB, 24 * GIB)
    assert widest(Cost(GIB, CPU)) == (6, "")


def test_where_others_fill_most_of_the_memory_stacks_are_narrower(monkeypatch: pytest.MonkeyPatch) -> None:
    memory(monkeypatch, 8 * GIB, 24 * GIB)
    assert widest(Cost(GIB, CPU))[0] == 4
    memory(monkeypatch, 0, 24 * GIB)
    assert widest(Cost(GIB, CPU))[0] == 1


@given(
    size=st.integers(1, 1 << 40),
    count=st.integers(1, 1 << 30),
    total=st.integers(1 << 20, 1 << 45),
    jobs=st.integers(1, 50),
)
@settings(deadline=None)
def test_stacks_of_a_plan_are_never_too_large_and_differ_by_one(size: int, count: int, total: int, jobs: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        memory(patch, total, total)
        most, why = widest(Cost(size, CPU, count))
    assert most >= 1
    assert most == 1 or most * size <= total // 4
    assert most == 1 or most * count <= width._ENOUGH
    assert bool(why) == (most < max(1, total // 4 // size))
    stacks = plan([ANY] * jobs, lambda some: [Share(tuple(range(len(some))), None, most)]).stacks
    sizes = {len(stack) for stack in stacks}
    assert sum(map(len, stacks)) == jobs
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1


def test_multiplications_of_a_convolution_and_a_product() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Flatten(), nn.Linear(5 * 16, 7))
    x = torch.randn(2, 3, 4, 4)
    convolution, product = 2 * 16 * 5 * 3 * 9, 2 * 80 * 7
    # forward; backward by the weights and by the inputs, of which the first layer has none to pass on
    assert multiplications(lambda: layers(x).sum(), [*layers.parameters()]) == 2 * convolution + 3 * product


@pytest.mark.parametrize(
    ("cost", "jobs", "reason"),
    [
        (Cost(1, CPU, 2_400_000_000, 100_000), 40, "an iteration takes 2,400 million multiplications"),
        (Cost(1, CPU, 1_000, 4_999), 1, "no other job has the same structure"),
        (Cost(1, CPU, 50_000_000, 9_000), 1, "no other job has the same structure"),
        (Cost(1, GPU, 1_000, 9_000), 1, "no other job has the same structure"),
        (Cost(1, CPU, 1_000, 5_000), 1, None),
        (Cost(1, CPU, 1_000, 60), 2, None),
        (Cost(1, CPU, 1_000, 60), None, None),
        (Cost(1, GPU, 2_400_000_000), 40, None),
    ],
)
def test_what_is_worth_a_stack(cost: Cost, jobs: int | None, reason: str | None) -> None:
    if reason is None:
        check_pays(cost, jobs, single=6)
        return
    with pytest.raises(UnstackableError, match=reason):
        check_pays(cost, jobs, single=6)


def test_few_single_jobs_are_not_worth_their_verification() -> None:
    with pytest.raises(UnstackableError, match="no other job"):
        check_pays(Cost(1, CPU, 1_000, 50_000), 1, single=5)


def test_large_modules_are_left_to_trainers_unless_told_otherwise() -> None:
    (part,) = share(jobs_of(f"{__name__}.Wide", 3, "epochs=1"))
    assert part.reason is not None
    assert "million multiplications, for which a stack is not faster" in part.reason
    (part,) = share(jobs_of(f"{__name__}.Wide", 2, "epochs=1", "sweep.stack=always"))
    assert part.reason is None


def test_the_plan_says_how_wide_its_stacks_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(width, "_ENOUGH", 5_000)  # an iteration of a job has 2,432 multiplications
    configs = jobs_of("tests.zoo.modules.Regressor", 5)
    text = describe(plan(configs, share), dict(enumerate(configs)))
    assert text == "5 jobs: 3 stacks of 1 or 2; 0 alone\nstacks of at most 2 jobs: wider ones would not be faster"


def test_long_jobs_without_others_like_them_are_stacks_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(width, "_ITERATIONS_FOR_ONE", 100)
    monkeypatch.setattr(width, "_SUCH_JOBS", 2)
    words = ("epochs=40", "precision=64-true")
    configs = jobs_of("tests.zoo.modules.Regressor", 2, *words, hidden=[4, 8])
    found = plan(configs, share)
    assert (found.stacks, found.by_steps) == (((0,), (1,)), {0, 1})
    assert describe(found, dict(enumerate(configs))).startswith("2 jobs: 2 stacks")
    (job, _) = specs(configs)
    _, sweep = stacked([job], tmp_path / "stack", by_steps=True)
    (alone := tmp_path / "alone").mkdir()
    train_run(job, RunFolder(alone))
    assert_folders_alike(sweep.job(0).path, alone, rtol=1e-9, atol=1e-12)


class Query(Regressor):
    """A learned query goes through a layer before the rows do."""

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__(lr)
        self.query = nn.Parameter(torch.ones(1, 8))

    def forward(self, x: Any) -> Any:
        return self.net(x) + self.net(self.query)


def test_a_parameter_that_goes_through_a_layer_is_counted_and_stacked() -> None:
    (part,) = share(jobs_of(f"{__name__}.Query", 2, "epochs=3"))
    assert (part.reason, part.by_steps) == (None, True)


def test_fused_layers_are_counted_by_their_products() -> None:
    # forward, backward by weights and by inputs, of four gates that take 64 inputs and 64 hidden units
    layer, x = nn.LSTM(64, 64, batch_first=True), torch.randn(16, 10, 64, requires_grad=True)
    of_a_step = 16 * 4 * 64 * (64 + 64)

    def loss() -> torch.Tensor:
        return layer(x)[0].sum()

    counted = multiplications(loss, [x, *layer.parameters()])
    assert 0.9 < counted / (3 * 10 * of_a_step) < 1.1
    query = torch.randn(2, 2, 16, 8, requires_grad=True)
    attention = multiplications(lambda: F.scaled_dot_product_attention(query, query, query).sum(), [query])
    assert attention == 6 * 2 * 2 * 16 * 16 * 8


def test_parts_of_a_division_with_a_single_job_run_alone() -> None:
    parts = share(jobs_of("tests.zoo.modules.Smoothed", 3, "epochs=2", data="Table", smoothing=[0.0, 0.1, 0.2]))
    assert all(part.reason == "no other job has the same structure" for part in parts if len(part.jobs) == 1)


def test_the_plan_says_nothing_of_widths_that_were_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(width, "_ENOUGH", 5_000)
    configs = jobs_of("tests.zoo.modules.Regressor", 5, "sweep.max_stack=3")
    assert describe(plan(configs, share), dict(enumerate(configs))) == "5 jobs: 2 stacks of 2 or 3; 0 alone"


def test_short_jobs_without_others_like_them_run_alone() -> None:
    parts = share(jobs_of("tests.zoo.modules.Regressor", 2, "epochs=3", hidden=[4, 8]))
    assert {part.reason for part in parts} == {"no other job has the same structure"}
