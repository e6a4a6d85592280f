"""What an iteration costs by the width of a stack: the constants of `holdfast.planning.width` come from here.

`python benchmarks/widths.py` prints, for each workload, the multiplications of an iteration of one job, the
microseconds of the bare module in a loop of plain torch, to which a Trainer adds 1,600 to 1,900, and those for each job
in stacks of several widths; with one thread, and with all.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from pathlib import Path

import torch
import workloads

from holdfast.config.schema import Config
from holdfast.planning.steps_trial import probe_steps
from holdfast.runtime.allocator import freed_memory_kept
from holdfast.runtime.isolation import isolated
from holdfast.runtime.threads import threads
from holdfast.stacked.module_engine import ModuleEngine
from holdfast.stacked.module_inputs import ModuleInputs

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.stacked.test_loop import configured

BATCH_SIZES = {"A": 32, "B": 32, "C": 64, "D": 32, "E": 32, "F": 64}
WIDTHS = (1, 4, 16, 64)
ITERATIONS, ROUNDS = 10, 3


def jobs_of(workload: str, count: int) -> list[Config]:
    """Jobs that differ in their rates."""
    config = configured("epochs=5", "report=false")
    data = {"_target_": "workloads.Rows", "kind": workload, "batch_size": BATCH_SIZES[workload]}
    model = {"_target_": f"workloads.{workload}"}
    return [dataclasses.replace(config, model={**model, "lr": 1e-4 * 1.01**n}, data=data) for n in range(count)]


def bare(workload: str) -> float:
    """Microseconds of an iteration of the module in a loop of plain torch."""
    module, size = getattr(workloads, workload)(), BATCH_SIZES[workload]
    module.log = lambda *args: None
    optimizer, (x, y), took = module.configure_optimizers(), workloads.rows(workload), []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for number in range(ITERATIONS):
            batch = slice(number * size, number * size + size)
            optimizer.zero_grad()
            module.training_step((x[batch], y[batch]), number).backward()
            optimizer.step()
        took.append(time.perf_counter() - began)
    return min(took) / ITERATIONS * 1e6


def in_a_stack(workload: str, width: int) -> float:
    """Microseconds of an iteration for each job of a stack."""
    with isolated(), freed_memory_kept():
        engine = ModuleEngine(ModuleInputs(jobs_of(workload, width)))
        took = []
        with torch.no_grad():
            engine.begin_epoch(0)
            engine.train(0, None)
            for _ in range(ROUNDS):
                began = time.perf_counter()
                for number in range(1, ITERATIONS + 1):
                    engine.train(number, None)
                took.append(time.perf_counter() - began)
    return statistics.median(took) / ITERATIONS / width * 1e6


def main() -> None:
    """Print the table."""
    print("workload, multiplications, threads | bare |" + "|".join(f" {width} jobs " for width in WIDTHS))
    for workload in sys.argv[1:] or BATCH_SIZES:
        with isolated():
            count = probe_steps(jobs_of(workload, 1)).multiplications
        for number in sorted({1, torch.get_num_threads()}):
            with threads(number):
                row = [f"{in_a_stack(workload, width):,.0f}" for width in WIDTHS]
                print(f"{workload}, {count:,}, {number} | {bare(workload):,.0f} | {' | '.join(row)}", flush=True)


if __name__ == "__main__":
    main()
