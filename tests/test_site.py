"""The site: MkDocs builds it without a warning, its reference is whole, and it can be read on a phone."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

import holdfast
from docs import make, site_pages
from holdfast.cli.help import groups, help_text
from holdfast.cli.main import CONF
from tests.browser import CHROMIUM, DRIVER, MISSING, chromium
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_in_the_navigation_and_asks_no_other_host(site: Path) -> None:
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")}
    pages |= {Path(name).stem for name in site_pages.COPIED.values()} | {"keys", "api"}
    assert len(pages) >= 19
    for page in pages:
        text = (site / f"{page}.html").read_text()
        assert re.search(rf'href="(\./)?{page}\.html" class="md-nav__link', text) or "md-nav__link--active" in text
        sources = re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?://[^"]+)"', text)
        assert sources == [], page
    assert not list(site.glob("*.py"))


def test_the_page_of_keys_has_each_once() -> None:
    page = site_pages.keys_page()
    keys = [key.path for group in groups(CONF) for section in group.sections for key in section.keys]
    assert len(keys) > 120
    for key in keys:
        assert f"<code>{key}=" in page
    assert page.count("<code>") == len(keys)
    assert all(key in help_text(CONF) for key in keys)


def test_the_page_of_the_api_has_what_is_public(site: Path) -> None:
    text = (site / "api.html").read_text()
    assert {f"holdfast.{name}" for name in holdfast.__all__} <= site_pages.PUBLIC.keys()
    for shown, name in site_pages.PUBLIC.items():
        module, _, member = name.rpartition(".")
        thing = getattr(import_module(module), member)
        first = inspect.getdoc(thing).splitlines()[0].split("`")[0].rstrip(".")  # type: ignore[union-attr]
        assert f'id="{name}"' in text
        assert shown in text
        assert first.strip() in text
        public, _, last = shown.rpartition(".")
        assert getattr(import_module(public), last) is thing


def test_the_version_has_an_entry_among_the_changes() -> None:
    assert f"## {holdfast.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()


@pytest.fixture(scope="module")
def phone() -> Iterator[Any]:
    if not (CHROMIUM and DRIVER):
        if os.environ.get("HOLDFAST_BROWSER") == "required":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    with chromium() as browser:
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {"width": 400, "height": 800, "deviceScaleFactor": 2, "mobile": True}
        )
        yield browser


def test_no_page_is_wider_than_a_phone(site: Path, phone: Any) -> None:
    pages = sorted(site.glob("*.html"))
    assert len(pages) > 18
    for page in pages:
        phone.get(page.as_uri())
        width, size = phone.execute_script(
            "return [document.documentElement.scrollWidth,"
            " parseFloat(getComputedStyle(document.querySelector('.md-typeset')).fontSize)]"
        )
        assert width <= 400, page.name
        assert size >= 12, page.name


def test_the_configuration_of_the_site_names_files_that_exist() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert all((ROOT / hook).is_file() for hook in config["hooks"])
    assert config["strict"]


def test_the_tour_runs_and_shows_what_is_stored(tmp_path: Path) -> None:
    stored = json.loads(make.TOUR.read_text())
    assert [cell for cell in stored["cells"] if cell["cell_type"] == "code" and not cell["execution_count"]] == []
    notebook = make.run_tour(tmp_path)
    shown = [texts(cell) for cell in notebook.cells]
    assert shown == [texts(cell) for cell in stored["cells"]]
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    joined = "".join(output.get("text", "") for output in outputs)
    for jobs in (5, 20, 1280):
        assert f"plan: {jobs} jobs: 1 stack; 0 alone" in joined
    html = [
        output["data"]["text/html"] for cell in notebook.cells for output in cell.get("outputs", []) if data(output)
    ]
    assert sum("<img" in text and "<table>" in text for text in html) == 4
    assert "job/s" in joined


def data(output: Any) -> bool:
    return "text/html" in output.get("data", {})


def texts(cell: Any) -> str:
    """What a cell prints, but for the bars of progress, and with N for every number, which machines round otherwise."""
    printed = "".join("".join(output["text"]) for output in cell.get("outputs", []) if output.get("name") == "stdout")
    return " ".join(re.sub(r"[-+]?[0-9][0-9_.:e-]*(e[-+][0-9]+)?", "N", printed).split())
