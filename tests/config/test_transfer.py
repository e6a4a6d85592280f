"""Jobs that go to another process as JSON are what they were, types included."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from holdfast.cli.main import CONF
from holdfast.compose.recompose import compose
from holdfast.config.job import JobSpec
from holdfast.config.transfer import decoded, encoded, jobs_as_plain, jobs_from_plain

CONFIGURATIONS = [
    [],
    ["model=mlp", "model.hidden=[3,4]", "optimizer=adamw", "scheduler=cosine", "precision=64-true"],
    ["callbacks.divergence.threshold=1e300", "+vars.a={1: x, 2.5: [true, null]}", "+vars.b=.nan", "devices=[0,1]"],
    ["+callbacks.mine={_target_: some.Where, a: {b: [1, 1.0, true]}}", "batch_size=full", "seed=12345678901234567890"],
]


def same(one: Any, other: Any) -> bool:
    """Whether two values have the same text, and so the same types; NaN is equal to itself."""
    return repr(one) == repr(other)


@pytest.mark.parametrize("overrides", CONFIGURATIONS, ids=str)
def test_a_job_comes_back_as_it_was(overrides: list[str]) -> None:
    job = JobSpec(7, tuple(overrides), compose(overrides, CONF), "hash")
    (back,) = jobs_from_plain(json.loads(json.dumps(jobs_as_plain([job]))))
    assert same(back, job)
    assert type(back.config.callbacks) is type(job.config.callbacks)


def test_values_that_jobs_share_are_written_once_and_shared_again() -> None:
    first = compose([], CONF)
    jobs = [JobSpec(n, (f"seed={n}",), type(first)(**{**vars(first), "seed": n}), f"{n}") for n in range(100)]
    plain = jobs_as_plain(jobs)
    assert len(plain["values"]) < len(vars(first)) + 100
    back = jobs_from_plain(json.loads(json.dumps(plain)))
    assert same(list(back), jobs)
    assert back[0].config.model is back[99].config.model


def test_equal_values_of_different_types_stay_apart() -> None:
    config = compose([], CONF)
    values = {"vars": {"a": 1}}, {"vars": {"a": 1.0}}, {"vars": {"a": True}}
    jobs = [JobSpec(n, (), type(config)(**{**vars(config), **value}), "") for n, value in enumerate(values)]
    back = jobs_from_plain(json.loads(json.dumps(jobs_as_plain(jobs))))
    assert [type(job.config.vars["a"]) for job in back] == [int, float, bool]


@pytest.mark.parametrize(
    "value", [{"__holdfast__": "tuple", "items": 3}, {(1, 2): [b"\xff", ()]}, "\ud800", -0.0, 2**70, {"a": {}}]
)
def test_every_plain_value_comes_back(value: Any) -> None:
    assert same(decoded(json.loads(json.dumps(encoded(value)))), value)


def test_what_is_no_plain_value_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="object object"):
        encoded({"a": [object()]})
    assert math.isnan(decoded(json.loads(json.dumps(encoded(math.nan)))))
