"""The plan of a sweep: every job exactly once, and stacks of jobs with the same structure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.cli.main import CONF
from holdfast.compose.recompose import compose
from holdfast.config.schema import Config
from holdfast.planning.plan import Plan, Share, describe, plan, structure

NUMBERS = (
    "lr=0.1",
    "seed=3",
    "optimizer.momentum=0.9",
    "optimizer.weight_decay=0.1",
    "scheduler=step scheduler.gamma=0.5",
    "scheduler=step scheduler.step_size=2",
    "model.weight=-15",
    "model.bias=1",
    "data.noise=0.5",
    "data.seed=9",
    "data.outliers={}",
    "data.shuffle=false",
    "data.num_workers=1",
    "sweep.keep=3",
)
STRUCTURES = (
    "batch_size=5",
    "batch_size=full",
    "model=mlp",
    "optimizer=adam",
    "optimizer.nesterov=true optimizer.momentum=0.9",
    "accelerator=cpu",
    "precision=64-true",
    "epochs=3",
    "data.stop=4",
    "data=linear",
    "metric=val/mae",
    "mode=max",
    "callbacks.early_stopping.patience=2",
    "trainer.gradient_clip_val=1.0",
    "logger=none",
)


@cache
def configured(overrides: str) -> Config:
    return compose(overrides.split(), CONF)


def all_in_one(configs: Sequence[Config]) -> list[Share]:
    return [Share(tuple(range(len(configs))), None, most=10**6)]


@pytest.mark.parametrize("override", [override for override in NUMBERS if "step" not in override])
def test_jobs_that_differ_in_numbers_have_the_same_structure(override: str) -> None:
    assert structure(configured(override)) == structure(configured(""))


def test_jobs_that_differ_in_numbers_of_a_scheduler_have_the_same_structure() -> None:
    assert structure(configured("scheduler=step scheduler.step_size=2")) == structure(
        configured("scheduler=step scheduler.gamma=0.5")
    )


@pytest.mark.parametrize("override", STRUCTURES)
def test_jobs_of_different_structures_are_in_different_stacks(override: str) -> None:
    assert structure(configured(override)) != structure(configured(""))
    assert plan([configured(""), configured(override), configured("")], all_in_one) == Plan(((0, 2), (1,)), {})


@given(
    st.lists(st.sampled_from([*NUMBERS, *STRUCTURES, ""]), min_size=1, max_size=40),
    st.sets(st.sampled_from(STRUCTURES)),
    st.integers(1, 7),
)
@settings(deadline=None)
def test_every_job_is_planned_exactly_once(overrides: list[str], refused: set[str], most: int) -> None:
    configs = [configured(override) for override in overrides]
    refusals = {structure(configured(override)) for override in refused}
    shared: list[Any] = []

    def share(configs: Sequence[Config]) -> list[Share]:
        (key,) = {structure(config) for config in configs}
        shared.append(key)
        return [Share(tuple(range(len(configs))), "refused" if key in refusals else None, most)]

    planned = plan(configs, share)
    numbers = [job for stack in planned.stacks for job in stack] + list(planned.alone)
    assert sorted(numbers) == list(range(len(overrides)))
    assert len(shared) == len(set(shared)) == len({structure(config) for config in configs})
    assert {job for job, config in enumerate(configs) if structure(config) in refusals} == set(planned.alone)
    for stack in planned.stacks:
        assert len({structure(configs[job]) for job in stack}) == 1
        assert list(stack) == sorted(stack)
        assert len(stack) <= most
    sizes: dict[Any, list[int]] = {}
    for stack in planned.stacks:
        sizes.setdefault(structure(configs[stack[0]]), []).append(len(stack))
    assert all(max(alike) - min(alike) <= 1 for alike in sizes.values())


def test_max_stack_splits_a_stack_evenly() -> None:
    configs = [configured("sweep.max_stack=4")] * 10
    assert [len(stack) for stack in plan(configs, all_in_one).stacks] == [3, 3, 4]


def test_describe() -> None:
    batches = ("batch_size=1", "batch_size=5", "batch_size=20", "batch_size=full")
    configs = [configured(override) for override in batches for _ in range(250)]
    assert (
        describe(plan(configs, all_in_one), dict(enumerate(configs)))
        == "1000 jobs: 4 stacks (batch_size 1, 5, 20, full); 0 alone"
    )
    configs = [configured(""), configured("model=mlp"), configured("model=mlp")]

    def share(configs: Sequence[Config]) -> list[Share]:
        odd = "it looks odd" if "MLP" in configs[0].model["_target_"] else None
        return [Share(tuple(range(len(configs))), odd, 9)]

    text = describe(plan(configs, share), dict(enumerate(configs)))
    assert text == "3 jobs: 1 stack; 2 alone\nalone: jobs 1, 2: it looks odd"
