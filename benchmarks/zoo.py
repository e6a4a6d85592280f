"""The modules of tests/zoo: 32 jobs as a stack, its plan and its trial included, and each by a Trainer.

python benchmarks/zoo.py prints the table of docs/stacks.md: for each module whether it is stacked, or why not, and how
often the time of the stack fits into the time of the Trainers, of which four are timed.
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
import time
import warnings
from pathlib import Path

from holdfast.config.job import JobSpec
from holdfast.config.schema import Config
from holdfast.planning.share import share
from holdfast.single.trainer import train_one
from holdfast.stacked.stack_trainer import train_stack
from holdfast.store.folders import RunFolder, SweepFolder
from tests.stacked.test_loop import configured
from tests.zoo import modules
from tests.zoo.test_zoo import ZOO, Animal

JOBS, TIMED, EPOCHS = 32, 4, 20


def jobs_of(animal: Animal) -> list[Config]:
    """Jobs that differ in rate and seed."""
    configs = []
    for number in range(JOBS):
        lr = 0.001 * 1.1**number
        config = configured(f"lr={lr}", f"seed={number % 4}", f"epochs={EPOCHS}", "report=false")
        model = {"_target_": f"tests.zoo.modules.{animal.module}", "lr": lr}
        configs.append(dataclasses.replace(config, model=model, data={"_target_": f"tests.zoo.data.{animal.data}"}))
    return configs


def row(animal: Animal) -> str:
    """A row of the table."""
    what = (getattr(modules, animal.module).__doc__ or "").splitlines()[0].rstrip(".")
    over = "" if animal.data in ("Table", "Numbers", "Images", "Tokens") else f", over {animal.data}"
    configs = jobs_of(animal)
    specs = [JobSpec(number, (), config, f"{number:064}") for number, config in enumerate(configs)]
    began = time.perf_counter()
    shares = share(configs)
    if shares[0].reason is not None:
        return f"| `{animal.module}`{over} | {what} | alone: {shares[0].reason.splitlines()[0]} | |"
    with tempfile.TemporaryDirectory() as root:
        folder = SweepFolder(Path(root))
        for part in shares:
            some = [specs[index] for index in part.jobs]
            train_stack(some, folder.stack(some[0].number), by_steps=part.by_steps)
        stacked = time.perf_counter() - began
        began = time.perf_counter()
        for spec in specs[:TIMED]:
            (alone := Path(root, f"alone{spec.number}")).mkdir()
            train_one(spec, RunFolder(alone))
        ratio = (time.perf_counter() - began) / TIMED * JOBS / stacked
    return f"| `{animal.module}`{over} | {what} | {len(shares)} stack | {ratio:.1f} |"


def main() -> None:
    """Print the table."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    print("| Module | What it does | | Ratio |\n|---|---|---|---|")
    for key in dict.fromkeys((animal.module, animal.data) for animal in ZOO):
        print(row(Animal(*key)), flush=True)


if __name__ == "__main__":
    main()
