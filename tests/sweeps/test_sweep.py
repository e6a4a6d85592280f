"""Sweeps as a user starts them, read back from their files."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.cli.main import main
from holdfast.data import Line
from holdfast.errors import Stopped
from holdfast.store.files import digest
from holdfast.store.folders import SweepFolder
from holdfast.store.result import Result
from tests.conftest import command_line

MODULES = """
import os, random, threading
import numpy, torch
import lightning.pytorch as pl
from holdfast.data import Line
from holdfast.model import Linear

class Fails(Linear):
    '''Fails where it is told to, with an exception that no pickle can carry.'''
    def __init__(self, lr, fail_at):
        super().__init__()
        self.fail = lr == fail_at
    def loss(self, batch):
        if self.fail:
            error = RuntimeError("told to fail")
            error.lock = threading.Lock()
            raise error
        return super().loss(batch)

class Losses(Linear):
    '''Logs one validation loss in each epoch.'''
    def __init__(self, value):
        super().__init__()
        self.value = value
    def on_validation_epoch_end(self):
        self._sums = []
        self.log("val/loss", torch.tensor(float(self.value)))

class Threads(Linear):
    '''Its validation loss is the number of threads.'''
    def on_validation_epoch_end(self):
        self._sums = []
        self.log("val/loss", torch.tensor(float(torch.get_num_threads())))

class Sealed(pl.LightningDataModule):
    '''Has no test rows at all.'''
    def __init__(self):
        super().__init__()
        self.line = Line(batch_size=20)
        self.line.setup("fit")
    def train_dataloader(self):
        return self.line.train_dataloader()
    def val_dataloader(self):
        return self.line.val_dataloader()

class Untestable(Linear):
    def test_step(self, batch):
        raise RuntimeError("cannot be tested")

class Careless(Linear):
    '''Leaves traces wherever it can.'''
    def on_train_start(self):
        os.environ["LEFT_BEHIND"] = "1"
        random.seed(5); numpy.random.seed(5); torch.manual_seed(5)
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = True
"""


@dataclass(frozen=True)
class Swept:
    code: int
    out: str
    err: str
    folder: SweepFolder

    def read(self, name: str) -> Any:
        return json.loads((self.folder.path / name).read_text())

    @property
    def rows(self) -> list[dict[str, str]]:
        return list(csv.DictReader(self.folder.leaderboard.read_text().splitlines()))

    def result(self, number: int) -> Result:
        result = self.folder.job(number).read()
        assert result is not None, self.out + self.err
        return result


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Swept]:
    """Run `python train.py -m WORDS` in an empty folder, with modules of the user's own at hand."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep_modules.py").write_text(MODULES)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_conf" / "model").mkdir(parents=True)
    for name, keys in {
        "fails": "lr: ${lr}\nfail_at: 0.1",
        "losses": "value: 1.0",
        "careless": "",
        "threads": "",
        "untestable": "",
    }.items():
        text = f"_target_: sweep_modules.{name.title()}\n{keys}\n"
        (tmp_path / "my_conf" / "model" / f"{name}.yaml").write_text(text)
    count = iter(range(100))

    def run(*words: str) -> Swept:
        folder = tmp_path / "swept" / str(next(count))
        with pytest.raises(SystemExit) as exit_:
            main(["-m", "--config-dir", str(tmp_path / "my_conf"), *words, f"hydra.sweep.dir={folder}"])
        out, err = capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        return Swept(exit_.value.code, out, err, SweepFolder(folder))

    return run


def test_the_courses_sweep(sweep: Callable[..., Swept]) -> None:
    done = sweep("lr=0.0001,0.001,0.01,0.1,1")
    assert done.code == 0, done.err
    losses = {number: (done.result(number).best or {}).get("val/loss") for number in range(5)}
    assert losses[4] is None
    assert done.result(4).status == "diverged"
    winner = min((value, number) for number, value in losses.items() if value is not None)[1]
    selection, opening = done.read("selection.json"), done.read("test.json")
    assert (selection["winner"], selection["overrides"]) == (winner, done.result(winner).overrides)
    ordered = sorted(value for value in losses.values() if value is not None)
    assert selection["value"] == ordered[0]
    assert selection["margin"] == pytest.approx(ordered[1] - ordered[0])
    # the winner's weights, on rows made by a formula
    state = torch.load(done.folder.path / "model.pth", weights_only=True)
    rows = Line().draw("test")
    expected = ((state["linear.weight"] * rows.x + state["linear.bias"] - rows.y).double() ** 2).mean()
    assert selection["test"]["test/loss"] == pytest.approx(float(expected), rel=1e-6)
    assert selection["test_opened"] == 1
    sealed = {"winner": winner, "sha256": digest(done.folder.path / "best.ckpt"), "count": 1}
    assert opening == {**sealed, "data": selection["data"], "test": selection["test"]}
    assert all(done.result(number).test is None and done.result(number).test_opened == 0 for number in range(5))
    assert list(done.rows[0]) == [
        "rank", "job", "status", "lr", "val/loss", "train/loss", "best_epoch", "iterations", "seconds",
    ]  # fmt: skip
    assert next(row["job"] for row in done.rows) == str(winner)
    assert [row["rank"] for row in done.rows] == ["1", "2", "3", "4", ""]
    told = done.read("sweep.json")
    assert [entry["overrides"] for entry in told["jobs"]] == [
        [f"lr={lr}"] for lr in ("0.0001", "0.001", "0.01", "0.1", "1")
    ]
    assert [entry["config_hash"] for entry in told["jobs"]] == [done.result(number).config_hash for number in range(5)]
    assert len({entry["data"] for entry in told["jobs"]}) == 1
    # the plan, a line for each job, the winner marked, and the command that runs it alone
    assert done.out.startswith("plan: 5 jobs: 1 stack; 0 alone\n")
    assert [line.partition(" (")[0] for line in done.out.splitlines()[1:6]] == [f"job {number}" for number in range(5)]
    (alone,) = [line for line in done.out.splitlines() if line.startswith("alone:")]
    assert alone.split() == ["alone:", "python", "train.py", "--config-dir", alone.split()[4], "lr=0.1"]
    assert any(line.startswith("*     1") for line in done.out.splitlines())
    assert "diverged in epoch 0" in done.out


def test_a_job_of_a_sweep_is_what_it_would_have_been_alone(
    sweep: Callable[..., Swept], holdfast: Callable[..., Any]
) -> None:
    words = ["model=mlp", "model.dropout=0.3", "batch_size=5", "epochs=3", "sweep.stack=never"]
    done = sweep(*words, "lr=0.1,0.05,0.01,0.02")
    alone = holdfast("model=mlp", "model.dropout=0.3", "batch_size=5", "epochs=3", "lr=0.02")
    third = done.folder.job(3)
    assert third.weights.read_bytes() == alone.folder.weights.read_bytes()
    assert (done.result(3).best, done.result(3).last) == (alone.result.best, alone.result.last)
    assert done.result(3).config_hash == alone.result.config_hash


def test_no_job_leaves_a_trace_in_the_next(sweep: Callable[..., Swept]) -> None:
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = (random.random(), np.random.rand(), torch.rand(1).item())
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    done = sweep("model=careless,linear", "epochs=1", "batch_size=5")
    assert done.code == 0, done.err
    assert "LEFT_BEHIND" not in os.environ
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
    assert sweep("model=linear", "epochs=1", "batch_size=5").result(0).best == done.result(1).best


@pytest.mark.parametrize("failing", range(3))
def test_one_failing_job_neither_stops_the_others_nor_hides_the_winner(
    failing: int, sweep: Callable[..., Swept]
) -> None:
    rates = ["0.01", "0.02", "0.03"]
    done = sweep(
        "model=fails", "epochs=1", "batch_size=full", f"lr={','.join(rates)}", f"model.fail_at={rates[failing]}"
    )
    statuses = [done.result(number).status for number in range(len(done.read("sweep.json")["jobs"]))]
    assert done.code == 1
    assert statuses.count("failed") == 1
    assert statuses[failing] == "failed"
    losses = {number: done.result(number).best["val/loss"] for number in {0, 1, 2} - {failing}}  # type: ignore[index]
    assert done.read("selection.json")["winner"] == min(losses, key=losses.__getitem__)
    assert "told to fail" in done.out
    assert "told to fail" in (done.folder.job(failing).path / "train.log").read_text()


def test_all_diverged(sweep: Callable[..., Swept]) -> None:
    done = sweep("lr=1,2", "batch_size=5")
    assert done.code == 1
    assert done.read("selection.json")["winner"] is None
    assert not done.folder.test_ledger.exists()
    assert not (done.folder.path / "best.ckpt").exists()
    assert "the test rows stay sealed" in done.out


@pytest.mark.parametrize("lost", ["nan", "inf", "-inf"])
def test_a_lost_validation_loss_never_wins(lost: str, sweep: Callable[..., Swept]) -> None:
    done = sweep("model=losses", f"model.value={lost},3,2", "epochs=1", "batch_size=full")
    assert (done.code, done.read("selection.json")["winner"]) == (0, 2)
    assert done.result(0).status == "diverged"


def test_a_winner_whose_test_fails_is_the_winner_all_the_same(sweep: Callable[..., Swept]) -> None:
    done = sweep("model=untestable", "lr=0.01,0.02", "epochs=1", "batch_size=full")
    selection = done.read("selection.json")
    assert (done.code, selection["winner"], selection["test"], selection["test_opened"]) == (1, 1, None, 1)
    assert selection["test_error"] == "RuntimeError: cannot be tested"
    assert "its test failed" in done.out


def test_without_test_rows_nothing_is_opened(sweep: Callable[..., Swept], tmp_path: Path) -> None:
    (tmp_path / "my_conf" / "data").mkdir()
    (tmp_path / "my_conf" / "data" / "sealed.yaml").write_text("_target_: sweep_modules.Sealed\n")
    done = sweep("data=sealed", "lr=0.01,0.02", "epochs=1")
    selection = done.read("selection.json")
    assert (done.code, selection["test"], selection["test_opened"]) == (0, None, 0), done.out
    assert not done.folder.test_ledger.exists()


def test_of_equal_jobs_the_first_wins(sweep: Callable[..., Swept]) -> None:
    done = sweep("model=losses", "init_weights_strict=true,false", "epochs=1", "batch_size=full")
    selection = done.read("selection.json")
    assert (selection["winner"], selection["margin"]) == (0, 0.0)
    repeats = sweep("model=losses", "seed=0,1,2", "epochs=1", "batch_size=full").read("selection.json")
    assert (repeats["winner"], repeats["margin"], repeats["repeats"]["standard_error"]) == (0, None, 0.0)


def test_a_sweep_of_one_job(sweep: Callable[..., Swept]) -> None:
    done = sweep("lr=0.01", "epochs=1")
    assert (done.code, done.read("selection.json")["winner"], done.read("selection.json")["margin"]) == (0, 0, None)


def test_each_data_set_has_a_winner_of_its_own(sweep: Callable[..., Swept]) -> None:
    done = sweep("data.seed=1,2", "lr=0.01,0.1", "batch_size=5", "epochs=2")
    selection = done.read("selection.json")
    assert selection["winner"] is None
    assert len({entry["data"] for entry in selection["data_sets"]}) == 2
    for entry, jobs in zip(selection["data_sets"], ((0, 1), (2, 3)), strict=True):
        losses = {number: done.result(number).best["val/loss"] for number in jobs}  # type: ignore[index]
        assert entry["winner"] == min(losses, key=losses.__getitem__)
        assert entry["test_opened"] == 1
    assert [entry["winner"] for entry in done.read("test.json")] == [
        entry["winner"] for entry in selection["data_sets"]
    ]


def test_a_swept_seed_keeps_its_data(sweep: Callable[..., Swept]) -> None:
    done = sweep("seed=0,1", "batch_size=1,5", "epochs=1")
    assert len({entry["data"] for entry in done.read("sweep.json")["jobs"]}) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what the sweep is to miss")
def test_jobs_on_an_accelerator_that_is_not_there_fail_and_are_told_first(sweep: Callable[..., Swept]) -> None:
    done = sweep("accelerator=cuda,auto", "epochs=1")
    assert done.code == 1
    assert done.out.startswith("job 0 (accelerator=cuda) will fail here")
    assert [done.result(number).status for number in range(2)] == ["failed", "completed"]
    assert done.read("selection.json")["winner"] == 1


def test_of_many_jobs_the_best_ten_are_shown(sweep: Callable[..., Swept]) -> None:
    done = sweep("lr=logspace(1e-4,1e-1,25)", "batch_size=full", "epochs=1", "logger=none")
    table = done.out[done.out.index("   rank") :].split("\n\n")[0].splitlines()
    assert len(table) == 12
    assert table[-1] == "... and 15 more in leaderboard.csv (25 completed)"
    assert len(done.rows) == 25


def test_five_hundred_jobs(sweep: Callable[..., Swept]) -> None:
    done = sweep("lr=logspace(1e-4,1e-1,50)", "seed=range(0,10)", "batch_size=full", "epochs=1", "logger=none")
    assert done.code == 0
    results = done.folder.read_results()
    losses = [results[number].best["val/loss"] for number in range(500)]  # type: ignore[index]
    of_settings = np.array(losses).reshape(50, 10)
    best = int(of_settings.mean(1).argmin())
    selection = done.read("selection.json")
    assert selection["winner"] == 10 * best + int(of_settings[best].argmin())
    assert selection["repeats"]["mean"] == pytest.approx(of_settings[best].mean())
    assert selection["repeats"]["standard_error"] == pytest.approx(of_settings[best].std(ddof=1) / 10**0.5)
    order = np.argsort(of_settings.mean(1), kind="stable")
    assert [float(row["val/loss"]) for row in done.rows] == np.sort(of_settings[order]).flatten().tolist()


@pytest.mark.parametrize("name", ["learning_rate", "batch_size", "grid"])
def test_a_sweep_in_a_file_needs_its_flag_and_yields_to_typed_words(
    name: str, sweep: Callable[..., Swept], holdfast: Callable[..., Any]
) -> None:
    alone = holdfast(f"experiment={name}")
    assert alone.code == 2
    assert "add -m" in alone.err
    done = sweep(f"experiment={name}", "epochs=1", "logger=none")
    jobs = [entry["overrides"] for entry in done.read("sweep.json")["jobs"]]
    assert len(jobs) == {"learning_rate": 5, "batch_size": 4, "grid": 16}[name]
    if name == "learning_rate":
        fewer = sweep(f"experiment={name}", "epochs=1", "lr=0.5,0.25")
        assert len(fewer.read("sweep.json")["jobs"]) == 2
    # the command that it prints runs
    printed = next(line for line in done.out.splitlines() if line.startswith("alone:  python train.py "))
    assert holdfast(*printed.removeprefix("alone:  python train.py ").split()).code == 0


@pytest.mark.parametrize(
    ("words", "lesson"),
    [
        (["lr=0.1,0.2", "lr=5"], "given twice"),
        (["lr=0.1,abc"], "number above 0"),
        (["lr=0.1", "epochs=0,1"], "from 1 on"),
        (["lrr=1,2"], "did you mean lr?"),
        (["optimizer=sgd,adma"], "did you mean adam?"),
        (["optimizer.nesterov=true", "optimizer.momentum=0,0.9"], "needs momentum"),
        (["optimizer=sgd,adam", "optimizer.momentum=0.9"], "no such key"),
        (["lr=logspace(1,2)"], "logspace(first, last, count)"),
        (["lr=interval(0,1)"], "add sweep.trials=N"),
        (["test=true", "lr=0.1,0.2"], "leave test out"),
        (["hydra.sweep.subdir=x"], "numbered"),
        (["hydra.verbose=true,false"], "Sweeping over Hydra's configuration is not supported"),
    ],
)
def test_no_job_starts_where_one_cannot_work(
    words: list[str],
    lesson: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        main(["-m", *words])
    out, err = capsys.readouterr()
    assert error.value.code == 2, out + err
    assert lesson in err
    assert "Traceback" not in err
    assert out == ""
    assert not list(tmp_path.iterdir())


def test_a_sweeps_folder_that_holds_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit) as error:
        main(["-m", "lr=0.1,0.2", f"hydra.sweep.dir={tmp_path}"])
    assert error.value.code == 2
    assert "hydra.sweep.dir" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("launcher", ["stacked", "basic"])
def test_what_names_the_folder_of_its_run_gets_that_of_the_job(
    launcher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["-m", "logger=csv", "lr=0.01,0.02", "epochs=1", "report=false", f"hydra/launcher={launcher}"]
    with pytest.raises(SystemExit) as exit_:
        main([*words, "hydra.sweep.dir=sweep"])
    assert exit_.value.code == 0
    assert sorted(path.parent.name for path in Path().rglob("metrics.csv")) == ["0", "1"]


def test_a_run_that_gets_another_folder_logs_to_that_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with pytest.raises(SystemExit) as exit_:
            main(["logger=csv", "epochs=1"])
        assert exit_.value.code == 0
    folders = sorted(Path("outputs/runs").iterdir())
    assert len(folders) == 2
    assert sorted(path.parent for path in Path().rglob("metrics.csv")) == folders


def test_a_run_may_change_into_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        main(["epochs=1", "hydra.run.dir=run", "hydra.job.chdir=true"])
    assert exit_.value.code == 0
    assert sorted(path.name for path in Path("run").glob("*.json")) == ["result.json", "run.json"]


def test_a_signal_before_anything_is_recorded_names_nothing_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise Stopped(signal.SIGTERM)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("holdfast.sweeps.controller.plan_jobs", stopped)
    code, said = command_line("-m", "lr=0.1,0.2", "hydra.sweep.dir=there")
    assert (code, said.strip().splitlines()[-1]) == (143, "stopped by SIGTERM; nothing was concluded")
    assert not (tmp_path / "there" / "sweep.json").exists()


def test_a_resumed_sweep_trains_with_the_threads_of_its_start(sweep: Callable[..., Swept]) -> None:
    done = sweep("model=threads", "lr=0.1,0.2", "epochs=1", "report=false")
    (group,) = done.read("sweep.json")["plan"]["works"]
    assert group["threads"] == torch.get_num_threads()
    assert [done.result(number).best["val/loss"] for number in range(2)] == [group["threads"]] * 2
    recorded = done.read("sweep.json")  # as if it had been started on a larger machine
    recorded["plan"]["works"][0]["threads"] = group["threads"] + 1
    done.folder.sweep.write_text(json.dumps(recorded))
    shutil.rmtree(done.folder.job(1).path)
    code, said = command_line("-m", "--config-dir", "my_conf", f"resume={done.folder.path}")
    assert code == 0, said
    assert [done.result(number).best["val/loss"] for number in range(2)] == [group["threads"], group["threads"] + 1]
