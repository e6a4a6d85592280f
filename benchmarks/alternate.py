"""Whole processes timed in turn, A B A B, so that a drift of the machine's speed hits both alike."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence


def ratio(command: Sequence[str], baseline: Sequence[str], runs: int = 7) -> tuple[float, float, float]:
    """Wall time of a command over that of a baseline.

    Args:
        command, baseline: the two programs and their arguments, run in an empty folder each time.
        runs: counted runs of each, after one that is not counted.

    Returns:
        The median of the ratios pair by pair, and the median seconds of the command and of the baseline.
    """
    pairs = [(_seconds(command), _seconds(baseline)) for _ in range(runs + 1)][1:]
    first, second = zip(*pairs, strict=True)
    return statistics.median(a / b for a, b in pairs), statistics.median(first), statistics.median(second)


def _seconds(command: Sequence[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        return time.perf_counter() - began
