"""A real browser and a real TensorBoard: what tests, the benchmark of the report, and the README's pictures look at."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
MISSING = "no browser: install Chromium and its driver (Debian: chromium, chromium-driver)"
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")
TEXTS = """
const texts = [];
const walk = node => {
  if (node.shadowRoot) walk(node.shadowRoot);
  for (const child of node.childNodes) {
    if (child.nodeType === 1) walk(child);
    const text = child.nodeType === 3 && child.textContent.trim();
    if (text && !["STYLE", "SCRIPT"].includes(child.parentNode.nodeName)) texts.push(text);
  }
};
walk(document.body);
return texts;
"""


@contextmanager
def chromium(width: int = 1600, height: int = 1200) -> Iterator[Any]:
    """A headless Chromium."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    assert CHROMIUM, MISSING
    assert DRIVER, MISSING
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--window-size={width},{height}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


@contextmanager
def tensorboard(logdir: Path) -> Iterator[str]:
    """The address of a TensorBoard over a folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--host", "127.0.0.1"]
    server = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def eventually(look: Callable[[], Any], seconds: float = 60) -> Any:
    """What is seen, once it is there."""
    until = time.monotonic() + seconds
    while True:
        seen = look()
        if seen or time.monotonic() > until:
            return seen
        time.sleep(0.2)


def texts(browser: Any) -> list[str]:
    """All texts of a page, those of its components too; none between two pages."""
    from selenium.common.exceptions import WebDriverException

    try:
        found: list[str] = browser.execute_script(TEXTS)
    except WebDriverException:
        return []
    return found


def opened(browser: Any, url: str, wanted: Callable[[list[str]], bool]) -> list[str]:
    """All texts of a page, once those that are wanted are there."""
    from selenium.common.exceptions import WebDriverException

    def load() -> list[str]:
        try:
            browser.get(url)
            browser.refresh()  # where only what follows the # is new, Chromium would stay where it is
        except WebDriverException:  # the server is starting
            return []
        found: list[str] = eventually(lambda: seen if wanted(seen := texts(browser)) else [], 30)
        return found

    found: list[str] = eventually(load)
    assert found, f"{url} does not show what is wanted: {texts(browser)}"
    return found
