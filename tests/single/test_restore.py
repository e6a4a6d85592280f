"""A run that is interrupted and resumed, however often, ends as one that never was."""

from __future__ import annotations

import csv
import dataclasses
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from holdfast.cli.main import CONF
from holdfast.compose.recompose import compose
from holdfast.config.schema import Config
from holdfast.errors import CheckpointError, Stopped
from holdfast.record import events, writer
from holdfast.record.checkpoint import load
from holdfast.record.resume_point import RESUME_KEY
from holdfast.single import recorder
from holdfast.single.recorder import Recorder
from holdfast.single.trainer import train_one
from holdfast.store.folders import RunFolder
from tests.conftest import command_line, job_spec, leaderboard_of
from tests.stacked.test_loop import assert_folders_alike


class Shuffled(pl.LightningDataModule):
    """A user's data module that shuffles rows and adds noise with torch's global generator."""

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        x = torch.linspace(-1, 1, 40).unsqueeze(1)
        self.rows = TensorDataset(x, 2 * x + 1)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.rows, self.batch_size, shuffle=True, collate_fn=self.noisy)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.rows, 40)

    @staticmethod
    def noisy(rows: Any) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = (torch.stack(part) for part in zip(*rows, strict=True))
        return x + 0.1 * torch.randn_like(x), y


def trained(config: Config, folder: RunFolder, stop: int | None = None) -> None:
    """Train until some batch, or to the end."""
    seen, original = 0, Recorder.on_train_batch_end

    def interrupt(self: Recorder, *args: Any, **kwargs: Any) -> None:
        nonlocal seen
        original(self, *args, **kwargs)
        seen += 1
        if seen == stop:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recorder, "on_train_batch_end", interrupt)
        patch.setattr(writer, "SECONDS_BETWEEN_WRITES", 0.0)
        train_one(job_spec(config), folder)


CASES: dict[str, tuple[list[str], Sequence[int]]] = {
    "sgd": (["lr=0.01", "batch_size=5"], (30, 1, 50)),
    "dropout, Adam, a schedule, early stopping": (
        ["model=mlp", "data=linear", "batch_size=32", "model.dropout=0.3", "optimizer=adam", "scheduler=cosine",
         "callbacks.early_stopping.patience=3"],
        (40, 60),
    ),
    "momentum, accumulation, workers": (
        ["optimizer.momentum=0.9", "trainer.accumulate_grad_batches=3", "data.num_workers=2", "epochs=5"],
        (100, 110),
    ),
    "ending inside an epoch": (["trainer.max_steps=150", "trainer.accumulate_grad_batches=2", "epochs=6"], (130, 65)),
    "diverging": (["lr=0.35", "batch_size=full", "epochs=60"], (20, 10)),
    "a user's loader": (
        ["data._target_=tests.single.test_restore.Shuffled", "epochs=6", "batch_size=7"],
        (10, 13),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_equals_one_that_was_never_interrupted(case: str, tmp_path: Path) -> None:
    overrides, stops = CASES[case]
    config = compose([*overrides, "accelerator=cpu"], CONF)
    if case == "a user's loader":
        config.data = {"_target_": "tests.single.test_restore.Shuffled", "batch_size": 7}
    whole, cut = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "cut")
    for folder in (whole, cut):
        folder.path.mkdir()
    trained(config, whole)
    for stop in stops:
        with pytest.raises(Stopped):
            trained(config, cut, stop)
        assert not cut.result.exists()
        assert RESUME_KEY in load(cut.last)
    trained(config, cut)
    assert_folders_alike(whole.path, cut.path, 0, 0)
    assert whole.weights.read_bytes() == cut.weights.read_bytes()
    assert RESUME_KEY not in load(cut.last)


Line = tuple[str, int]


@contextmanager
def interrupted_at(line: Line | None) -> Iterator[list[Line]]:
    """Interrupt at a line of Holdfast at the end of epoch 2, as a signal may; yields the lines as they are reached."""
    seen: list[Line] = []
    sources, original = {Path(module.__file__).parent for module in (writer, recorder)}, Recorder.on_train_epoch_end

    def local(frame: FrameType, event: str, _: Any) -> Any:
        at = (Path(frame.f_code.co_filename).name, frame.f_lineno)
        if event == "line" and at not in seen:
            seen.append(at)
            if at == line:
                raise KeyboardInterrupt
        return local

    def called(frame: FrameType, event: str, _: Any) -> Any:
        return local if Path(frame.f_code.co_filename).parent in sources else None

    def watched(self: Recorder, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        sys.settrace(called if trainer.current_epoch == 2 else None)
        try:
            original(self, trainer, module)
        finally:
            sys.settrace(None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recorder, "on_train_epoch_end", watched)
        yield seen


def test_a_signal_may_come_between_any_two_lines(tmp_path: Path) -> None:
    config, whole = compose(["batch_size=full", "epochs=4", "lr=0.1"], CONF), RunFolder(tmp_path / "whole")
    whole.path.mkdir()
    with interrupted_at(None) as lines:
        trained(config, whole)
    judged = [line for line in lines if line[0] in ("recorder.py", "history.py", "stopping.py")]
    written = [line for line in lines if line[0] in ("checkpoint.py", "writer.py", "resume_point.py")]
    assert min(len(judged), len(written)) > 20
    for line in judged[::2] + written[::5]:
        cut = RunFolder(tmp_path / f"{line[0]}{line[1]}")
        cut.path.mkdir()
        with interrupted_at(line), pytest.raises(Stopped):
            trained(config, cut)
        trained(config, cut)
        assert_folders_alike(whole.path, cut.path, 0, 0)


@pytest.mark.parametrize("stop", [30, 60, 61, 125, 180])
def test_the_table_of_a_csv_logger_is_resumed_too(stop: int, tmp_path: Path) -> None:
    tables = []
    for name, stops in (("whole", ()), ("cut", (stop, 30))):
        folder = RunFolder(tmp_path / name)
        folder.path.mkdir()
        config = compose(["logger=csv", f"logger.csv.save_dir={folder.path}", "epochs=4"], CONF)
        for moment in stops:
            with pytest.raises(Stopped):
                trained(config, folder, moment)
        trained(config, folder)
        with (folder.path / "metrics.csv").open() as stream:
            tables.append([{key: value for key, value in row.items() if value} for row in csv.DictReader(stream)])
    # when a run is resumed, Lightning logs the end of the last epoch once more, with the values of our row
    assert [row for row in tables[0] if "train/loss" not in row] == [
        row for row in tables[1] if "train/loss" not in row
    ]
    assert {(row["epoch"], row["train/loss"]) for row in tables[0] if "train/loss" in row} == {
        (row["epoch"], row["train/loss"]) for row in tables[1] if "train/loss" in row
    }


@pytest.mark.parametrize("older", [False, True])
def test_event_files_of_a_users_logger_stay(older: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the logger writes into the run's folder; `older` is a folder that was begun by an earlier version."""
    config = compose(["lr=0.01", "batch_size=20", "epochs=4", "accelerator=cpu"], CONF)
    target = "lightning.pytorch.loggers.TensorBoardLogger"
    config.logger.extras["mine"] = {"_target_": target, "save_dir": str(tmp_path), "name": "", "version": ""}
    folder = RunFolder(tmp_path)
    (tmp_path / "events.out.tfevents.1.host.2.0").write_bytes(b"the user's")
    with monkeypatch.context() as patch:
        if older:
            patch.setattr(RunFolder, "events", lambda self, *_: self.path / "events.out.tfevents.3.host.4.0")
        with pytest.raises(Stopped):
            trained(config, folder, 8)
    before = {file.name: file.read_bytes() for file in folder.event_files()}
    assert len(before) == 3
    stopped = RunFolder.events(folder, 1.0, "other")
    stopped.write_bytes(b"of an attempt that reached no checkpoint")
    trained(config, folder)
    after = {file.name: file.read_bytes() for file in folder.event_files()}
    assert before.keys() <= after.keys()
    assert not stopped.exists()
    (ours,) = (name for name in before if name.endswith(RunFolder.EVENTS) or name == "events.out.tfevents.3.host.4.0")
    theirs = before.keys() - {ours}
    assert len(theirs) == 2
    assert all(after[name] == before[name] for name in theirs)
    values = events.read_scalars(tmp_path / ours, {"train/loss_step"})["train/loss_step"]
    assert [step for step, _ in values] == list(range(12))
    if not older:
        assert [file.name for file in folder.curves()] == [ours]


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    config, folder = compose(["epochs=4"], CONF), RunFolder(tmp_path)
    with pytest.raises(Stopped):
        trained(config, folder, 100)
    with pytest.raises(CheckpointError, match="another configuration"):
        train_one(job_spec(config)._replace(config_hash="other"), folder)


def test_a_resumed_sweep_runs_the_missing_jobs(holdfast: Callable[..., Any]) -> None:
    for launcher in ("stacked", "basic"):
        overrides = ["-m", "lr=0.01,0.1,10", "batch_size=5,full", f"hydra/launcher={launcher}", "report=false"]
        sweep = Path(launcher)
        assert holdfast(*overrides, f"hydra.sweep.dir={sweep}").code == 0
        files = [(sweep / name).read_text() for name in ("selection.json", "test.json")]
        board = leaderboard_of(sweep)
        kept = {path: path.stat().st_mtime_ns for path in sweep.glob("[014]/*.*")}
        (sweep / "selection.json").unlink()
        shutil.rmtree(sweep / "2")
        (sweep / "3" / "result.json").unlink()
        content = bytearray((sweep / "5" / "last.ckpt").read_bytes())
        content[len(content) // 2] ^= 1
        (sweep / "5" / "last.ckpt").write_bytes(content)
        again = holdfast("-m", f"resume={sweep}")
        assert (again.code, again.err) == (0, "")
        assert [(sweep / name).read_text() for name in ("selection.json", "test.json")] == files
        assert leaderboard_of(sweep) == board
        assert {path: path.stat().st_mtime_ns for path in kept} == kept
        assert "nothing was done" in holdfast("-m", f"resume={sweep}").out
        assert "nothing was done" in holdfast(*overrides, f"hydra.sweep.dir={sweep}").out


def test_retry_failed_runs_failed_jobs_again(holdfast: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "flaky.py").write_text(
        "from pathlib import Path\nfrom holdfast.data import Line\n\n\nclass Flaky(Line):\n"
        "    def setup(self, stage):\n        if not Path('mended').exists():\n"
        "            raise RuntimeError('the disk is asleep')\n        super().setup(stage)\n"
    )
    (tmp_path / "mine" / "data").mkdir(parents=True)
    (tmp_path / "mine" / "data" / "flaky.yaml").write_text(
        "_target_: flaky.Flaky\nbatch_size: 5\norder_seed: 0\nnoise: 0.1\n"
    )
    overrides = ["--config-dir", "mine", "-m", "data=flaky", "lr=0.01,0.1", "hydra.sweep.dir=s", "report=false"]
    first = holdfast(*overrides)
    assert first.code == 1
    assert "the disk is asleep" in first.out
    (tmp_path / "mended").touch()
    again = ["--config-dir", "mine", "-m", "resume=s"]
    assert "nothing was done" in holdfast(*again).out
    users = [tmp_path / "s" / "0" / name for name in ("notes.txt", "events.out.tfevents.1.host.2.0", "mine/best.ckpt")]
    for file in users:
        file.parent.mkdir(exist_ok=True)
        file.write_text("the user's")
    done = holdfast(*again, "retry_failed=true")
    assert (done.code, done.err) == (0, "")
    assert "winner: job 1" in done.out
    assert all(file.read_text() == "the user's" for file in users)
    assert RunFolder(tmp_path / "s" / "0").read().status == "completed"  # type: ignore[union-attr]


def test_test_rows_are_opened_a_second_time_only_with_test_again(holdfast: Callable[..., Any]) -> None:
    assert holdfast("-m", "lr=0.01,0.1", "hydra.sweep.dir=s", "report=false").code == 0
    selection = Path("s/selection.json")
    before = json.loads(selection.read_text())
    # as if killed while the rows were open: the metrics are lost
    opening = json.loads(Path("s/test.json").read_text())
    Path("s/test.json").write_text(json.dumps({**opening, "test": None}))
    selection.unlink()
    refused = holdfast("-m", "resume=s")
    assert refused.code == 1
    assert "test_again=true" in refused.out
    assert json.loads(selection.read_text())["test"] is None
    again = holdfast("-m", "resume=s", "test_again=true")
    assert again.code == 0
    assert "test rows opened 2x" in again.out
    assert json.loads(selection.read_text()) == {**before, "test_opened": 2}


def test_test_again_changes_nothing_else_of_a_finished_run(
    holdfast: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = holdfast("lr=0.1", "batch_size=5", "test=true")
    result, kept = first.result, {path: path.stat().st_mtime_ns for path in first.folder.path.glob("*.[cp]*t*")}
    assert len(kept) == 3
    again = [f"resume={first.folder.path}", "test_again=true"]
    with monkeypatch.context() as patch:  # killed while the rows are open
        patch.setattr(pl.Trainer, "test", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        assert command_line(*again)[0] == 130
    assert first.folder.finished(result.config_hash) == result
    assert command_line(*again)[0] == 0
    assert first.result == dataclasses.replace(result, test_opened=3)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_test_rows_opened_for_one_winner_are_not_opened_for_another(holdfast: Callable[..., Any]) -> None:
    assert holdfast("-m", "data.seed=0,1", "lr=0.01,0.1", "report=false", "hydra.sweep.dir=s").code == 0
    opened = json.loads(Path("s/test.json").read_text())
    assert [entry["winner"] for entry in opened] == [1, 3]
    Path("s/test.json").write_text(
        json.dumps([{**entry, "winner": entry["winner"] - 1, "sha256": "0"} for entry in opened])
    )
    Path("s/selection.json").unlink()
    assert holdfast("-m", "resume=s").code == 1
    data_sets = json.loads(Path("s/selection.json").read_text())["data_sets"]
    assert [(entry["winner"], entry["test"], entry["test_opened"]) for entry in data_sets] == [
        (1, None, 1),
        (3, None, 1),
    ]
    assert holdfast("-m", "resume=s", "test_again=true").code == 0
    data_sets = json.loads(Path("s/selection.json").read_text())["data_sets"]
    assert [entry["test_opened"] for entry in data_sets] == [2, 2]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("hydra/launcher=basic", "hydra/launcher=stacked"),
        ("hydra/launcher=stacked", "hydra/launcher=basic"),
        ("hydra/launcher=stacked", "hydra.sweeper.max_batch_size=2"),
    ],
)
def test_a_sweep_is_resumed_by_another_launcher(before: str, after: str, holdfast: Callable[..., Any]) -> None:
    overrides = ["-m", "lr=0.001,0.01,0.1,10", "batch_size=5", "report=false", "hydra.sweep.dir=s"]
    assert holdfast(*overrides, before).code == 0
    whole = json.loads(Path("s/selection.json").read_text())
    for name in ("selection.json", "test.json"):
        Path("s", name).unlink()
    for name in ("1", "2"):  # the winner among them
        shutil.rmtree(Path("s", name))
    ran = holdfast("-m", "resume=s", after)
    assert (ran.code, ran.err) == (0, "")
    now = json.loads(Path("s/selection.json").read_text())
    assert (now["winner"], now["why"].partition(",")[0]) == (whole["winner"], whole["why"].partition(",")[0])
    assert now["value"] == pytest.approx(whole["value"], rel=1e-4)


def test_a_test_ledger_that_cannot_be_read_does_not_count_as_empty(holdfast: Callable[..., Any]) -> None:
    holdfast("-m", "lr=0.01,0.1", "report=false", "hydra.sweep.dir=s")
    Path("s/selection.json").unlink()
    Path("s/test.json").write_text("{")
    ran = holdfast("-m", "resume=s")
    assert ran.code == 2
    assert "s/test.json cannot be read" in ran.err
    assert not Path("s/selection.json").exists()


def test_a_changed_config_or_override_is_refused_with_both_values(holdfast: Callable[..., Any]) -> None:
    ran = holdfast("lr=0.02", "epochs=2")
    folder = ran.folder
    begun = json.loads(folder.started.read_text())
    assert "is finished (completed); nothing was done" in command_line(f"resume={folder.path}")[1]
    code, printed = command_line(f"resume={folder.path}", "epochs=20", "data.noise=0.5")
    assert code == 2
    assert "epochs=20" in printed
    assert "was started with epochs=2" in printed
    begun["config"]["data"]["noise"], begun["config_hash"] = 0.7, "other"  # as if conf/ was changed since
    folder.started.write_text(json.dumps(begun))
    code, printed = command_line(f"resume={folder.path}")
    assert (code, "data.noise=0.1" in printed, "was started with data.noise=0.7" in printed) == (2, True, True)
    begun["versions"]["torch"] = "1.0"
    folder.started.write_text(json.dumps(begun))
    assert "torch was 1.0 and is" in command_line(f"resume={folder.path}")[1]
    assert command_line("resume=nowhere")[0] == 2
    assert command_line("-m", f"resume={folder.path}")[1].endswith("is a single run: leave -m out.\n")


def test_the_printed_command_resumes_the_run(holdfast: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    text = (CONF / "config.yaml").read_text()
    assert "\nlr: 0.01" in text
    (tmp_path / "mine" / "other.yaml").write_text(text.replace("\nlr: 0.01", "\nlr: 0.05"))
    flags = ["--config-dir", "mine", "--config-name", "other"]
    overrides = [*flags, "batch_size=5", "hydra.run.dir='it is here (1)'"]

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recorder, "on_train_epoch_start", stop)
        patch.setattr(sys, "argv", ["train.py", *overrides])
        code, printed = command_line(*overrides)
    assert code == 130
    resume_command = printed.partition("to resume: ")[2].strip()
    program, script, *typed = shlex.split(resume_command)
    assert (program, script, typed[:4]) == ("python", "train.py", flags)
    assert command_line(*typed)[0] == 0
    result = RunFolder(Path("it is here (1)")).read()
    assert result is not None
    assert result.last is not None
    assert result.last["train/lr"] == 0.05
