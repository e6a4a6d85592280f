"""The row of a job in TensorBoard's HParams."""

from __future__ import annotations

import pytest

from holdfast.cli.main import CONF
from holdfast.compose.recompose import compose
from holdfast.config.job import JobSpec
from holdfast.record.writer import hparams


@pytest.mark.parametrize(
    ("overrides", "swept", "row"),
    [
        (["lr=0.1", "epochs=3"], ("lr",), {"lr": 0.1}),
        (["data=clean_line", "seed=4"], ("data", "seed"), {"data": "clean_line", "seed": 4}),
        (["data.outliers={1:5}"], ("data.outliers",), {"data.outliers": "{1:5}"}),
        (["optimizer.momentum=0.9", "report=false"], ("optimizer.momentum", "report"), {"optimizer.momentum": 0.9}),
        (["epochs=3", "report=false"], None, {"lr": 0.01, "batch_size": 1, "epochs": 3}),
        (["model.weight=null"], None, {"lr": 0.01, "batch_size": 1, "model.weight": None}),
    ],
    ids=str,
)
def test_it_holds_the_swept_keys_alone(overrides: list[str], swept: tuple[str, ...] | None, row: dict) -> None:
    assert hparams(JobSpec(0, tuple(overrides), compose(overrides, CONF), "hash", swept)) == row
