"""Sweeps of modules as people write them, over the same sweeps one job after another (`hydra/launcher=basic`).

Whole processes, in turn, with files and verification, without a report; "beyond a run" subtracts a single run of the
same module. `python benchmarks/modules.py` takes half an hour; `python benchmarks/modules.py A B` some workloads only.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 3
HERE = Path(__file__).resolve().parent
WORKLOADS = {"A": (32, 5), "B": (32, 10), "C": (64, 5), "D": (32, 5)}
"""Batch size and epochs."""

TARGETS: dict[str, dict[int, tuple[float, float | None]]] = {
    "A": {20: (1.4, None), 100: (4, 12)},
    "B": {20: (1.3, None), 100: (2.5, 4)},
    "C": {20: (1.6, None), 100: (1.8, 1.8)},
    "D": {20: (1.0, None), 100: (1.0, 1.0)},
}
"""Times as fast as one job after another, by the number of jobs: the whole process, and beyond a run."""

MANY, OVER_A_RUN = 1000, 3
"""Jobs of A, and how often a single run may fit into their sweep."""

CONF = {
    "model": "_target_: workloads.{workload}\nlr: ${{lr}}\n",
    "data": "_target_: workloads.Rows\nkind: {workload}\nbatch_size: ${{batch_size}}\n",
}


def seconds(workload: str, jobs: int, *words: str) -> tuple[float, str]:
    """The wall time of a sweep, or of a single run, in a folder of its own, and its line about the plan."""
    batch_size, epochs = WORKLOADS[workload]
    rates = ",".join(f"{1e-4 * 10 ** (number / jobs):.8f}" for number in range(jobs))
    line = ["model=mine", "data=mine", f"lr={rates}", f"batch_size={batch_size}", f"epochs={epochs}", "report=false"]
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(HERE / "workloads.py", folder)
        for group, text in CONF.items():
            path = Path(folder, "conf", group, "mine.yaml")
            path.parent.mkdir(parents=True)
            path.write_text(text.format(workload=workload))
        command = [sys.executable, str(HERE.parent / "train.py"), "--config-dir", "conf", *line, *words]
        began = time.perf_counter()
        done = subprocess.run(
            [*command, *(["-m"] if jobs > 1 else [])], cwd=folder, capture_output=True, text=True, check=True
        )
        took = time.perf_counter() - began
    return took, next((line for line in done.stdout.splitlines() if line.startswith("plan: ")), "")


def table(workload: str) -> None:
    """Print the rows of one workload."""
    for jobs, (whole, beyond) in TARGETS[workload].items():
        rounds = []
        for _ in range(ROUNDS):
            here, plan = seconds(workload, jobs)
            rounds.append((seconds(workload, 1)[0], here, seconds(workload, jobs, "hydra/launcher=basic")[0]))
        run, here, basic = map(statistics.median, zip(*rounds, strict=True))
        print(f"{workload}, {jobs} jobs: {here:.1f} s, basic {basic:.1f} s, a run {run:.1f} s; {plan}")
        print(f"  whole: {basic / here:.2f} times as fast (target {whole})", flush=True)
        if beyond is not None:
            print(f"  beyond a run: {(basic - run) / (here - run):.2f} times as fast (target {beyond})", flush=True)


def main() -> None:
    """Print the table."""
    workloads = sys.argv[1:] or list(WORKLOADS)
    for workload in workloads:
        table(workload)
    if "A" in workloads:
        rounds = [(seconds("A", 1)[0], seconds("A", MANY)[0]) for _ in range(ROUNDS)]
        ratio = statistics.median(many / run for run, many in rounds)
        print(f"A, {MANY} jobs: {ratio:.2f} times a single run (target at most {OVER_A_RUN})")


if __name__ == "__main__":
    main()
