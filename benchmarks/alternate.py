"""Times two commands in alternation, A B A B, so that changes in the machine's speed affect both."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence


def ratio(command: Sequence[str], baseline: Sequence[str], runs: int = 7) -> tuple[float, float, float]:
    """Measure the wall time of a command relative to a baseline.

    Args:
        command, baseline: the two command lines; each run starts in an empty folder.
        runs: measured runs of each, after one warm-up run.

    Returns:
        The median ratio of the pairs, and the median seconds of the command and of the baseline.
    """
    pairs = [(_seconds(command), _seconds(baseline)) for _ in range(runs + 1)][1:]
    first, second = zip(*pairs, strict=True)
    return statistics.median(a / b for a, b in pairs), statistics.median(first), statistics.median(second)


def _seconds(command: Sequence[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        return time.perf_counter() - began
