"""The archive of a stack: a snapshot to go on from, results of every job, and the folder of any of them."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.cli.main import CONF
from holdfast.compose.recompose import compose
from holdfast.errors import Stopped
from holdfast.record.archive import StackArchive
from holdfast.record.history import StackHistory
from holdfast.stacked.formula_engine import FormulaEngine
from holdfast.stacked.inputs import StackInputs
from holdfast.stacked.loop import Stack
from holdfast.store.folders import SweepFolder
from holdfast.store.result import Result
from holdfast.sweeps.ended import Job
from holdfast.sweeps.keep import kept
from holdfast.sweeps.rank import rank
from tests.conftest import Ran, command_line

CASES = {
    "momentum": "optimizer.momentum=0.9 batch_size=7",
    "adam, a schedule, early stopping": "optimizer=adam scheduler=cosine callbacks.early_stopping.patience=2",
    "rmsprop, a network": "optimizer=rmsprop optimizer.momentum=0.5 model=mlp model.hidden=[4] batch_size=20",
    "a step that is traced after some calls": "model=mlp model.hidden=[4] batch_size=5 epochs=8 optimizer=adam",
    "adamw, double precision": "optimizer=adamw precision=64-true scheduler=step",
    "long epochs": "data=linear data.rows=4000 data.features=2 epochs=2",
}


class Interrupted(StackArchive):
    """An archive that is told of a signal at the n-th moment at which a snapshot may be written."""

    def __init__(self, *args: Any, pauses: int) -> None:
        super().__init__(*args, 1e9, signals := [])  # type: ignore[misc]
        self._left, self._arrived = pauses, signals

    def pause(self, snapshot: Callable[[], Mapping[str, Any]] | None) -> None:
        self._left -= 1
        if not self._left:
            self._arrived.append(15)
        super().pause(snapshot)


@pytest.mark.parametrize("overrides", CASES.values(), ids=CASES.keys())
def test_a_stack_goes_on_from_any_snapshot_bit_for_bit(overrides: str, tmp_path: Path) -> None:
    words = [*overrides.split(), "accelerator=cpu", *([] if "epochs=" in overrides else ["epochs=6"])]
    configs = [compose([*words, f"lr={lr}", f"seed={seed}"], CONF) for lr in (1e-3, 0.05, 1e9) for seed in (0, 1)]
    folder, hashes = SweepFolder(tmp_path), ["h"] * len(configs)

    def train(name: int, pauses: int) -> StackHistory | None:
        archive = Interrupted(folder.stack(name), range(len(configs)), hashes, pauses=pauses)
        try:
            return Stack(FormulaEngine(StackInputs(configs)), archive).train()
        except Stopped:
            return None

    whole = train(0, 10**9)
    assert whole is not None
    for pauses in range(1, 4):
        attempts = 0
        while (history := train(pauses, pauses)) is None:
            attempts += 1
        assert attempts >= 1
        assert_same(history, whole)


def assert_same(one: StackHistory, other: StackHistory) -> None:
    """Every number but the times."""
    assert np.array_equal(one.counts, other.counts)
    assert np.array_equal(one.epochs, other.epochs)
    for name, value in vars(one.standing).items():
        assert np.array_equal(value, getattr(other.standing, name), equal_nan=value.dtype.kind == "f"), name
    for saved, theirs in ((one.best, other.best), (one.last, other.last)):
        assert np.array_equal(saved.epoch, theirs.epoch)
        assert saved.tensors.keys() == theirs.tensors.keys()
        for name, tensor in saved.tensors.items():
            assert tensor.numpy().tobytes() == theirs.tensors[name].numpy().tobytes(), name
    jobs = list(range(len(one.counts)))
    mine, yours = one.curves.of_jobs(jobs), other.curves.of_jobs(jobs)
    for name in ("losses", "metrics", "points"):
        assert getattr(mine, name).tobytes() == getattr(yours, name).tobytes(), name


@pytest.fixture
def swept(holdfast: Callable[..., Ran]) -> SweepFolder:
    """A sweep of two stacks, of which the folders of two jobs are kept."""
    words = ["lr=0.01,0.1,5", "batch_size=5,20", "epochs=3", "report=false", "sweep.keep=2", "hydra.sweep.dir=sweep"]
    assert holdfast("-m", *words).code == 0
    return SweepFolder(Path("sweep"))


def content(folder: Path) -> dict[str, bytes]:
    """Every file in a folder, by its path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_that_was_kept_and_one_that_is_exported_are_equal_to_the_last_byte(swept: SweepFolder) -> None:
    for number in (number for number in range(6) if swept.job(number).result.exists()):
        before = content(swept.job(number).path)
        before.pop(swept.job(number).test_events.name, None)  # of the winner, whose test is not repeated
        assert {"best.ckpt", "last.ckpt", "model.pth", "result.json", ".hydra/config.yaml"} <= before.keys()
        shutil.rmtree(swept.job(number).path)
        code, said = command_line("export-job", "sweep", str(number))
        assert (code, said) == (0, f"sweep/{number}\n")
        assert content(swept.job(number).path) == before


def test_an_exported_job_is_the_job_trained_alone(swept: SweepFolder, holdfast: Callable[..., Ran]) -> None:
    for number in range(6):
        assert command_line("export-job", "sweep", str(number))[0] == 0
        result = swept.job(number).read()
        assert result is not None
        assert swept.job(number).finished(result.config_hash)
        alone = holdfast(*result.overrides).result
        assert (result.status, result.epochs, result.iterations) == (alone.status, alone.epochs, alone.iterations)
        if result.best is not None and alone.best is not None:
            assert result.best["val/loss"] == pytest.approx(alone.best["val/loss"], rel=1e-4)
            weights = torch.load(swept.job(number).weights, weights_only=True)
            assert list(weights) == ["linear.weight", "linear.bias"]


def test_what_cannot_be_exported_is_told(swept: SweepFolder, holdfast: Callable[..., Ran]) -> None:
    assert command_line("export-job", "sweep", "6") == (
        2,
        "sweep has no job 6: its jobs are numbered from 0 to 5.\n",
    )
    holdfast(
        "-m", "lr=0.1,0.2", "epochs=1", "hydra/launcher=basic", "sweep.keep=1", "report=false", "hydra.sweep.dir=s"
    )
    (gone,) = (number for number in range(2) if not SweepFolder(Path("s")).job(number).result.exists())
    code, said = command_line("export-job", "s", str(gone))
    assert code == 2
    assert f"job {gone} is in no archive: it was trained alone" in said


class _Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed"),)


def hostile(archive: bytes) -> bytes:
    """The same zip with a pickle that runs something."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as parts, zipfile.ZipFile(stream, "w") as changed:
        for entry in parts.infolist():
            is_pickle = entry.filename.endswith("data.pkl")
            changed.writestr(entry.filename, pickle.dumps(_Payload()) if is_pickle else parts.read(entry))
    return stream.getvalue()


DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "archive cut": ("stacks/0.pt", lambda data: data[: len(data) // 2]),
    "archive empty": ("stacks/0.pt", lambda data: b""),
    "archive flipped": ("stacks/0.pt", lambda data: data[:1500] + bytes([data[1500] ^ 1]) + data[1501:]),
    "archive with a payload": ("stacks/0.pt", hostile),
    "curves cut": ("stacks/0.history", lambda data: data[:-30]),
    "curves flipped": ("stacks/0.history", lambda data: data[:700] + bytes([data[700] ^ 1]) + data[701:]),
    "results cut": ("results.jsonl", lambda data: data[:-30]),
    "results flipped": ("results.jsonl", lambda data: data[:-30] + bytes([data[-30] ^ 1]) + data[-29:]),
}


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "not finished"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_one_clear_error_and_nothing_is_executed_or_touched(
    damage: str, finished: bool, swept: SweepFolder
) -> None:
    name, change = DAMAGES[damage]
    file = swept.path / name
    file.write_bytes(change(file.read_bytes()))
    if not finished:
        swept.selection.unlink()
        record = json.loads(swept.sweep.read_text())
        del record["stacks"]
        swept.sweep.write_text(json.dumps(record))
    before = content(swept.path)
    code, said = command_line("-m", "resume=sweep")
    assert code in (1, 2), said
    assert f"{name} cannot be read" in said
    assert "Traceback" not in said
    assert content(swept.path) == before
    assert not Path("executed").exists()


def test_a_kept_folder_that_was_damaged_is_written_again(swept: SweepFolder) -> None:
    number = json.loads(swept.selection.read_text())["winner"]
    before = content(swept.path)
    swept.job(number).best.write_bytes(b"")
    code, said = command_line("-m", "resume=sweep")
    assert code == 0, said
    assert "test rows opened 1x" in said
    after = content(swept.path)
    # the last one names the overrides of the resume
    assert {name for name in before if before[name] != after[name]} <= {f"{number}/.hydra/hydra.yaml"}


def test_a_stack_is_trained_again_where_its_archive_was_removed_before_the_end(swept: SweepFolder) -> None:
    before = swept.leaderboard.read_bytes()
    for file in (swept.stack(0).archive, swept.results, swept.selection):
        file.unlink()
    for number in range(6):
        shutil.rmtree(swept.job(number).path)
    code, said = command_line("-m", "resume=sweep")
    assert code == 0, said
    assert [line.rpartition(b",")[0] for line in swept.leaderboard.read_bytes().splitlines()] == [
        line.rpartition(b",")[0] for line in before.splitlines()
    ]
    assert "this sweep is finished; nothing was done" in command_line("-m", "resume=sweep")[1]


def test_another_value_of_keep_than_the_recorded_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command_line("-m", "lr=0.1,0.2", "epochs=1", "report=false", "hydra.sweep.dir=s")
    code, said = command_line("-m", "resume=s", "sweep.keep=1")
    assert code == 2
    assert "sweep.keep=1  this sweep was started with sweep.keep=auto; leave it out" in said
    code, said = command_line("-m", "resume=s", "sweep.keep=all")  # the digest is that of auto
    assert code == 2
    assert "sweep.keep=all  this sweep was started with sweep.keep=auto; leave it out" in said
    assert command_line("-m", "resume=s", "sweep.keep=auto")[0] == 0


def test_a_sweep_without_its_archives_still_has_its_results(swept: SweepFolder) -> None:
    shutil.rmtree(swept.stacks)
    code, said = command_line("-m", "resume=sweep")
    assert code == 0
    assert "this sweep is finished; nothing was done" in said


def test_which_folders_are_kept() -> None:
    def ranking(count: int) -> Any:
        results = [
            Result("failed" if number == count - 1 else "completed", [], "h", "val/loss", best={"val/loss": -number})
            for number in range(count)
        ]
        return rank([Job(number, [], "rows", result) for number, result in enumerate(results)], "min")

    assert kept(ranking(100), "auto") == set(range(100))
    assert kept(ranking(101), "auto") == {*range(80, 100), 100}  # the last one failed, and the highest are the best
    assert kept(ranking(101), "all") == set(range(101))
    assert kept(ranking(101), 1) == {99, 100}
