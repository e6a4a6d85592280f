"""python benchmarks/lean.py: `engine=lean` over the Trainer, 60,000 iterations, beyond the imports, with the target."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 3
TRAIN = Path(__file__).resolve().parents[1] / "train.py"
RUN = ["lr=0.001", "epochs=1000", "report=false"]
SHORT = ["lr=0.001", "epochs=1", "batch_size=full", "report=false"]


def seconds(words: list[str]) -> float:
    """The wall time of a command line, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        subprocess.run([sys.executable, str(TRAIN), *words], cwd=folder, capture_output=True, check=True)
        return time.perf_counter() - began


def main() -> None:
    """Print the ratio."""
    rounds = [(seconds(SHORT), seconds(RUN), seconds([*RUN, "engine=lean"])) for _ in range(ROUNDS)]
    trainer, lean = (statistics.median(times[column] - times[0] for times in rounds) for column in (1, 2))
    print(f"60,000 iterations beyond the imports: Trainer {trainer:.1f} s, engine=lean {lean:.1f} s: ", end="")
    print(f"{trainer / lean:.1f} times as fast, target 10")


if __name__ == "__main__":
    main()
