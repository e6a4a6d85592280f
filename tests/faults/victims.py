"""Command lines that are killed, starved or disturbed: children of a process that has torch loaded already.

`python -m tests.faults.victims PLAN` runs by itself, since a process may be forked only while it has no other threads.
A forked victim starts in a hundredth of the time that its imports would take.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast.cli.main import main
from holdfast.single.startup import import_training
from holdfast.store.folders import RunFolder, SweepFolder
from tests.conftest import leaderboard_of

SINGLE = ("data=linear", "data.rows=60", "data.features=2", "batch_size=12", "epochs=3", "report=false")
SWEEPS = {
    "run": [*SINGLE, "test=true", "hydra.run.dir=run"],
    "stacked": ["-m", *SINGLE, "lr=0.01,0.1", "seed=0,1,2", "hydra.sweep.dir=sweep"],
    "basic": ["-m", *SINGLE, "lr=0.01,0.1,0.2", "hydra/launcher=basic", "hydra.sweep.dir=sweep"],
    "mixed": ["-m", *SINGLE, "model=mlp", "model.dropout=0.0,0.2", "lr=0.1,0.2", "hydra.sweep.dir=sweep"],
}
SWEEPS["folds"] = ["-m", *SINGLE, "lr=0.01,0.1", "sweep.folds=3", "hydra.sweep.dir=sweep"]
for sampler, trials in (("zoom", 6), ("tpe", 66)):  # each has two rounds
    words = ["lr=loginterval(1e-3,1)", f"sweep.sampler={sampler}", f"sweep.trials={trials}", "sweep.keep=2"]
    SWEEPS[sampler] = ["-m", *SINGLE, *words, "hydra.sweep.dir=sweep"]
SWEEPS["snapshots"] = [
    *("-m", "data=linear", "data.rows=2000", "data.features=2", "batch_size=1", "epochs=3", "report=false"),
    *("optimizer=adam", "scheduler=cosine", "callbacks.early_stopping.patience=1", "lr=0.001,0.01,0.5,1e9"),
    *("sweep.snapshot=0", "sweep.keep=1", "hydra.sweep.dir=sweep"),
]  # a snapshot at the end of each epoch, and in the middle of it: after 1,000 of its 1,200 iterations
WRITES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}


def on_writes(act: Callable[[int, str], None]) -> None:
    """Call a function before every write boundary, with its number and what it is about.

    The trial of a stack runs in a child of its own, whose writes are thrown away with it: they are not counted.
    """
    count, process = 0, os.getpid()

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        if os.getpid() != process:
            return
        if event == "open":
            path, _, flags = args
            writes = isinstance(path, (str, bytes)) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if not writes or str(path).startswith(("/dev", "/proc")):
                return
        elif event not in WRITES:
            return
        count += 1
        act(count, f"{event} {args[0]}")

    sys.addaudithook(hook)


def victim(words: list[str], folder: Path, prepare: Callable[[], None] = lambda: None) -> tuple[int, str]:
    """Run a command line in a child; its exit code, below zero if it was killed, and what it said."""
    said = folder.parent / f"{folder.name}.said"
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.chdir(folder)
            out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            import torch

            from holdfast.record import writer

            torch.set_num_threads(1)
            writer.SECONDS_BETWEEN_WRITES = 0.0
            prepare()
            try:
                main(list(words))
            except SystemExit as stop:
                code = int(str(stop.code or 0))
            sys.stdout.flush()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), said.read_text(errors="replace")


def resuming(words: list[str]) -> list[str]:
    """The command line that goes on."""
    return ["-m", "resume=sweep"] if "-m" in words else ["resume=run"]


def runs(folder: Path) -> dict[str, RunFolder]:
    """Every job's folder, or the one run's, by name."""
    if (folder / "run").exists():
        return {"run": RunFolder(folder / "run")}
    found = sorted(path for path in (folder / "sweep").glob("*") if path.name.isdecimal() or path.name == "refit")
    return {path.name: RunFolder(path) for path in found}


def finished(folder: Path) -> dict[str, dict[str, int]]:
    """The finished jobs, each with its files and when they were written."""
    found = {}
    for name, run in runs(folder).items():
        result = run.read()
        if result is not None and run.finished(result.config_hash):
            files = [run.result, *(run.path / file for file in result.sha256)]
            found[name] = {file.name: file.stat().st_mtime_ns for file in files}
    return found


def end(folder: Path) -> dict[str, Any]:
    """All that a finished run or sweep says, but for times and for how torch.save wrote it down."""
    import torch

    told: dict[str, Any] = {}
    for name, run in runs(folder).items():
        if not run.result.exists():
            continue  # the folder of a job that is not kept holds its event file
        result = json.loads(run.result.read_text())
        del result["seconds"], result["sha256"]["best.ckpt"], result["sha256"]["last.ckpt"]
        tensors = [torch.load(file, weights_only=True) for file in (run.best, run.last)]
        told[name] = [result, [repr(part) for part in tensors]]
    sweep = SweepFolder(folder / "sweep")
    if sweep.selection.exists():
        selection = json.loads(sweep.selection.read_text())
        del selection["sha256"]["best.ckpt"]
        told["selection"] = selection
        told["results"] = [
            [number, result.best, result.last, result.status, result.error]
            for number, result in sweep.read_results().items()
        ]
        told["leaderboard"] = leaderboard_of(sweep.path)
    return told


def killed(kind: str, root: Path, kill: Callable[[], None], whole: dict[str, Any], name: str) -> dict[str, Any]:
    """Kill a victim, go on, and hold the end against that of one that was left alone."""
    folder = root / name
    folder.mkdir()
    words = SWEEPS[kind]
    code, _ = victim(words, folder, kill)
    before = finished(folder)
    begun = (folder / "sweep" / "sweep.json").exists() or (folder / "run" / "run.json").exists()
    if not begun:  # there is nothing to go on with, and nothing to lose
        shutil.rmtree(folder / ("sweep" if "-m" in words else "run"), ignore_errors=True)
    again, said = victim(resuming(words) if begun else words, folder)
    opened_twice = "test_again" in said
    if opened_twice:  # it was killed while the test rows were open
        again, said = victim([*resuming(words), "test_again=true"], folder)
    after, now = finished(folder), end(folder)
    if opened_twice:
        now = json.loads(json.dumps(now).replace('"test_opened": 2', '"test_opened": 1'))
    leftovers = [str(path) for path in folder.rglob("*.part")] + [str(path) for path in folder.rglob(".lock")]
    outcome = {
        "killed": code == -signal.SIGKILL,
        "code": again,
        "same": now == whole,
        "rerun": [job for job, files in before.items() if after.get(job) != files],
        "left": leftovers,
        "opened_twice": opened_twice,
        "went_on": "go on from their snapshot" in said,
        "said": said if again or now != whole else "",
    }
    if not (outcome["code"] or outcome["rerun"] or leftovers) and outcome["same"]:
        shutil.rmtree(folder)
    return outcome


def at(boundary: int) -> Callable[[], None]:
    """Kill right before a write boundary."""

    def act(number: int, what: str) -> None:
        if number == boundary:
            os.kill(os.getpid(), signal.SIGKILL)

    return lambda: on_writes(act)


def after(seconds: float) -> Callable[[], None]:
    """Kill after some time."""

    def prepare() -> None:
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, seconds)

    return prepare


def starved(kind: str, root: Path, number: int, boundary: int, whole: dict[str, Any]) -> dict[str, Any]:
    """Let one write fail, as on a full disk or in a folder that is read-only."""
    folder, told = root / f"at{boundary}", root / f"at{boundary}.what"
    folder.mkdir()

    def act(count: int, what: str) -> None:
        if count == boundary:
            file = os.open(told, os.O_RDWR | os.O_CREAT)
            os.write(file, what.encode())
            os.close(file)
            raise OSError(number, os.strerror(number), what.partition(" ")[2])

    code, said = victim(SWEEPS[kind], folder, lambda: on_writes(act))
    torn = [
        job
        for job, run in runs(folder).items()
        if run.result.exists() and not ((result := run.read()) and run.finished(result.config_hash))
    ]
    outcome = {
        "what": told.read_text() if told.exists() else "",
        "code": code,
        "whole": code == 0 and end(folder) == whole,
        "named": os.strerror(number) in said,
        "traceback": "Traceback" in said,
        "torn": torn,
        "said": said,
    }
    shutil.rmtree(folder)
    return outcome


def work(plan: dict[str, Any]) -> dict[str, Any]:
    """Carry out a plan: a kind of command line, what is done to it, and at every how many-th boundary."""
    root, kind = Path(plan["folder"]), plan["kind"]
    (root / "whole").mkdir()
    log = os.open(root / "count", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    began = time.perf_counter()
    code, said = victim(SWEEPS[kind], root / "whole", lambda: on_writes(lambda _, what: _note(log, what)))
    took = time.perf_counter() - began
    assert code == 0, said
    boundaries, whole = len((root / "count").read_text().splitlines()), end(root / "whole")
    outcomes = []
    for boundary in range(plan["first"], boundaries + 1, plan["step"]):
        if plan["errno"]:
            outcome = starved(kind, root, plan["errno"], boundary, whole)
        else:
            outcome = killed(kind, root, at(boundary), whole, f"at{boundary}")
        outcomes.append({"at": boundary, **outcome})
    for place in range(plan["random"]):
        seconds = took * (0.02 + 0.96 * (place * 0.6180339887 % 1.0))  # spread evenly by the golden ratio
        outcomes.append({"at": seconds, **killed(kind, root, after(seconds), whole, f"after{place}")})
    return {"boundaries": boundaries, "outcomes": outcomes}


def _note(log: int, what: str) -> None:
    os.write(log, f"{what}\n".encode())


if __name__ == "__main__":
    import_training()
    print(json.dumps(work(json.loads(sys.argv[1]))))
