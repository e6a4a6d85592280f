"""python benchmarks/report.py: the time that a report takes, and the time until TensorBoard shows 1,000 jobs.

It times processes with five jobs, with and without a report, in alternation; then `holdfast report` of 1,000 jobs; then
TensorBoard's first view and its HParams table in Chromium, if that is installed.
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
    """Return the wall time of a command in a folder."""
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def seconds_until_shown(address: str, view: str, is_complete: Callable[[list[str]], bool]) -> float:
    """Return the seconds until a view is complete in a new browser."""
    with chromium() as browser:
        began = time.perf_counter()
        opened(browser, f"{address}/#{view}", is_complete)
        return time.perf_counter() - began


def main() -> None:
    """Print each time with its target."""
    _, with_report, without = ratio(FIVE, [*FIVE, "report=false"])
    print(f"the report of 5 jobs adds {with_report - without:.2f} s to {without:.2f} s (target 2.5)")
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["-m", "experiment=stacked_1000", "hydra.sweep.dir=outputs/sweeps/s"]
        seconds([*TRAIN, *arguments], folder)
        report = [*TRAIN, "report", "outputs/sweeps/s"]
        pairs = [(seconds(report, folder), seconds(IMPORTS, folder)) for _ in range(5)]
        duration = statistics.median(total - imports for total, imports in pairs)
        size = Path(folder, "outputs", "sweeps", "s", "report.html").stat().st_size
        print(f"the report of 1,000 jobs takes {duration:.2f} s over the imports (target 5)")
        print(f"  and {size / 1e6:.2f} MB (target 3)")
        if CHROMIUM is None:
            print("no Chromium: TensorBoard is not measured")
            return
        with tensorboard(Path(folder, "outputs")) as address:
            first = seconds_until_shown(
                address, "timeseries", lambda shown: "sweeps/s/999" in shown or "figures" in shown
            )
            table = seconds_until_shown(
                address, "hparams", lambda shown: "Number of matching session groups: 1000" in shown
            )
        print(f"TensorBoard with 1,000 jobs, its start included: first view {first:.1f} s; HParams {table:.1f} s")


if __name__ == "__main__":
    main()
