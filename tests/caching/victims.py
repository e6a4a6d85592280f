"""Command lines that are stopped at a moment of a conversion or of an epoch, and started again.

`python -m tests.caching.victims PLAN` runs by itself, since a process may be forked only while it has no other threads.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast.caching import reading
from holdfast.caching.dividing import SplitFile
from holdfast.caching.encoded_rows import RowEncoder
from holdfast.caching.raw_columns import RawColumns
from holdfast.data import blocks, buffered
from holdfast.data.blocks import BlockFile, BlockWriter
from holdfast.single.startup import import_training
from holdfast.tables import chunks
from tests.faults.victims import end, resuming, runs, victim

TABLE = ("data=table", "data.path=../t.csv", "data.target=y", "data.cache_dir=cache", "batch_size=50", "epochs=3")
QUICK = ("report=false", "model=mlp", "model.hidden=[4]", "optimizer=adam")
COMMANDS = {
    "run": [*TABLE, *QUICK, "lr=0.01", "data.buffer_rows=400", "hydra.run.dir=run", "test=true"],
    "one buffer": [*TABLE, *QUICK, "lr=0.01", "data.buffer_rows=5000", "hydra.run.dir=run"],
    "in memory": [*TABLE, *QUICK, "lr=0.01", "data.buffer_rows=auto", "hydra.run.dir=run"],
    "sweep": ["-m", *TABLE, *QUICK, "data.buffer_rows=400", "lr=0.01,0.02", "seed=0,1", "hydra.sweep.dir=sweep"],
}

MOMENTS: dict[str, tuple[type[Any], str]] = {
    "reading": (RawColumns, "append"),
    "dividing": (SplitFile, "read"),
    "measuring": (RawColumns, "read"),
    "writing": (RowEncoder, "raw"),
    "block": (BlockWriter, "_write_block"),
    "training": (BlockFile, "read"),
}
"""Methods before whose calls a process is stopped."""

Act = Callable[[str, int], None]
"""Called before a moment, with its kind and its number."""


def prepared(act: Act) -> Callable[[], None]:
    """Make pieces, blocks and buffers small, and call a function before each moment."""
    counts, process = Counter[str](), 0

    def prepare() -> None:
        nonlocal process
        process = os.getpid()
        blocks.BLOCK_ROWS = buffered.BLOCK_ROWS = 100
        buffered.LEAST_BLOCKS = 2
        chunks.CHUNK = 3000
        reading._SECONDS = 0.0
        for kind, (owner, name) in MOMENTS.items():
            setattr(owner, name, noted(getattr(owner, name), kind))

    def noted(method: Any, kind: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if os.getpid() == process:  # the trial of a stack runs in a child
                counts[kind] += 1
                act(kind, counts[kind])
            return method(*args, **kwargs)

        return call

    return prepare


def started_again(words: list[str], folder: Path) -> tuple[int, str]:
    """Resume what has begun, or start again where nothing has; the converted table stays where it is."""
    if not ((folder / "sweep" / "sweep.json").exists() or (folder / "run" / "run.json").exists()):
        shutil.rmtree(folder / "sweep", ignore_errors=True)
        shutil.rmtree(folder / "run", ignore_errors=True)
        return victim(words, folder, prepared(lambda *_: None))
    code, said = victim(resuming(words), folder, prepared(lambda *_: None))
    if "test_again" in said:  # it was stopped while the test rows were open
        code, said = victim([*resuming(words), "test_again=true"], folder, prepared(lambda *_: None))
    return code, said


def trained(folder: Path) -> dict[str, Any]:
    """The weights and the metrics of every run, without what names its configuration."""
    import torch

    found = dict[str, Any]()
    for name, run in runs(folder).items():
        weights = torch.load(run.weights, weights_only=True)
        bits = {key: value.numpy().tobytes().hex() for key, value in weights.items()}
        result = json.loads(run.result.read_text())
        found[name] = [bits, result["best"], result["last"], result["iterations"]]
    return found


def stopped(kind: str, root: Path, name: str, at: tuple[str, int], number: int) -> dict[str, Any]:
    """Stop a command line at a moment, by a signal, and start it again."""
    folder = root / name
    folder.mkdir()

    def act(moment: str, count: int) -> None:
        if (moment, count) == at:
            os.kill(os.getpid(), number)

    code, said = victim(COMMANDS[kind], folder, prepared(act))
    again, said_again = started_again(COMMANDS[kind], folder)
    left = [str(path) for pattern in ("*.part", "raw", "splits", "progress.json") for path in folder.rglob(pattern)]
    results = json.loads(json.dumps(end(folder)).replace('"test_opened": 2', '"test_opened": 1')) if not again else None
    return {
        "at": at,
        "code": code,
        "said": said,
        "again": again,
        "said_again": said_again,
        "converted": said_again.count("rows converted"),
        "left": left,
        "results": results,
    }


def work(plan: dict[str, Any]) -> dict[str, Any]:
    """Carry out a plan: a kind of command line, which is stopped at evenly spread moments of each kind."""
    root, kind = Path(plan["folder"]), plan["kind"]
    folder, log = root / "whole", root / "moments"
    folder.mkdir()
    descriptor = os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    code, said = victim(COMMANDS[kind], folder, prepared(lambda moment, _: _note(descriptor, moment)))
    assert code == 0, said
    whole, moments = end(folder), Counter(log.read_text().splitlines())
    outcomes = []
    for moment, tried in plan["moments"].items():
        for share in range(tried):
            count = 1 + round((moments[moment] - 1) * (share + 0.5) / tried)
            number = (signal.SIGKILL, signal.SIGTERM)[(share + len(moment)) % 2]
            outcome = stopped(kind, root, f"{moment}-{count}-{number}", (moment, count), number)
            outcome["same"] = outcome.pop("results") == whole
            outcomes.append({**outcome, "signal": int(number)})
    return {"moments": moments, "outcomes": outcomes, "trained": trained(folder)}


def _note(log: int, what: str) -> None:
    os.write(log, f"{what}\n".encode())


if __name__ == "__main__":
    import_training()
    import pyarrow.compute
    import pyarrow.csv  # noqa: F401 (before a fork, since it takes a while)

    print(json.dumps(work(json.loads(sys.argv[1]))))
