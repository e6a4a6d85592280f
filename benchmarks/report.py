"""python benchmarks/report.py: what the report of a sweep costs, and how soon TensorBoard shows a thousand jobs.

Five jobs with a report and without, whole processes in turn; then `holdfast report` of a thousand jobs; then the first
view of TensorBoard and its HParams table, in a real Chromium, if one is installed.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from alternate import ratio

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from tests.browser import CHROMIUM, chromium, opened, tensorboard

TRAIN = [sys.executable, str(ROOT / "train.py")]
FIVE = [*TRAIN, "-m", "lr=0.0001,0.001,0.01,0.1,1"]
IMPORTS = [sys.executable, "-c", "from holdfast.single.startup import import_training; import_training()"]


def seconds(command: list[str], folder: str) -> float:
    """Wall time of a command in a folder."""
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def looked(address: str, view: str, wanted: Callable[[list[str]], bool]) -> float:
    """How long a view takes in a browser that was just started."""
    with chromium() as browser:
        began = time.perf_counter()
        opened(browser, f"{address}/#{view}", wanted)
        return time.perf_counter() - began


def main() -> None:
    """Print each figure beside its target."""
    _, drawn, plain = ratio(FIVE, [*FIVE, "report=false"])
    print(f"the report of 5 jobs adds {drawn - plain:.2f} s to {plain:.2f} s (target 2.5)")
    with tempfile.TemporaryDirectory() as folder:
        words = ["-m", "experiment=stacked_1000", "hydra.sweep.dir=outputs/sweeps/s"]
        seconds([*TRAIN, *words], folder)
        again = [*TRAIN, "report", "outputs/sweeps/s"]
        pairs = [(seconds(again, folder), seconds(IMPORTS, folder)) for _ in range(5)]
        took = statistics.median(report - imports for report, imports in pairs)
        size = Path(folder, "outputs", "sweeps", "s", "report.html").stat().st_size
        print(
            f"the report of 1,000 jobs takes {took:.2f} s over the imports (target 5), {size / 1e6:.2f} MB (target 3)"
        )
        if CHROMIUM is None:
            print("no Chromium: TensorBoard is not looked at")
            return
        with tensorboard(Path(folder, "outputs")) as address:
            first = looked(address, "timeseries", lambda seen: "sweeps/s/999" in seen or "figures" in seen)
            table = looked(address, "hparams", lambda seen: "Number of matching session groups: 1000" in seen)
        print(f"TensorBoard over 1,000 jobs, its own start included: first view {first:.1f} s; HParams {table:.1f} s")


if __name__ == "__main__":
    main()
