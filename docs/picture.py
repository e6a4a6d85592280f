"""python docs/picture.py: the screenshots of README.md and docs/sweeps.md, from real runs.

docs/tensorboard.png shows stochastic, mini-batch and batch gradient descent in TensorBoard, docs/report.png the page of
a sweep. Needs Chromium and its driver, and the packages of ".[dev]".
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from tests.browser import chromium, opened, tensorboard  # noqa: E402

EXPERIMENTS = ("sgd", "mini_batch", "batch_gd")
SWEEP = ("-m", "lr=0.0001,0.001,0.01,0.1,1", "seed=0,1,2")


def main() -> None:
    """Train, start TensorBoard, save the screenshots."""
    with tempfile.TemporaryDirectory() as folder:
        for name in EXPERIMENTS:
            train(folder, f"experiment={name}", f"hydra.run.dir=outputs/runs/{name}")
        train(folder, *SWEEP, "hydra.sweep.dir=sweep")
        with chromium(1500, 840) as browser, tensorboard(Path(folder, "outputs")) as address:
            tags = quote("^(train/loss_step|val/loss)$")
            view = f"{address}/?smoothing=0&tagFilter={tags}#timeseries"
            opened(browser, view, lambda seen: set(seen) >= {f"runs/{name}" for name in EXPERIMENTS})
            time.sleep(5)  # the curves are drawn after their names are there
            browser.save_screenshot(str(ROOT / "docs" / "tensorboard.png"))
        with chromium(1400, 1500) as browser:
            browser.get(Path(folder, "sweep", "report.html").as_uri())
            browser.save_screenshot(str(ROOT / "docs" / "report.png"))


def train(folder: str, *arguments: str) -> None:
    """Run a command line in a folder."""
    subprocess.run([sys.executable, str(ROOT / "train.py"), *arguments], cwd=folder, check=True)


if __name__ == "__main__":
    main()
