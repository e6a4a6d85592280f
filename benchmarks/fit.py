"""python benchmarks/fit.py: a fit of 600 iterations, relative to loops of plain torch with the same updates."""

from __future__ import annotations

import gc

gc.disable()  # as at the start of holdfast

import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from holdfast.cli.main import CONF
from holdfast.compose.recompose import compose
from holdfast.config.job import JobSpec
from holdfast.data import Line, row_order
from holdfast.single.trainer import train_one
from holdfast.store.folders import RunFolder

gc.freeze()
gc.enable()

RUNS = 15


def complete() -> None:
    """Fit with Lightning's Trainer, validation, checkpoints, TensorBoard and result.json: `train.py lr=0.01`."""
    with tempfile.TemporaryDirectory() as folder:
        train_one(JobSpec(0, (), CONFIG, ""), RunFolder(Path(folder)))


def course_loop() -> None:
    """Train as the course does: a DataLoader that collates row by row; the loss of each iteration is stored."""
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loader = DataLoader(ROWS, batch_size=1, shuffle=True)
    losses = []
    for _ in range(10):
        for x, y in loader:
            loss = torch.nn.functional.mse_loss(model(x), y)
            losses.append(loss.tolist())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def slice_loop() -> None:
    """Train with the shortest loop: rows are gathered once per epoch, and no loss is stored."""
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for epoch in range(10):
        order = row_order(len(ROWS), 0, epoch)
        for x, y in zip(*(part.split(1) for part in ROWS[order]), strict=True):
            loss = torch.nn.functional.mse_loss(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def main() -> None:
    """Print the median time of each loop, and the ratios."""
    loops: tuple[Callable[[], None], ...] = (complete, course_loop, slice_loop)
    times: dict[str, list[float]] = {loop.__name__: [] for loop in loops}
    for _ in range(RUNS + 2):
        for loop in loops:
            began = time.perf_counter()
            loop()
            times[loop.__name__].append(time.perf_counter() - began)
    seconds = {name: statistics.median(values[2:]) for name, values in times.items()}
    for name, value in seconds.items():
        print(f"{name:<12} {1e3 * value:6.0f} ms")
    print(f"complete over the course's loop  {seconds['complete'] / seconds['course_loop']:.2f} (target 4)")
    print(f"complete over the shortest loop  {seconds['complete'] / seconds['slice_loop']:.2f}")


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    CONFIG = compose(["accelerator=cpu"], CONF)
    ROWS = Line().rows("train")
    main()
