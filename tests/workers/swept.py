"""A sweep with everything in it, and one digest of what it leaves: for tests that train it in several ways."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from holdfast.store.folders import RunFolder, SweepFolder
from tests.conftest import command_line, leaderboard_of

MODULES = """
import os, pathlib, signal, sys, time
import lightning.pytorch as pl
import torch
from hydra.core.hydra_config import HydraConfig


class Ordinary(pl.LightningModule):
    '''An ordinary module: it can be stacked.'''

    def __init__(self, lr=0.1, hidden=3):
        super().__init__()
        self.save_hyperparameters()
        self.net = torch.nn.Sequential(torch.nn.Linear(1, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 1))

    def loss(self, batch):
        x, y = batch
        return torch.nn.functional.mse_loss(self.net(x), y)

    def training_step(self, batch, index):
        return self.loss(batch)

    def validation_step(self, batch, index):
        self.log("val/loss", self.loss(batch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


class Alone(Ordinary):
    '''Reads a value of a tensor, so that it runs alone, and may do harm.'''

    def __init__(self, lr=0.1, hidden=3, harm="", once="", seconds=0.0):
        super().__init__(lr, hidden)
        self.harm, self.once, self.seconds = harm, once, seconds

    def training_step(self, batch, index):
        loss = self.loss(batch)
        if loss.item() != loss.item() or not self.harm or self.current_epoch < 1 or index:
            return loss
        time.sleep(self.seconds)
        if self.once and pathlib.Path(self.once).exists():
            return loss
        if self.once:
            pathlib.Path(self.once).touch()
        if self.harm == "raise":
            raise RuntimeError("as asked")
        if self.harm == "exit":
            sys.exit(3)
        if self.harm == "_exit":
            os._exit(7)
        if self.harm == "segfault":
            import ctypes
            ctypes.string_at(0)
        if self.harm == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.harm == "memory":
            raise MemoryError
        if self.harm == "limit":
            import resource
            used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
            try:
                torch.zeros(1 << 30)
            finally:
                resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        if self.harm == "full":
            raise OSError(28, "No space left on device", "/dev/shm/somewhere")
        if self.harm == "sleep":
            time.sleep(3600)
        return loss
"""
OPTIONS = {
    "ordinary": "_target_: swept_modules.Ordinary\nlr: ${lr}\nhidden: 3\n",
    "alone": "_target_: swept_modules.Alone\nlr: ${lr}\nhidden: 3\nharm: ''\nonce: ''\nseconds: 0.0\n",
    "failing": "_target_: swept_modules.Alone\nlr: ${lr}\nhidden: 3\nharm: raise\nonce: ''\nseconds: 0.0\n",
}
FLAGS = ["-m", "--config-dir", "my_conf"]
EVERYTHING = [
    *FLAGS,
    *("model=linear,ordinary,alone,failing", "lr=0.01,0.1,1e9", "epochs=3", "batch_size=5"),
    *("sweep.stack=auto", "sweep.verify=false", "report=false"),
]
"""Stacks by formula and by steps, jobs alone, those that diverge, and those that fail."""


def write_modules(folder: Path) -> None:
    """Write the user's module and its options into a folder."""
    (folder / "swept_modules.py").write_text(MODULES)
    (folder / "my_conf" / "model").mkdir(parents=True, exist_ok=True)
    for name, text in OPTIONS.items():
        (folder / "my_conf" / "model" / f"{name}.yaml").write_text(text)


def contents(sweep: SweepFolder) -> dict[str, Any]:
    """Everything that a sweep leaves, without times, hosts, and how torch.save has written it down."""
    told: dict[str, Any] = {}
    for path in sorted(sweep.path.glob("[0-9]*"), key=lambda path: int(path.name)):
        run = RunFolder(path)
        result = json.loads(run.result.read_text())
        for key in ("seconds", "versions"):
            del result[key]
        sha256 = result.pop("sha256")
        told[path.name] = [result, sorted(sha256), sha256.get("model.pth"), *map(tensors, (run.best, run.last))]
        others = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
        told[f"{path.name} files"] = sorted(name for name in others if "tfevents" not in name)
        told[f"{path.name} events"] = sum("tfevents" in name for name in others)
    selection = json.loads(sweep.selection.read_text())
    del selection["sha256"]
    told["selection"] = selection
    told["leaderboard"] = leaderboard_of(sweep.path)
    told["results"] = [
        [number, result.best, result.last, result.status, result.error, result.epochs, result.iterations]
        for number, result in sweep.read_results().items()
    ]
    return told


def tensors(file: Path) -> str:
    """A digest of all tensors and numbers of a checkpoint."""
    if not file.exists():
        return ""
    sha256 = hashlib.sha256()
    torch.set_printoptions(profile="full", precision=20)
    try:
        content = torch.load(file, weights_only=True)
        sha256.update(repr({key: content[key] for key in content if key != "holdfast"}).encode())
    finally:
        torch.set_printoptions(profile="default")
    return sha256.hexdigest()


def digest(sweep: SweepFolder) -> str:
    """One digest of all that a sweep leaves."""
    return hashlib.sha256(json.dumps(contents(sweep), sort_keys=True).encode()).hexdigest()


QUIET = ["report=false", "sweep.verify=false"]
_numbers = itertools.count()
_by_default: dict[tuple[str, ...], Any] = {}


@contextmanager
def working_in(path: Path) -> Iterator[Path]:
    """Work in a folder with the user's modules."""
    before = Path.cwd()
    write_modules(path)
    os.chdir(path)
    try:
        yield path
    finally:
        os.chdir(before)


def swept(words: list[str], name: str = "") -> tuple[int, str, SweepFolder]:
    """Run a sweep in this process, in a folder of its own: exit code, what it said, the folder."""
    name = name or f"swept_{next(_numbers)}"
    code, said = command_line(*FLAGS, *words, *QUIET, f"hydra.sweep.dir={name}")
    return code, said, SweepFolder(Path(name))


def same(sweep: SweepFolder, words: list[str]) -> None:
    """Compare what a sweep has left with what the default launcher leaves."""
    key = (str(Path.cwd()), *words)
    if key not in _by_default:
        _by_default[key] = contents(swept(words)[2])
    assert contents(sweep) == _by_default[key]
    assert not (sweep.path / "works").exists()
