"""python benchmarks/stack.py: the inner loop of a stack, over torch.func's plain step and over the arithmetic itself.

Rows are gathered beforehand, one thread. The arithmetic itself is the same updates as a loop in C, compiled with
`cc -O3 -march=native`, where there is a compiler.
"""

from __future__ import annotations

import gc

gc.disable()  # as holdfast itself starts

import ctypes
import dataclasses
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from holdfast.arithmetic.gradients import Gradients
from holdfast.arithmetic.least_squares import LeastSquares
from holdfast.arithmetic.mapped import Mapped
from holdfast.arithmetic.optimizers import OPTIMIZERS
from holdfast.arithmetic.tracing import TRACED_AFTER
from holdfast.cli.main import CONF
from holdfast.compose.recompose import compose
from holdfast.model import MLP, Linear
from holdfast.runtime.isolation import isolated
from holdfast.single.startup import import_training
from holdfast.stacked.formula_engine import FormulaEngine
from holdfast.stacked.inputs import StackInputs
from holdfast.stacked.loop import Stack

import_training()

JOBS = 1000
ROUNDS = 7
SGD = {"lr": 0.01, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False}
ADAM = {"lr": 0.01, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False}
LOOP = """
void train(int iterations, int jobs, int batch, const float *x, const float *y, const float *rate, float *w, float *b) {
  for (int i = 0; i < iterations; i++)
    for (int j = 0; j < jobs; j++) {
      float gw = 0, gb = 0;
      const float *xs = x + (long)(i % 50) * batch, *ys = y + (long)(i % 50) * batch;
      for (int k = 0; k < batch; k++) { float e = w[j] * xs[k] + b[j] - ys[k]; gw += e * xs[k]; gb += e; }
      w[j] -= rate[j] * 2 / batch * gw;
      b[j] -= rate[j] * 2 / batch * gb;
    }
}
"""


def per_call(step: Callable[[], object], calls: int = 300) -> float:
    """Milliseconds of one call, the median of some rounds."""
    for _ in range(TRACED_AFTER + 5):
        step()
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(calls):
            step()
        times.append((time.perf_counter() - began) / calls)
    return 1e3 * statistics.median(times)


def iteration(
    gradients: Gradients, settings: Mapping[str, Any], parameters: int, streams: int, batch: int
) -> Callable[[], None]:
    """One iteration of a thousand jobs in `streams` different orders of rows."""
    jobs = JOBS // streams
    optimizer = OPTIMIZERS["torch.optim.SGD" if settings is SGD else "torch.optim.Adam"]([settings] * JOBS)
    values = torch.randn(parameters, streams, jobs) * 0.1
    optimizer.set_layout(np.arange(JOBS).reshape(streams, jobs), values)
    rate = torch.full((streams, jobs), -1e-6)
    x, y = torch.randn(1, streams, batch, 1), torch.randn(1, streams, batch, 1)
    prepared = (torch.cat([x, torch.ones_like(y)], -1), -y) if isinstance(gradients, LeastSquares) else (x, y)
    (rows,) = gradients.batches(prepared, jobs)

    def step() -> None:
        _, gradient = gradients(values, rows)
        optimizer.step(values, gradient, rate)

    return step


def compiled(batch: int) -> float | None:
    """Milliseconds of an iteration of the same jobs in C."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "loop.c"), Path(folder, "loop.so")
        source.write_text(LOOP)
        command = [compiler, "-O3", "-march=native", "-ffast-math", "-shared", "-fPIC", str(source), "-o", str(library)]
        subprocess.run(command, check=True)
        train = ctypes.CDLL(str(library)).train
        arrays = [np.random.default_rng(0).normal(size=size).astype(np.float32) for size in (50 * batch, 50 * batch)]
        arrays += [np.full(JOBS, 1e-6, np.float32), np.zeros(JOBS, np.float32), np.zeros(JOBS, np.float32)]
        pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in arrays]
        return per_call(lambda: train(100, JOBS, batch, *pointers), calls=10) / 100


def large() -> None:
    """32 rates on 200,000 x 64 rows, over the matmuls and gathers alone; peak memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    words = ["data=linear", "data.rows=200000", "data.features=64", "batch_size=1024", "epochs=2", "accelerator=cpu"]
    config = compose(words, CONF)
    rates: Sequence[float] = np.geomspace(1e-4, 1e-1, 32).tolist()
    configs = [dataclasses.replace(config, lr=rate, optimizer={**config.optimizer, "lr": rate}) for rate in rates]
    with isolated():
        inputs = StackInputs(configs)
        Stack(FormulaEngine(inputs)).train()
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        x, y = LeastSquares().prepare(inputs.rows.train[0][:])
        val = LeastSquares().prepare(inputs.rows.val[0][:])[0]
        ratios, bounds = [], []
        for _ in range(ROUNDS):
            stack, began = Stack(FormulaEngine(inputs)), time.perf_counter()
            stack.train()
            middle = time.perf_counter()
            bound(x, y, val)
            bounds.append(time.perf_counter() - middle)
            ratios.append((middle - began) / bounds[-1])
    data = 200_000 * 65 * 4 / 2**20
    print(f"200,000 x 64 rows, 32 rates: {statistics.median(ratios):.2f} times its matmuls and gathers (target 1.8),")
    print(f"  which take {1e3 * statistics.median(bounds):.0f} ms")
    print(f"  peak memory {peak:.0f} MB over the imports, the data being {data:.0f} MB (target: the data plus 300)")


def bound(x: Tensor, y: Tensor, val: Tensor) -> None:
    """Two epochs of gathers and matmuls: forward and backward of each batch, and the two passes that measure."""
    weights = torch.zeros(65, 32)
    for _ in range(2):
        for rows in torch.split(torch.randperm(len(x)), 1024):
            batch, target = x.index_select(0, rows), y.index_select(0, rows)
            _ = batch.T @ torch.addmm(target, batch, weights)
        _ = x @ weights, val @ weights


def main() -> None:
    """Print milliseconds an iteration, and ratios."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    print(f"milliseconds an iteration of {JOBS} jobs")
    print(
        "  linear, MSE, SGD by formula, target 0.03 (jobs that share 5 orders of rows | each an order of its own | C)"
    )
    for batch in (1, 5, 20, 60):
        ours = [per_call(iteration(LeastSquares(), SGD, 2, streams, batch)) for streams in (5, JOBS)]
        theirs = compiled(batch)
        told = (
            "no compiler"
            if theirs is None
            else f"{theirs:.4f}, {ours[0] / theirs:.1f} and {ours[1] / theirs:.1f} times"
        )
        print(f"    batch {batch:<3} {ours[0]:.4f} | {ours[1]:.4f} | {told}")
    for name, settings in (("SGD", SGD), ("Adam", ADAM)):
        ms = per_call(iteration(Mapped(Linear(1), torch.no_grad), settings, 2, 5, 5))
        print(f"  any linear module, {name:<4}          {ms:.3f} (target 0.4)")
    for hidden in ([16], [16, 16]):
        traced, untraced = (Mapped(MLP(1, hidden), torch.no_grad) for _ in range(2))
        untraced._gradient._calls = _Never()  # so that it is never traced
        size = sum(value.numel() for value in MLP(1, hidden).parameters())
        ms, without = (per_call(iteration(each, SGD, size, 5, 5), calls=30) for each in (traced, untraced))
        print(f"  MLP {hidden!s:<8} {ms:.2f} over vmap {without:.2f} = {ms / without:.2f} (target 0.75)")
    torch.set_num_threads(threads)
    large()


class _Never(Counter[Any]):
    """Counts no call."""

    def __setitem__(self, key: Any, value: int) -> None:
        pass


if __name__ == "__main__":
    main()
