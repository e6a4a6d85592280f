"""TensorBoard and the page, in a real browser: Chromium, driven by Selenium, over a real sweep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.store.folders import SweepFolder
from tests.browser import CHROMIUM, DRIVER, MISSING, chromium, eventually, opened, tensorboard
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER)
    and not os.environ.get("HOLDFAST_BROWSER"),  # with HOLDFAST_BROWSER, a missing browser fails
    reason=MISSING,
)
IMAGE_WIDTHS = """
const widths = [];
const walk = node => {
  if (node.shadowRoot) walk(node.shadowRoot);
  for (const child of node.children) { if (child.tagName === "IMG") widths.push(child.naturalWidth); walk(child); }
};
walk(document.body);
return widths;
"""


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    folder = tmp_path_factory.mktemp("browser")
    rates = ["-m", "lr=0.01,0.1,1", "batch_size=5,full", "hydra.sweep.dir=outputs/sweeps/s"]
    momenta = ["-m", "optimizer.momentum=0.0,0.9", "hydra.sweep.dir=outputs/sweeps/t", "report=false"]
    for command in (rates, momenta):
        done = subprocess.run(
            [sys.executable, str(ROOT / "train.py"), *command], cwd=folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    return SweepFolder(folder / "outputs" / "sweeps" / "s")


@pytest.fixture(scope="module")
def address(sweep: SweepFolder) -> Iterator[str]:
    with tensorboard(sweep.path.parents[1]) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as driver:
        yield driver


def test_hparams_has_a_row_per_job_and_a_column_per_swept_key(browser: Any, address: str, sweep: SweepFolder) -> None:
    texts = opened(browser, f"{address}/#hparams", lambda shown: "sweeps/s/5" in shown)
    assert "Number of matching session groups: 8" in texts
    for key in ("lr", "batch_size", "optimizer.momentum", "best/val/loss", "best/train/loss", "test/loss", "val/loss"):
        assert key in texts, key
    assert "hp_metric" not in texts
    rows = {run: texts[texts.index(run) :][:14] for run in (f"sweeps/s/{number}" for number in range(6))}
    for number in range(6):
        result = sweep.job(number).read()
        assert result is not None
        lr = f"{float(result.overrides[0].partition('=')[2]):.5g}"
        assert any(text.rstrip("0") == lr.rstrip("0") or text.startswith(lr) for text in rows[f"sweeps/s/{number}"][1:])
        if result.best is not None and result.status == "completed":
            for name in ("val/loss", "train/loss"):
                shown = f"{result.best[name]:.5g}"
                assert any(same(text, shown) for text in rows[f"sweeps/s/{number}"]), (name, shown, rows)
    tested = json.loads(sweep.selection.read_text())
    winner = f"sweeps/s/{tested['winner']}"
    shown = f"{tested['test']['test/loss']:.5g}"
    assert [run for run in rows if any(same(text, shown) for text in rows[run])] == [winner]
    # parallel coordinates and the scatter plot have an axis for this metric too
    assert texts.count("best/val/loss") >= 4


def test_hparams_has_a_row_for_each_of_a_thousand_jobs(browser: Any, tmp_path: Path) -> None:
    """Most of them keep no folder but for their event file."""
    command = ["-m", "experiment=stacked_1000", "epochs=1", "report=false", "hydra.sweep.dir=outputs/s"]
    subprocess.run([sys.executable, str(ROOT / "train.py"), *command], cwd=tmp_path, check=True, capture_output=True)
    assert len(list(tmp_path.glob("outputs/s/*/best.ckpt"))) == 20
    with tensorboard(tmp_path / "outputs") as address:
        texts = opened(browser, f"{address}/#hparams", lambda shown: ALL_SHOWN in shown)
    assert {"lr", "batch_size", "seed", "best/val/loss"} <= set(texts)


ALL_SHOWN = "Number of matching session groups: 1000"


def same(text: str, number: str) -> bool:
    try:
        return abs(float(text) - float(number)) <= 1e-4 * abs(float(number))
    except ValueError:
        return False


def test_scalars_are_grouped_by_job(browser: Any, address: str) -> None:
    texts = opened(browser, f"{address}/#timeseries", lambda shown: "sweeps/s/5" in shown)
    assert {"train", "val", "test", "best", "figures"} <= set(texts)
    assert not any(text.endswith("hp_metric") for text in texts)


def test_scalars_match_result_json(browser: Any, address: str, sweep: SweepFolder) -> None:
    result = sweep.job(2).read()
    assert result is not None
    assert result.best is not None
    browser.get(f"{address}/data/plugin/scalars/scalars?run=sweeps%2Fs%2F2&tag=val%2Floss")
    points = json.loads(browser.find_element("tag name", "body").text)
    epoch = result.best["epoch"]
    assert points[epoch][1:] == [epoch, pytest.approx(result.best["val/loss"], rel=1e-6)]


def test_all_figures_are_shown_as_images(browser: Any, address: str, sweep: SweepFolder) -> None:
    texts = opened(browser, f"{address}/#images", lambda shown: "figures/fit" in shown)
    assert {f"figures/{path.stem}" for path in sweep.figures.iterdir()} <= set(texts)
    count = len(list(sweep.figures.iterdir()))
    assert eventually(lambda: sum(width > 300 for width in browser.execute_script(IMAGE_WIDTHS)) >= count)


def test_text_shows_the_leaderboard_and_the_configuration(browser: Any, address: str) -> None:
    texts = opened(browser, f"{address}/#text", lambda shown: "diverged" in shown)
    assert {"rank", "batch_size", "val/loss", "diverged"} <= set(texts)
    assert any("_target_: holdfast.data.Line" in text for text in texts)


def test_a_click_sorts_the_page_and_loads_nothing(browser: Any, sweep: SweepFolder) -> None:
    browser.get(sweep.page.as_uri())
    column = "return [...document.querySelectorAll('tbody tr')].map(row => row.cells[1].textContent)"
    assert sorted(browser.execute_script(column)) != browser.execute_script(column)
    browser.find_elements("css selector", "th")[1].click()
    assert browser.execute_script(column) == ["0", "1", "2", "3", "4", "5"]
    browser.find_elements("css selector", "th")[1].click()
    assert browser.execute_script(column) == ["5", "4", "3", "2", "1", "0"]
    assert all(width > 300 for width in browser.execute_script(IMAGE_WIDTHS))
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in loaded if not name.startswith("data:")] == []
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not [entry for entry in errors if "report.html" in entry["message"]]
