from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.store.result import Result
from holdfast.sweeps.ended import Job, swept_overrides
from holdfast.sweeps.rank import rank


def job(number: int, value: Any, status: str = "completed", data: str = "a") -> Job:
    best = None if value is None else {"epoch": 0, "val/loss": value}
    result = Result(status=status, overrides=[], config_hash="", metric="val/loss", best=best)  # type: ignore[arg-type]
    return Job(number, [], data, result)


VALUES = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))
STATUS = st.sampled_from(["completed", "completed", "diverged", "failed"])


@given(
    st.lists(st.tuples(VALUES, STATUS, st.sampled_from("ab")), min_size=1, max_size=30), st.sampled_from(["min", "max"])
)
def test_rankings_against_the_definition(entries: list[tuple[Any, str, str]], mode: Any) -> None:
    jobs = [job(number, value, status, data) for number, (value, status, data) in enumerate(entries)]
    rankings = rank(jobs[::-1], mode)
    assert sorted(each.number for ranking in rankings for each in ranking.jobs) == list(range(len(jobs)))
    for ranking in rankings:
        able = [
            (value if mode == "min" else -value, number)
            for number, (value, status, data) in enumerate(entries)
            if data == ranking.data and status == "completed" and value is not None and math.isfinite(value)
        ]
        able.sort()
        assert [each.number for each in ranking.jobs][: len(able)] == [number for _, number in able]
        assert (ranking.winner.number if ranking.winner else None) == (able[0][1] if able else None)
        if len(able) > 1:
            assert ranking.margin == able[1][0] - able[0][0] >= 0
        else:
            assert ranking.margin is None


def test_ties_go_to_the_lower_number() -> None:
    (ranking,) = rank([job(2, 1.0), job(1, 1.0), job(0, 2.0)], "min")
    assert [each.number for each in ranking.jobs] == [1, 2, 0]
    assert ranking.margin == 0.0


@pytest.mark.parametrize("lost", [None, math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_never_wins(lost: Any) -> None:
    (ranking,) = rank([job(0, lost), job(1, 5.0)], "min")
    assert ranking.winner is not None
    assert ranking.winner.number == 1
    (ranking,) = rank([job(0, lost)], "min")
    assert ranking.winner is None


def test_a_diverged_job_never_wins_however_good_its_best_epoch_was() -> None:
    (ranking,) = rank([job(0, 0.1, "diverged"), job(1, 5.0), job(2, 0.1, "failed")], "min")
    assert [each.number for each in ranking.jobs] == [1, 0, 2]


@given(st.lists(st.tuples(st.sampled_from([0.5, 0.9]), st.sampled_from([None, 1.0, 2.0])), min_size=1, max_size=8))
def test_a_tie_goes_to_the_lower_loss_then_to_the_lower_job(entries: list[tuple[float, float | None]]) -> None:
    jobs = [
        Job(
            number,
            [],
            "a",
            Result("completed", [], "", "val/acc", best={"epoch": 0, "val/acc": value, "val/loss": loss}),
        )
        for number, (value, loss) in enumerate(entries)
    ]
    (ranking,) = rank(jobs, "max")
    expected = sorted(
        (-value, math.inf if loss is None else loss, number) for number, (value, loss) in enumerate(entries)
    )
    assert [each.number for each in ranking.jobs] == [number for _, _, number in expected]
    if len(entries) > 1:
        assert f"{ranking.margin:.6g}".startswith("0")


def test_a_job_is_named_by_what_was_swept() -> None:
    jobs = [["data=own", "lr=0.1", "epochs=2"], ["data=own", "lr=0.2", "epochs=2"]]
    assert swept_overrides(jobs) == [["lr=0.1"], ["lr=0.2"]]
    assert Job(1, jobs[1], "", job(1, 1.0).result, swept_overrides(jobs)[1]).name == "job 1 (lr=0.2)"
    assert swept_overrides(jobs[:1]) == jobs[:1]
