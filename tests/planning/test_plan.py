"""Which jobs share a program: every job in one place, and alike in all that has to be alike."""

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
from holdfast.planning.plan import Plan, describe, plan, structure
from holdfast.planning.share import Share

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
def configured(words: str) -> Config:
    return compose(words.split(), CONF)


def fits(configs: Sequence[Config]) -> list[Share]:
    return [Share(tuple(range(len(configs))), None, most=10**6)]


@pytest.mark.parametrize("words", [word for word in NUMBERS if "step" not in word])
def test_numbers_leave_jobs_in_one_stack(words: str) -> None:
    assert structure(configured(words)) == structure(configured(""))


def test_numbers_of_a_scheduler_leave_jobs_in_one_stack() -> None:
    assert structure(configured("scheduler=step scheduler.step_size=2")) == structure(
        configured("scheduler=step scheduler.gamma=0.5")
    )


@pytest.mark.parametrize("words", STRUCTURES)
def test_all_else_makes_stacks_of_their_own(words: str) -> None:
    assert structure(configured(words)) != structure(configured(""))
    planned = plan([configured(""), configured(words), configured("")], fits)
    assert planned == Plan(((0, 2), (1,)), {})


@given(
    st.lists(st.sampled_from([*NUMBERS, *STRUCTURES, ""]), min_size=1, max_size=40),
    st.sets(st.sampled_from(STRUCTURES)),
    st.integers(1, 7),
)
@settings(deadline=None)
def test_every_job_is_in_exactly_one_place(words: list[str], refused: set[str], most: int) -> None:
    configs = [configured(word) for word in words]
    refusals = {structure(configured(word)) for word in refused}
    asked: list[Any] = []

    def share(configs: Sequence[Config]) -> list[Share]:
        (key,) = {structure(config) for config in configs}
        asked.append(key)
        return [Share(tuple(range(len(configs))), "refused" if key in refusals else None, most)]

    found = plan(configs, share)
    assert sorted([job for stack in found.stacks for job in stack] + list(found.alone)) == list(range(len(words)))
    assert len(asked) == len(set(asked)) == len({structure(config) for config in configs})
    assert {job for job, config in enumerate(configs) if structure(config) in refusals} == set(found.alone)
    for stack in found.stacks:
        assert len({structure(configs[job]) for job in stack}) == 1
        assert list(stack) == sorted(stack)
        assert len(stack) <= most
    sizes: dict[Any, list[int]] = {}
    for stack in found.stacks:
        sizes.setdefault(structure(configs[stack[0]]), []).append(len(stack))
    assert all(max(alike) - min(alike) <= 1 for alike in sizes.values())


def test_a_stack_is_cut_where_it_is_asked_for() -> None:
    configs = [configured("sweep.max_stack=4")] * 10
    assert [len(stack) for stack in plan(configs, fits).stacks] == [3, 3, 4]


def test_it_is_told_in_a_line_or_two() -> None:
    batches = ("batch_size=1", "batch_size=5", "batch_size=20", "batch_size=full")
    configs = [configured(words) for words in batches for _ in range(250)]
    assert (
        describe(plan(configs, fits), dict(enumerate(configs)))
        == "1000 jobs: 4 stacks (batch_size 1, 5, 20, full); 0 alone"
    )
    configs = [configured(""), configured("model=mlp"), configured("model=mlp")]

    def share(configs: Sequence[Config]) -> list[Share]:
        odd = "it looks odd" if "MLP" in configs[0].model["_target_"] else None
        return [Share(tuple(range(len(configs))), odd, 9)]

    found = plan(configs, share)
    told = describe(found, dict(enumerate(configs)))
    assert told == "3 jobs: 1 stack; 2 alone\nalone: jobs 1, 2: it looks odd"
