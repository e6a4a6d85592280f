"""A mapping that is typed takes the place of the one in the configuration, whoever wrote the option."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast.data import Line
from holdfast.store.folders import SweepFolder

MODULES = """
from holdfast.data import Line

class Mine(Line):
    '''Takes what Line takes, and more.'''
    def __init__(self, options=None, encoder=None, **line):
        super().__init__(**line)
"""
OPTION = """
defaults: [line]
_target_: words_modules.Mine
options: {depth: 3, inner: {a: 1, b: 2}}
encoder: {_target_: builtins.dict, width: 4, height: 5}
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words that choose an option of the user's own."""
    (tmp_path / "words_modules.py").write_text(MODULES)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_conf" / "data").mkdir(parents=True)
    (tmp_path / "my_conf" / "data" / "mine.yaml").write_text(OPTION)
    return ["--config-dir", str(tmp_path / "my_conf"), "data=mine"]


def trained(config: dict[str, Any], outliers: dict[int, float]) -> bool:
    """Whether a recorded configuration holds these outliers, and no others."""
    return bool(config["data"]["outliers"] == {str(row): y for row, y in outliers.items()})


@pytest.mark.parametrize("users", [False, True], ids=["ours", "users"])
@pytest.mark.parametrize(("word", "outliers"), [("{}", {}), ("{3:1.0}", {3: 1.0})])
def test_a_run_has_the_outliers_that_were_typed(
    word: str, outliers: dict[int, float], users: bool, mine: list[str], holdfast: Callable[..., Any]
) -> None:
    ran = holdfast(*(mine if users else ()), f"data.outliers={word}", "epochs=1", "batch_size=full", "lr=1e-9")
    assert ran.code == 0, ran.err
    assert trained(json.loads(ran.folder.started.read_text())["config"], outliers)
    rows = Line(outliers=outliers).draw("train")
    # the targets that were trained on
    variance = float((rows.y.double() - rows.y.double().mean()).square().mean())
    assert ran.result.best["train/loss"] / (1 - ran.result.best["train/r2"]) == pytest.approx(variance, rel=1e-5)


@pytest.mark.parametrize("users", [False, True], ids=["ours", "users"])
def test_the_jobs_of_a_sweep_have_the_outliers_that_were_typed(
    users: bool, mine: list[str], holdfast: Callable[..., Any], tmp_path: Path
) -> None:
    words = ["data.outliers={},{0:1.0}", "epochs=1", "batch_size=full", "report=false", "hydra.sweep.dir=swept"]
    assert holdfast("-m", *(mine if users else ()), *words).code == 0
    folder = SweepFolder(tmp_path / "swept")
    for number, outliers in enumerate(({}, {0: 1.0})):
        best = folder.job(number).read().best  # type: ignore[union-attr]
        y = Line(outliers=outliers).draw("train").y.double()
        variance = float((y - y.mean()).square().mean())
        assert best["train/loss"] / (1 - best["train/r2"]) == pytest.approx(variance, rel=1e-5)


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("data.options={}", "options", {}),
        ("data.options={depth:1}", "options", {"depth": 1}),
        ("data.options.inner={}", "options", {"depth": 3, "inner": {}}),
        ("++data.options={depth:1}", "options", {"depth": 1}),
        ("data.options=null", "options", None),
        ("data.encoder={width:9}", "encoder", {"_target_": "builtins.dict", "width": 9, "height": 5}),
        ("~data.options.inner", "options", {"depth": 3}),
        ("~data.options", "options", ...),
        ("+data.extra={a:1}", "extra", {"a": 1}),
    ],
)
def test_a_plain_mapping_is_replaced_and_what_is_built_is_merged(
    word: str, key: str, value: Any, mine: list[str], holdfast: Callable[..., Any]
) -> None:
    ran = holdfast(*mine, word, "--cfg", "job")
    assert ran.code == 0, ran.err
    assert yaml.safe_load(ran.out)["data"].get(key, ...) == value
