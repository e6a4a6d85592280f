"""Records what a list of commands does: exit codes, first printed lines, every number, a digest of the weights.

`python -m tests.golden.record` writes `record.json` anew. It changes only where the behaviour is meant to change, and
the commit says why.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from tests.conftest import ROOT, command_line

RECORD = Path(__file__).with_name("record.json")
FIRST_LINES = 12
WITHOUT_NUMBERS = (".log", ".png", ".html", ".npy", ".pt", ".history")
"""Files of which only is recorded that they are there, by their suffix."""

MOST_ROWS = 30
"""Rows of a leaderboard that are recorded."""

RIDGE = '''
import torch
from holdfast.model import Regression

class Ridge(Regression):
    """Least squares with a penalty on the weights."""


    def __init__(self, l2: float):
        super().__init__(torch.nn.Linear(1, 1))
        self.l2 = l2

    def loss(self, batch):
        return super().loss(batch) + self.l2 * self.network.weight.square().sum()
'''
FILES = {"golden_ridge.py": RIDGE, "my_conf/model/ridge.yaml": "_target_: golden_ridge.Ridge\nl2: 0.0\n"}

COMMANDS: dict[str, list[str]] = {
    "run": ["lr=0.01 hydra.run.dir=run"],
    "run_tested": ["lr=0.001 test=true seed=3 epochs=4 batch_size=5 hydra.run.dir=run"],
    "run_full_batch": ["batch_size=full lr=0.1 data.outliers={} epochs=20 hydra.run.dir=run"],
    "run_network": ["data=linear model=mlp optimizer=adam lr=0.01 batch_size=32 epochs=3 hydra.run.dir=run"],
    "run_dropout": [
        "data=linear model=mlp model.dropout=0.3 batch_size=50 epochs=3 scheduler=cosine hydra.run.dir=run"
    ],
    "run_diverged": ["lr=3 hydra.run.dir=run"],
    "run_double": ["precision=64-true optimizer=rmsprop lr=0.01 trainer.gradient_clip_val=1 hydra.run.dir=run"],
    "run_csv": ["logger=csv callbacks.early_stopping.patience=2 epochs=15 lr=0.1 hydra.run.dir=run"],
    "run_finished": ["epochs=2 hydra.run.dir=run", "resume=run", "resume=run lr=0.5", "resume=nowhere"],
    "sweep_rates": ["-m lr=0.0001,0.001,0.01,0.1,1 hydra.sweep.dir=sweep"],
    "sweep_grid": ["-m experiment=grid hydra.sweep.dir=sweep report=false"],
    "sweep_optimizers": ["-m experiment=optimizers hydra.sweep.dir=sweep report=false"],
    "sweep_outliers": ["-m experiment=outliers epochs=20 hydra.sweep.dir=sweep report=false"],
    "sweep_one_by_one": ["-m lr=0.01,0.1,1 epochs=3 hydra/launcher=basic hydra.sweep.dir=sweep report=false"],
    "sweep_kept": [
        "-m lr=logspace(1e-4,1,40) seed=range(3) epochs=3 batch_size=1,full sweep.keep=4 report=false "
        "hydra.sweep.dir=sweep"
    ],
    "sweep_networks": [
        "-m data=linear model=mlp model.hidden=[4],[3,3] optimizer=adam lr=0.01,0.1 seed=0,1 batch_size=64 epochs=4 "
        "scheduler=step scheduler.step_size=2 hydra.sweep.dir=sweep report=false"
    ],
    "sweep_mixed": [
        "-m data=linear model=mlp model.dropout=0.0,0.2 lr=0.1,0.2 batch_size=64 epochs=3 report=false "
        "hydra.sweep.dir=sweep"
    ],
    "sweep_of_users_code": [
        "-m --config-dir my_conf model=ridge model.l2=0,0.1,1 seed=0,1 batch_size=20 epochs=4 report=false "
        "hydra.sweep.dir=sweep"
    ],
    "sweep_with_a_failure": ["-m accelerator=cpu,mps lr=0.01,0.1 epochs=2 hydra.sweep.dir=sweep report=false"],
    "sweep_resumed": [
        "-m lr=0.01,0.1,0.2 epochs=3 hydra/launcher=basic hydra.sweep.dir=sweep report=false",
        "lose sweep/1/result.json sweep/selection.json",
        "-m resume=sweep",
        "-m resume=sweep",
        "-m resume=sweep lr=5",
    ],
    "refused_words": ["lrr=0.1 epochs=0 optimizer=adma", "-m lr=0.1,abc", "lr=0.1,0.2", "optimizer.nesterov=true"],
    "refused_values": [
        "model.hidden=[1] data.fractions=[1]",
        "data.stop=-9",
        "accelerator=mps",
        "trainer.strategy=ddp_spawn",
    ],
    "shown": ["--help", "--cfg job lr=0.5"],
}
"""Command lines, after `python train.py`, run one after another in one empty folder; `lose` removes files."""


def machine() -> str:
    """The machine, as far as it decides the last bits of a number."""
    try:
        cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        flags = re.search(r"flags\s*: (.*)", Path("/proc/cpuinfo").read_text())
        kind = f"{cpu[1] if cpu else ''} {hashlib.sha256((flags[1] if flags else '').encode()).hexdigest()[:8]}"
    except OSError:
        kind = platform.processor()
    return f"{kind}, {os.cpu_count()} cores, torch {torch.__version__}"


def record(name: str, folder: Path) -> list[dict[str, Any]]:
    """Run the commands of one name in an empty folder, and return what each did."""
    before = Path.cwd()
    for path, content in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    os.chdir(folder)
    try:
        return [_outcome(words, folder) for words in COMMANDS[name]]
    finally:
        os.chdir(before)
        sys.modules.pop("golden_ridge", None)
        sys.path[:] = [path for path in sys.path if path != str(folder)]


def _outcome(words: str, folder: Path) -> dict[str, Any]:
    if words.startswith("lose "):
        for path in words.split()[1:]:
            Path(path).unlink()
        return {}
    code, text = command_line(*words.split())
    lines = [steady(line.replace(str(folder), "FOLDER").replace(str(ROOT), "ROOT")) for line in text.splitlines()]
    return {"exit": code, "printed": lines[:FIRST_LINES], "files": dict(_files(folder))}


def steady(line: str) -> str:
    """A printed line without dates and durations."""
    return re.sub(r"\d{4}-\d\d-\d\d_[\d-]+", "DATE", re.sub(r"[\d.]+ s\)", "SECONDS)", line))


def _files(folder: Path) -> Iterator[tuple[str, Any]]:
    """The numbers in every file that a command left, by its path; of weights their digest."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.name in ("result.json", "selection.json", "test.json", "sweep.json", "run.json"):
            yield name, _numbers(json.loads(path.read_text()))
        elif path.name == "leaderboard.csv":
            rows = list(csv.DictReader(path.read_text().splitlines()))
            yield name, [{key: text for key, text in row.items() if key != "seconds"} for row in rows[:MOST_ROWS]]
        elif path.suffix in (".pth", ".ckpt"):
            yield name, weights_digest(path)
        elif path.name == "results.jsonl":
            yield name, len(path.read_text().splitlines())
        elif (
            path.is_file()
            and ".hydra" not in path.parts
            and path.suffix in (".log", ".png", ".html", ".npy", ".pt", ".history")
        ):
            yield name, "there"


def _numbers(value: Any) -> Any:
    """JSON without what differs from one launch, or one machine, to the next."""
    if isinstance(value, Mapping):
        dropped = ("seconds", "sha256", "versions", "code", "data", "config_hash", "works")
        plain = {key: _numbers(item) for key, item in value.items() if key not in dropped}
        if isinstance(digests := plain.get("stacks"), dict):  # those of the archives, which hold the times
            plain["stacks"] = sorted(digests)
        return plain
    if isinstance(value, list):
        return [_numbers(item) for item in value[:MOST_ROWS]]
    return value


def weights_digest(path: Path) -> str:
    """The sha256 of the tensors of a checkpoint or of a `state_dict`, by their names."""
    loaded = torch.load(path, weights_only=True)
    digest = hashlib.sha256()
    for name, value in sorted(loaded.get("state_dict", loaded).items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    outcomes = {}
    for case in COMMANDS:
        with tempfile.TemporaryDirectory() as empty:
            outcomes[case] = record(case, Path(empty).resolve())
        print(case, [outcome.get("exit") for outcome in outcomes[case]])
    RECORD.write_text(json.dumps({"machine": machine(), "outcomes": outcomes}, indent=1) + "\n")
