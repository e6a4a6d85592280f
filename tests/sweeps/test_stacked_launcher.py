"""The stacked launcher, as a user meets it: files as Hydra writes them, callbacks, what runs alone, what is kept."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from holdfast.cli.main import main
from holdfast.errors import FolderError, StorageError
from holdfast.store.folders import SweepFolder
from tests.conftest import ROOT

MODULES = """
import json, pathlib
import lightning.pytorch as pl
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback

class Notes(Callback):
    '''Writes down what Hydra tells it of jobs.'''
    def on_job_start(self, config, **kwargs):
        self.note("start", config)
    def on_job_end(self, config, job_return, **kwargs):
        self.note(f"end {job_return.status.name} {job_return.return_value:.6g}", config)
    def note(self, what, config):
        assert HydraConfig.get().job.num == config.hydra.job.num
        with open("notes.txt", "a") as stream:
            folder = pathlib.Path(config.hydra.runtime.output_dir).name
            stream.write(f"{what} {config.hydra.job.num} {config.lr} {folder}\\n")

class Own(pl.Callback):
    pass

class Prints(pl.Callback):
    '''Prints what it was given.'''
    def __init__(self, value):
        self.value = value
    def on_fit_end(self, trainer, pl_module):
        pathlib.Path(trainer.default_root_dir, "value.txt").write_text(str(self.value))

class Leaves(pl.Callback):
    '''Leaves a file in the run's folder.'''
    def on_fit_end(self, trainer, pl_module):
        pathlib.Path(trainer.default_root_dir, "left.txt").write_text("the user's")
"""


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run `python train.py -m WORDS` into a folder of that name; returns it, the exit code and what was printed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stacking_modules.py").write_text(MODULES)
    monkeypatch.syspath_prepend(str(tmp_path))
    for group, name, text in (
        ("callbacks", "mine", "defaults: [default]\nmine: {_target_: stacking_modules.Own}"),
        ("callbacks", "leaves", "defaults: [default]\nleaves: {_target_: stacking_modules.Leaves}"),
    ):
        (tmp_path / "my_conf" / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / "my_conf" / group / f"{name}.yaml").write_text(f"{text}\n")

    def run(name: str, *words: str) -> tuple[SweepFolder, int, str]:
        with pytest.raises(SystemExit) as exit_:
            main(["-m", "--config-dir", str(tmp_path / "my_conf"), *words, f"hydra.sweep.dir={name}"])
        assert isinstance(exit_.value.code, int)
        return SweepFolder(tmp_path / name), exit_.value.code, capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    "words",
    [
        ["lr=0.01,0.1", "seed=0,1"],
        ["optimizer=sgd,adam", "lr=1e-3", "data.outliers={}"],
        ["model=mlp", "model.hidden=[3],[4]", "model.activation=relu,tanh"],
        ["model.weight=null,-15", "hydra.job.config.override_dirname.item_sep=_"],
        ["lr=0.01,0.1", "hydra.job.name='a b'", "hydra.output_subdir=words"],
        ["lr=0.01,0.1", "hydra.output_subdir=null", "hydra/job_logging=none"],
        ["data.outliers={0:1.0},{1\\:3:2.0}", "scheduler=none,step"],
    ],
    ids=" ".join,
)
def test_hydras_own_files_are_what_its_launcher_writes(words: list[str], sweep: Callable[..., Any]) -> None:
    common = ["epochs=1", "batch_size=full", *words]
    stacked, code, out = sweep("stacked", *common)
    basic, _, _ = sweep("basic", "hydra/launcher=basic", *common)
    assert code == 0
    assert "; 0 alone" in out
    differing = {
        "hydra_plugins.holdfast.launcher.StackedLauncher",
        "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    }
    for job in sorted(path.name for path in basic.path.iterdir() if path.name.isdigit()):
        names = [
            sorted(str(path.relative_to(root)).partition(".tfevents")[0] for path in root.rglob("*") if path.is_file())
            for root in (stacked.path / job, basic.path / job)
        ]
        assert names[0] == names[1]
        for path in (basic.path / job).rglob("*.yaml"):
            mine, theirs = (root / path.relative_to(basic.path) for root in (stacked.path, basic.path))
            texts = [file.read_text() for file in (mine, theirs)]
            loaded = [yaml.safe_load(text) for text in texts]
            if path.name == "hydra.yaml":
                for value in loaded:
                    hydra = value["hydra"]
                    assert hydra["launcher"].pop("_target_") in differing
                    for place in (hydra["sweep"], hydra["runtime"]["choices"], hydra["runtime"], hydra["overrides"]):
                        for key in ("dir", "hydra/launcher", "output_dir", "hydra"):
                            place.pop(key, None)
                lines = [
                    [line for line in text.splitlines() if "basic" not in line and "stacked" not in line.lower()]
                    for text in texts
                ]
                assert len(lines[0]) == len(lines[1])
            else:
                assert texts[0] == texts[1]
            assert loaded[0] == loaded[1]


def test_hydras_callbacks_are_told_of_every_job(sweep: Callable[..., Any], tmp_path: Path) -> None:
    words = ["lr=0.01,0.1", "epochs=1", "+hydra.callbacks.notes._target_=stacking_modules.Notes"]
    sweep("basic", "hydra/launcher=basic", *words)
    basic = sorted((tmp_path / "notes.txt").read_text().splitlines())
    (tmp_path / "notes.txt").unlink()
    sweep("stacked", *words)
    assert sorted((tmp_path / "notes.txt").read_text().splitlines()) == basic
    assert len(basic) == 4


def test_what_needs_the_trainer_runs_alone_and_says_so_once(sweep: Callable[..., Any]) -> None:
    folder, code, out = sweep("mixed", "callbacks=default,mine", "lr=0.01,0.02", "batch_size=5", "epochs=2")
    assert code == 0
    assert out.startswith("plan: 4 jobs: 1 stack; 2 alone\nalone: jobs 2, 3: callbacks.mine needs a Trainer\n")
    plan = json.loads(folder.sweep.read_text())["plan"]
    assert plan["stacks"] == [[0, 1]]
    assert plan["alone"] == dict.fromkeys("23", "callbacks.mine needs a Trainer")
    results = [folder.job(number).read() for number in range(4)]
    for mine, theirs in ((0, 2), (1, 3)):
        assert results[mine].best == pytest.approx(results[theirs].best, rel=1e-4)


def test_two_accelerators_are_two_stacks(sweep: Callable[..., Any]) -> None:
    _, code, out = sweep("two", "accelerator=cpu,auto", "lr=0.01,0.02", "epochs=1")
    assert code == 0
    assert out.startswith("plan: 4 jobs: 2 stacks (accelerator cpu, auto); 0 alone")


def test_jobs_that_fail_only_in_a_stack_are_run_alone(
    sweep: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.stacked.stack_trainer.Stack", failing(RuntimeError("made to fail in a stack")))
    folder, code, out = sweep("failing", "lr=0.01,0.02", "epochs=2", "batch_size=20")
    assert code == 0
    assert "2 jobs could not be trained together, and are run alone: RuntimeError: made to fail in a stack" in out
    assert [folder.job(number).read().status for number in range(2)] == ["completed"] * 2


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_stack_without_enough_memory_is_halved(
    error: Exception, sweep: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what does not fit as a job by itself runs alone; no number depends on it."""
    words = ["lr=logspace(1e-3,1e-1,7)", "epochs=2", "batch_size=20"]
    whole, _, _ = sweep("whole", *words)
    widths: list[int] = []
    monkeypatch.setattr("holdfast.stacked.stack_trainer.Stack", failing(error, most=2, widths=widths))
    halved, code, out = sweep("halved", *words)
    assert code == 0
    assert widths == [7, 3, 1, 2, 4, 2, 2]
    assert "7 jobs do not fit into memory together, and are trained in two halves" in out
    assert "run alone" not in out
    for number in range(7):
        best = [folder.job(number).read().best["val/loss"] for folder in (whole, halved)]
        assert best[0] == pytest.approx(best[1], rel=1e-4)


def failing(error: Exception, most: int = 0, widths: list[int] | None = None) -> type:
    """A stack that raises if it has more than so many jobs."""
    from holdfast.stacked.loop import Stack

    class Failing(Stack):
        def train(self, *args: Any) -> Any:
            if widths is not None:
                widths.append(self._jobs)
            if self._jobs > most:
                raise error
            return super().train(*args)

    return Failing


@pytest.mark.parametrize("launcher", ["stacked", "basic"])
def test_only_the_best_folders_are_kept_and_every_result(launcher: str, sweep: Callable[..., Any]) -> None:
    words = ["lr=logspace(1e-3,5,12)", "batch_size=5,full", "epochs=2", f"hydra/launcher={launcher}"]
    whole, _, _ = sweep("whole", *words)
    kept, code, _ = sweep("kept", *words, "sweep.keep=3")
    assert code == 0
    boards = [
        [re.sub(r",[^,]*$", "", line) for line in folder.leaderboard.read_text().splitlines()]
        for folder in (whole, kept)
    ]
    assert boards[0] == boards[1]
    best = [int(line.split(",")[1]) for line in boards[0][1:4]]
    assert [number for number in range(24) if kept.job(number).best.exists()] == sorted(best)
    assert all(kept.job(number).curves() for number in range(24))
    results = kept.read_results()
    assert sorted(results) == list(range(24))
    for number, result in results.items():
        theirs = whole.job(number).read()
        assert (result.status, result.best, result.last) == (theirs.status, theirs.best, theirs.last)
    assert kept.selection.exists()
    # a flipped byte is found
    raw = bytearray(kept.results.read_bytes())
    raw[-50] ^= 1
    kept.results.write_bytes(bytes(raw))
    with pytest.raises(FolderError, match="digest differs"):
        kept.read_results()


def test_files_of_a_users_callback_stay_in_folders_that_are_not_kept(sweep: Callable[..., Any]) -> None:
    words = ["callbacks=leaves", "lr=0.001,0.01,0.02", "epochs=1", "sweep.keep=1", "batch_size=20", "logger=none"]
    folder, code, _ = sweep("left", *words)
    assert code == 0
    others = [number for number in range(3) if not folder.job(number).result.exists()]
    assert len(others) == 2
    for number in others:
        assert [file.name for file in folder.job(number).path.iterdir()] == ["left.txt"]


def test_max_stack_cuts_stacks_without_changing_a_job(sweep: Callable[..., Any]) -> None:
    words = ["lr=logspace(1e-3,0.1,7)", "batch_size=20", "epochs=2", "precision=64-true"]
    whole, _, _ = sweep("whole", *words)
    cut, _, out = sweep("cut", *words, "sweep.max_stack=3")
    assert out.startswith("plan: 7 jobs: 3 stacks of 2 or 3; 0 alone")
    for number in range(7):
        assert cut.job(number).read().best == pytest.approx(whole.job(number).read().best, rel=1e-9)


def test_environment_for_jobs_by_themselves(sweep: Callable[..., Any]) -> None:
    _, code, out = sweep("env", "lr=0.01,0.1", "epochs=1", "+hydra.job.env_set.OWN=1")
    assert code == 0
    reason = "hydra.job.env_set changes the process, so that jobs cannot share a stack"
    assert f"2 jobs: 0 stacks; 2 alone\nalone: jobs 0, 1: {reason}" in out


def test_batches_of_jobs_are_planned_each_by_itself(sweep: Callable[..., Any]) -> None:
    folder, code, _ = sweep("batches", "lr=0.01,0.1,0.2", "epochs=1", "hydra.sweeper.max_batch_size=2")
    assert code == 0
    assert json.loads(folder.sweep.read_text())["plan"]["stacks"] == [[0, 1], [2]]


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_stacked_sweep_with_its_exit_code(sent: signal.Signals, tmp_path: Path) -> None:
    words = ["-m", "lr=0.0001,0.0002", "epochs=100000", "hydra.sweep.dir=sweep"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("plan: 2 jobs: 1 stack")
    time.sleep(1)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + sent
    assert "stopped by" in err
    assert "Traceback" not in err
    assert not (tmp_path / "sweep" / "selection.json").exists()


def test_a_sweep_whose_folders_could_not_be_written_is_concluded_when_it_is_resumed(
    holdfast: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = SweepFolder.write_job

    def write_job(self: SweepFolder, number: int, *rest: Any) -> Any:
        if number == 2:
            raise StorageError("s/2/best.ckpt cannot be written: No space left on device.")
        return original(self, number, *rest)

    words = ["-m", "lr=0.001,0.01,0.1", "batch_size=5", "report=false", "hydra.sweep.dir=s"]
    with monkeypatch.context() as patch:
        patch.setattr(SweepFolder, "write_job", write_job)
        ran = holdfast(*words)
    assert ran.code == 1
    assert "No space left" in ran.err
    assert "to resume: python train.py -m resume=s" in ran.err
    assert not Path("s/test.json").exists()
    again = holdfast("-m", "resume=s")
    assert (again.code, again.err) == (0, "")
    assert "winner: job 2" in again.out
    assert "0 alone" in again.out
    assert Path("s/2/best.ckpt").exists()


@pytest.mark.parametrize("launcher", ["stacked", "basic"])
def test_a_sweep_is_not_resumed_with_other_code(
    launcher: str, sweep: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Jobs of two versions of a module would be compared, and the exit code would be 0."""
    code = "from holdfast.model import Linear\n\nclass Mine(Linear):\n    pass\n"
    name = f"users_versions_{launcher}"
    (tmp_path / f"{name}.py").write_text(code)
    (tmp_path / "my_conf" / "model").mkdir()
    (tmp_path / "my_conf" / "model" / "mine.yaml").write_text(f"defaults: [linear]\n_target_: {name}.Mine\n")
    words = ["model=mine", "lr=0.01,0.02", "epochs=1", "report=false", f"hydra/launcher={launcher}"]
    folder, first, _ = sweep("swept", *words)
    assert first == 0
    for path in (folder.job(1).result, folder.selection):
        path.unlink()
    (tmp_path / f"{name}.py").write_text(code + "\n\nOTHER = 1\n")
    with pytest.raises(SystemExit) as exit_:
        main(["-m", "--config-dir", str(tmp_path / "my_conf"), *words, "hydra.sweep.dir=swept"])
    assert exit_.value.code == 2
    assert f"the module {name} has changed since this sweep was started" in capsys.readouterr().err
    assert not folder.job(1).result.exists()
    _, again, _ = sweep("swept", *words, "retry_failed=true")
    assert again == 0


@pytest.mark.parametrize("launcher", ["stacked", "basic"])
def test_what_a_value_takes_from_hydra_is_that_of_the_job(
    launcher: str, sweep: Callable[..., Any], tmp_path: Path
) -> None:
    value = "${hydra:job.num} ${hydra:sweep.dir} ${hydra:overrides.task}"
    text = f"defaults: [default]\nprints:\n  _target_: stacking_modules.Prints\n  value: '{value}'\n"
    (tmp_path / "my_conf" / "callbacks" / "prints.yaml").write_text(text)
    words = ["callbacks=prints", "epochs=1", "report=false", "lr=0.01,0.02"]
    folder, code, _ = sweep("swept", *words, f"hydra/launcher={launcher}")
    assert code == 0
    for number, rate in enumerate((0.01, 0.02)):
        value = (folder.job(number).path / "value.txt").read_text()
        assert value == f"{number} swept ['callbacks=prints', 'epochs=1', 'report=False', 'lr={rate}']"


@pytest.mark.parametrize("launcher", ["stacked", "basic"])
def test_jobs_may_change_into_their_folders(launcher: str, sweep: Callable[..., Any]) -> None:
    words = ["lr=0.01,0.1", "epochs=1", "report=false", "hydra.job.chdir=true", f"hydra/launcher={launcher}"]
    folder, code, _ = sweep("changed", *words)
    assert code == 0
    assert [folder.job(number).read().status for number in range(2)] == ["completed"] * 2
