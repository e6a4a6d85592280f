"""python benchmarks/distributed.py: worker processes against this process, in turn, with the targets.

Three measurements: 20 jobs that run alone for 5 s each, on two workers over one by one; 1,000 jobs in four stacks, in
workers over here; and what a further worker costs that has nothing to do.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 3
TRAIN = Path(__file__).resolve().parents[1] / "train.py"
SLEEPER = """
import time
import lightning.pytorch as pl


class Busy(pl.Callback):
    '''Keeps one core busy for some seconds.'''

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_fit_start(self, trainer, pl_module):
        began, total = time.process_time(), 0
        while time.process_time() - began < self.seconds:
            total += 1
"""
SECONDS = 5.0
PROCESSES = "hydra/launcher=processes"
ALONE = ["-m", "--config-dir", "my_conf", "callbacks=busy", "seed=range(20)", "epochs=1"]
STACKS = ["-m", "experiment=stacked_1000"]


def seconds(words: list[str]) -> float:
    """The wall time of a command line, in a folder of its own."""
    with tempfile.TemporaryDirectory() as root:
        options = Path(root, "my_conf", "callbacks")
        options.mkdir(parents=True)
        Path(root, "busy.py").write_text(SLEEPER)
        (options / "busy.yaml").write_text(f"defaults: [default]\nbusy: {{_target_: busy.Busy, seconds: {SECONDS}}}\n")
        began = time.perf_counter()
        command = [sys.executable, str(TRAIN), *words, "report=false", "hydra.sweep.dir=sweep"]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stdout + done.stderr)
        return time.perf_counter() - began


def alternating(one: list[str], other: list[str], rounds: int = ROUNDS) -> list[tuple[float, float]]:
    """The seconds of two command lines, in turn."""
    return [(seconds(one), seconds(other)) for _ in range(rounds)]


def main() -> None:
    """Print the three measurements."""
    pairs = alternating([*STACKS, PROCESSES], STACKS)
    here, there = (statistics.median(times) for times in zip(*((b, a) for a, b in pairs), strict=True))
    more = statistics.median(a - b for a, b in pairs)
    print(
        f"1,000 jobs in four stacks: {there:.1f} s in workers, {here:.1f} s here: {more:+.1f} s, target +3 s",
        flush=True,
    )
    few = ["-m", "lr=0.01,0.1", "batch_size=1,5,20,full", "epochs=1", PROCESSES]
    pairs = alternating([*few, "hydra.launcher.workers=4"], [*few, "hydra.launcher.workers=1"])
    each = statistics.median((a - b) / 3 for a, b in pairs)
    print(f"a further worker: {each * 1e3:.0f} ms, if it is forked from the server that has imported torch", flush=True)
    pairs = alternating([*ALONE, PROCESSES, "hydra.launcher.workers=2"], ALONE, rounds=1)
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"20 jobs alone of {SECONDS:.0f} s, two workers: {ratio:.2f} of one by one, target 0.65", flush=True)


if __name__ == "__main__":
    main()
