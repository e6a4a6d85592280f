"""TensorBoard and the page, in a real browser: Chromium, driven by Selenium, over a real sweep."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.store.folders import SweepFolder
from tests.browser import CHROMIUM, DRIVER, MISSING, chromium, eventually, opened, tensorboard
from tests.conftest import ROOT
from tests.forked import python

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
        python(ROOT / "train.py", *command, cwd=folder, check=True)
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
    rows, starts = {}, sorted(texts.index(run) for run in texts if run.startswith(("sweeps/s/", "sweeps/t/")))
    for start, end in zip(starts, [*starts[1:], starts[-1] + 14], strict=True):
        rows[texts[start]] = texts[start:end]
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
    python(ROOT / "train.py", *command, cwd=tmp_path, check=True)
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


def test_hparams_has_no_other_columns_and_shows_the_loss_without_scrolling(tmp_path: Path, address: str) -> None:
    words = [
        "-m",
        "lr=0.01,0.1",
        "batch_size=5,full",
        "seed=0,1",
        "epochs=2",
        "report=false",
        "hydra.sweep.dir=outputs/s",
    ]
    python(ROOT / "train.py", *words, cwd=tmp_path, check=True)
    with chromium(1400, 900) as narrow, tensorboard(tmp_path / "outputs") as own:
        texts = opened(narrow, f"{own}/#hparams", lambda shown: "s/3" in shown)
        first, last = texts.index("Trial ID"), texts.index("s/0")
        columns = [text for text in texts[first:last] if text not in ("Trial ID", "Show", "Metrics", "Show Metrics")]
        assert columns[:5] == ["batch_size", "lr", "seed", "best/train/loss", "best/val/loss"]
        right = eventually(lambda: narrow.execute_script(RIGHT_END, "best/val/loss"))
        assert 0 < right <= 1400


RIGHT_END = """
const found = [];
const walk = node => {
  if (node.shadowRoot) walk(node.shadowRoot);
  for (const child of node.childNodes) {
    if (child.nodeType === 1) walk(child);
    else if (child.nodeType === 3 && child.textContent.trim() === arguments[0]) {
      const range = document.createRange();
      range.selectNode(child);
      found.push(range.getBoundingClientRect());
    }
  }
};
walk(document.body);
const shown = found.filter(box => box.left > 300 && box.width > 0);
return shown.length ? Math.min(...shown.map(box => box.right)) : 0;
"""


@pytest.fixture
def page(browser: Any, sweep: SweepFolder) -> Any:
    browser.get(sweep.page.as_uri())
    return browser


def rows(page: Any) -> list[str]:
    """The numbers of the jobs whose rows are shown."""
    found: list[str] = page.execute_script(
        "return [...document.querySelectorAll('tr[data-command]')].filter(row => row.offsetParent)"
        ".map(row => row.cells[1].textContent)"
    )
    return sorted(found)


def test_the_table_filters(page: Any, sweep: SweepFolder) -> None:
    results = {number: sweep.job(number).read() for number in range(6)}
    search = page.find_element("css selector", "input[type=search]")
    done = {number for number, result in results.items() if result is not None and result.status == "completed"}
    best = {number: results[number].best["val/loss"] for number in done}  # type: ignore[index, union-attr]
    middle = sorted(best.values())[1]
    for words, wanted in {
        "completed": done,
        "lr=0.1": {2, 3},
        "lr=1e-1 batch_size=full": {3},
        f"val/loss<={middle!r}": {number for number, value in best.items() if float(f"{value:.6g}") <= middle},
        "lr>0.05 completed": {number for number in done if number >= 2},
        "nothing like it": set(),
        "": set(range(6)),
    }.items():
        page.execute_script("arguments[0].value = ''", search)
        search.send_keys(words + " ")
        assert rows(page) == sorted(map(str, wanted)), words


def test_a_row_and_a_point_show_a_job_and_copy_its_command(page: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    output = page.find_element("tag name", "output")
    row = page.find_element("css selector", "tr[data-command]")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", row)
    command = row.get_attribute("data-command")
    number = row.find_elements("tag name", "td")[1].text
    ActionChains(page).move_to_element(row).perform()
    assert output.text == f"job {number}: {command}"
    row.click()
    assert eventually(lambda: output.text == f"copied: {command}")
    search = page.find_element("css selector", "input[type=search]")
    search.send_keys("\ue009v\ue000")  # Ctrl-V
    assert search.get_attribute("value") == command
    page.execute_script("arguments[0].value = ''; arguments[0].oninput()", search)
    points = page.find_elements("css selector", "circle")
    assert len(points) == sum(value != "-" for value in losses(page)) >= 3
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", points[0])
    ActionChains(page).move_to_element(points[0]).perform()
    assert output.text.startswith(f"job {points[0].get_attribute('data-job')}: python train.py lr=")


def losses(page: Any) -> list[str]:
    found: list[str] = page.execute_script(
        "const at = document.querySelector('.jobs th[data-metric]').cellIndex;"
        "return [...document.querySelectorAll('tr[data-command]')].map(row => row.cells[at].textContent)"
    )
    return found


def test_figures_stand_side_by_side_where_there_is_room(page: Any) -> None:
    lefts = "return [...document.querySelectorAll('figure')].map(each => Math.round(each.getBoundingClientRect().left))"
    for width, columns in ((1400, 2), (400, 1)):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        try:
            assert len(set(page.execute_script(lefts))) == columns
            assert page.execute_script("return document.documentElement.scrollWidth") <= width
        finally:
            page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
