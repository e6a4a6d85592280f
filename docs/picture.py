"""python docs/picture.py: train stochastic, mini-batch and batch gradient descent, and photograph them in TensorBoard.

Needs Chromium on the PATH; writes docs/tensorboard.png.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = ("sgd", "mini_batch", "batch_gd")
START = ("model.weight=-15", "model.bias=-10", "data.outliers={}")
PICTURE = ROOT / "docs" / "tensorboard.png"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-3d-apis", "--hide-scrollbars", "--no-first-run",
    "--disable-background-networking", "--window-size=1500,700", "--virtual-time-budget=60000",
]  # fmt: skip


def main() -> None:
    """Train, serve, photograph."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("Chromium is not on the PATH: install it, for example with apt-get install chromium.")
    with tempfile.TemporaryDirectory() as folder:
        for experiment in EXPERIMENTS:
            words = [f"experiment={experiment}", f"hydra.run.dir=outputs/runs/{experiment}", *START]
            subprocess.run([sys.executable, str(ROOT / "train.py"), *words], cwd=folder, check=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        address = f"http://127.0.0.1:{port}"
        server = subprocess.Popen(
            [sys.executable, "-m", "tensorboard.main", "--logdir", f"{folder}/outputs", "--port", str(port)],
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait(address)
            profile = f"--user-data-dir={folder}/chromium"
            view = f"{address}/?smoothing=0&tagFilter=" + quote("^(train/loss_step|val/loss)$") + "#timeseries"
            subprocess.run([chromium, *FLAGS, profile, f"--screenshot={PICTURE}", view], check=True)
        finally:
            server.terminate()
            server.wait()
    print(PICTURE.relative_to(ROOT))


def _wait(address: str) -> None:
    """Wait until TensorBoard has read the runs."""
    for _ in range(60):
        try:
            with urllib.request.urlopen(f"{address}/data/runs") as answer:
                runs = answer.read().decode()
            if all(experiment in runs for experiment in EXPERIMENTS):
                return
        except OSError:
            pass
        time.sleep(1)
    sys.exit("TensorBoard did not show the runs within a minute.")


if __name__ == "__main__":
    main()
