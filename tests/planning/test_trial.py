"""The trial of a stack: which jobs it trains, and what it refuses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from holdfast.data import Line, Rows
from holdfast.model import Linear, Regression
from holdfast.planning import trial
from holdfast.planning.extremes import extremes
from holdfast.planning.share import share
from holdfast.planning.trial import try_together
from holdfast.usercode.watch import UnstackableError
from tests.stacked.test_loop import users_config

HERE = "tests.planning.test_trial"


def fake(lr: float, seed: int, **model: Any) -> Any:
    return SimpleNamespace(lr=lr, seed=seed, model=model, data={}, optimizer={"lr": lr}, scheduler={})


@given(
    st.lists(
        st.tuples(st.sampled_from([0.1, 0.2, 0.3]), st.integers(0, 3), st.sampled_from([None, 1.0, "a", True, -2.0])),
        min_size=1,
        max_size=20,
    )
)
def test_the_smallest_and_the_largest_value_of_every_key_are_tried(jobs: list[Any]) -> None:
    configs = [fake(lr, seed, l2=l2) for lr, seed, l2 in jobs]
    chosen = extremes(configs)
    assert len(set(chosen)) == len(chosen) >= min(2, len(jobs))
    for column in range(2):
        values = [job[column] for job in jobs]
        assert {min(values), max(values)} <= {jobs[index][column] for index in chosen}
    kinds = {repr(job[2]) for job in jobs if job[2] in (None, "a", True)}
    if len({repr(job[2]) for job in jobs}) > 1:
        assert kinds <= {repr(jobs[index][2]) for index in chosen}


def test_two_jobs_are_tried_for_a_grid() -> None:
    assert extremes([fake(lr, seed) for lr in (0.1, 0.2, 0.3) for seed in range(5)]) == [0, 14]


class Fine(Linear):
    pass


class Steps(Regression):
    """Divides by a bias that is zero before the first step."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(1, 1))
        nn.init.zeros_(self.network.bias)  # type: ignore[arg-type]

    def loss(self, batch: Any) -> torch.Tensor:
        return super().loss(batch) / self.network.bias.detach().abs().sum()


class Shifted(Line):
    """Rows that depend on an argument of the data module."""

    def __init__(self, extra: float = 0.0, **keys: Any) -> None:
        super().__init__(**keys)
        self.extra = extra

    def draw(self, split: Any) -> Rows:
        rows = super().draw(split)
        return Rows(rows.x, rows.y + self.extra)


def jobs(name: str, *overrides: str) -> list[Any]:
    return [users_config(f"++model._target_={HERE}.{name}", "batch_size=20", *job.split()) for job in overrides]


@pytest.mark.parametrize("rate", ["1e3", "1e6", "1e12"])
def test_jobs_that_diverge_are_tried_at_smaller_rates(rate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    fit = trial.fit
    monkeypatch.setattr(trial, "fit", lambda config: rates.append(config.optimizer["lr"]) or fit(config))  # type: ignore[func-returns-value]
    try_together(jobs("Fine", f"lr={rate}", "lr=0.01"))
    assert max(rates[-2:]) < float(rate), "the trial compared finite numbers"


def test_a_loss_that_is_never_finite_is_refused() -> None:
    with pytest.raises(UnstackableError, match="not finite, however small"):
        try_together(jobs("Steps", "lr=0.01", "lr=0.02"))


def test_jobs_with_different_rows_and_orders_pass_the_trial() -> None:
    data = f"++data._target_={HERE}.Shifted"
    (part,) = share([users_config(data, f"seed={seed}", "batch_size=20") for seed in (0, 1)])
    assert part.reason is None


def test_shipped_modules_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.planning.share.try_together", lambda configs, most: pytest.fail("it was tried"))
    (part,) = share([users_config("lr=0.1"), users_config("lr=0.2")])
    assert part.reason is None


def test_the_message_names_the_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stack that trains differently, here by a learning rate, is refused."""
    losses = trial.FormulaEngine.losses
    monkeypatch.setattr(trial.FormulaEngine, "losses", lambda self, outcomes: losses(self, outcomes) * (1 + 1e-6))
    with pytest.raises(UnstackableError, match="loss_step of Fine differs between a stack and a Trainer: "):
        try_together(jobs("Fine", "lr=0.01", "lr=0.02"))
