"""Jobs on rows that are read from disk: in a stack, alone, and in memory; interrupted and resumed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from holdfast.config.job import JobSpec
from holdfast.config.schema import Config
from holdfast.data import BatchIndices, BufferedRows, blocks
from holdfast.data.disk_batches import ShuffledBatches
from holdfast.errors import DataError, Stopped
from holdfast.planning.share import share
from holdfast.record.archive import StackArchive
from holdfast.record.checkpoint import load
from holdfast.single.trainer import train_one
from holdfast.stacked import batches, evaluation, loop
from holdfast.stacked.formula_engine import FormulaEngine
from holdfast.stacked.inputs import StackInputs
from holdfast.stacked.loop import Stack
from holdfast.store.folders import RunFolder, StackFiles, SweepFolder
from holdfast.usercode.watch import UnstackableError
from tests.data.on_disk import blocks_of, make
from tests.stacked.test_loop import assert_folders_alike, configured, specs, stacked

BLOCK, ROWS = 32, 500  # 16 blocks, of which the last is not full
SEVERAL, ONE = 4 * BLOCK, ROWS  # rows of a buffer: 4 buffers, or a single one


@pytest.fixture
def group(tmp_path: Path) -> Any:
    with blocks_of(BLOCK):
        yield make(tmp_path / "rows", ROWS)


def jobs_on(group: dict[str, Any], *words: str, seeds: Sequence[int] = (0, 0, 1), **data: Any) -> list[JobSpec]:
    """Jobs with some seeds, each with a learning rate of its own."""
    base, configs = configured("data=linear", "data.features=3", "epochs=2", *words), list[Config]()
    for number, seed in enumerate(seeds):
        rate = 0.01 * (number + 1)
        rows = {**group, "batch_size": base.batch_size, "order_seed": seed, **data}
        optimizer = {**base.optimizer, "lr": rate}
        configs.append(dataclasses.replace(base, lr=rate, seed=seed, optimizer=optimizer, data=rows))
    jobs: list[JobSpec] = specs(configs)
    return jobs


def trained_alone(job: JobSpec, folder: Path) -> RunFolder:
    folder.mkdir(parents=True)
    train_one(job, RunFolder(folder))
    return RunFolder(folder)


def state(folder: RunFolder) -> list[Any]:
    """Weights, optimizer and results of a job, without what differs from run to run."""
    result = folder.read()
    assert result is not None
    checkpoints = [load(path) for path in (folder.best, folder.last)]
    kept = [(each["state_dict"], each["optimizer_states"], each["loops"]) for each in checkpoints]
    return [kept, result.best, result.last, result.iterations, load(folder.weights)]


def assert_same(one: Any, other: Any) -> None:
    """Compare containers bit for bit."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for mine, yours in zip(one, other, strict=True):
            assert_same(mine, yours)
    else:
        assert repr(one) == repr(other)  # NaN too


@pytest.mark.parametrize("words", ["batch_size=7", "batch_size=full", "batch_size=64 model=mlp model.hidden=[4]"])
def test_one_buffer_trains_bit_for_bit_as_rows_in_memory(group: dict[str, Any], tmp_path: Path, words: str) -> None:
    folders = dict[str, list[RunFolder]]()
    for name, buffer_rows in (("memory", 0), ("disk", ONE)):
        jobs = jobs_on(group, *words.split(), "optimizer=adam", buffer_rows=buffer_rows)
        _, sweep = stacked(jobs, tmp_path / name)
        folders[name] = [sweep.job(job.number) for job in jobs]
        folders[name].append(trained_alone(jobs[2], tmp_path / f"{name}-alone"))
    for memory, disk in zip(folders["memory"], folders["disk"], strict=True):
        assert_same(state(memory), state(disk))


def test_one_buffer_gives_a_module_the_random_numbers_of_rows_in_memory(group: dict[str, Any], tmp_path: Path) -> None:
    words = ("batch_size=50", "model=mlp", "model.hidden=[4]", "model.dropout=0.5")
    states = []
    for buffer_rows in (0, ONE):
        job = jobs_on(group, *words, buffer_rows=buffer_rows)[0]
        states.append(state(trained_alone(job, tmp_path / str(buffer_rows))))
    assert_same(*states)


@pytest.mark.parametrize(
    ("words", "rtol", "atol"),
    [
        ("batch_size=7", 1e-4, 1e-6),
        ("batch_size=128 optimizer=adam", 1e-4, 1e-6),
        ("batch_size=50 precision=64-true optimizer.momentum=0.9", 1e-9, 1e-12),
        ("batch_size=1 precision=64-true", 1e-9, 1e-12),
        ("batch_size=33 precision=64-true model=mlp model.hidden=[4]", 1e-9, 1e-12),
    ],
)
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_stack_equals_its_jobs_alone(
    group: dict[str, Any], tmp_path: Path, *, words: str, rtol: float, atol: float, shuffle: bool
) -> None:
    jobs = jobs_on(group, *words.split(), buffer_rows=SEVERAL, shuffle=shuffle)
    _, sweep = stacked(jobs, tmp_path / "sweep")
    for job in jobs:
        alone = trained_alone(job, tmp_path / f"alone-{job.number}")
        assert_folders_alike(sweep.job(job.number).path, alone.path, rtol, atol)


@pytest.mark.parametrize("batch_size", [1, 7, 32, 100, 128])
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_stack_visits_the_rows_in_the_orders_of_its_jobs(
    group: dict[str, Any], *, batch_size: int, shuffle: bool
) -> None:
    jobs = jobs_on(group, f"batch_size={batch_size}", buffer_rows=SEVERAL, shuffle=shuffle)
    engine = FormulaEngine(StackInputs([job.config for job in jobs]))
    for epoch in (0, 3):
        engine._batches.begin_epoch(np.array([0, 1]), epoch)
        seen, done = [list[torch.Tensor](), list[torch.Tensor]()], 0
        while done < engine.iterations:
            together = engine._batches.next(done, width=8)  # wide enough for batches with the streams first
            for x, _ in together:
                for stream in (0, 1):
                    seen[stream].append(x[stream, :, :3])
            done += len(together)
        assert done == engine.iterations
        for stream in (0, 1):
            source = engine._inputs.rows.data.train
            assert isinstance(source, BufferedRows)
            indices = BatchIndices(ROWS, batch_size, seed=stream, epoch=partial(int, epoch), shuffle=shuffle)
            expected = [x for x, _ in ShuffledBatches(source, indices)]
            assert_same(seen[stream], expected)


class StopAt(list[int]):
    """Signals, of which one arrives when a stack asks for the n-th time."""

    def __init__(self, calls: int) -> None:
        super().__init__([15])
        self.calls = calls

    def __bool__(self) -> bool:  # twice at each check
        self.calls -= 1
        return self.calls < 0


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let stacks look for signals every 60 iterations."""
    monkeypatch.setattr(loop, "CHECK_EVERY", 60)
    monkeypatch.setattr(batches, "CHECK_EVERY", 60)


@pytest.mark.usefixtures("checks")
@pytest.mark.parametrize("calls", [2, 6, 8, 14, 16, 20, 30])
def test_a_stack_that_is_killed_inside_an_epoch_ends_bit_for_bit_as_one_that_is_not(
    group: dict[str, Any], tmp_path: Path, calls: int
) -> None:
    jobs = jobs_on(group, "batch_size=1", "optimizer.momentum=0.9", buffer_rows=SEVERAL)
    whole = Stack(FormulaEngine(StackInputs([job.config for job in jobs]))).train()
    sweep = SweepFolder(tmp_path)
    numbers, hashes = [job.number for job in jobs], [job.config_hash for job in jobs]
    with pytest.raises(Stopped):
        _train(jobs, StackArchive(sweep.stack(0), numbers, hashes, signals=StopAt(calls)))
    archive = StackArchive(sweep.stack(0), numbers, hashes)
    assert archive.snapshot is not None
    resumed = _train(jobs, archive)
    assert_same(whole.last.tensors, resumed.last.tensors)
    assert_same(whole.best.tensors, resumed.best.tensors)
    of_jobs = [each.curves.of_jobs(range(3)) for each in (whole, resumed)]
    np.testing.assert_array_equal(of_jobs[0].losses, of_jobs[1].losses)
    np.testing.assert_array_equal(of_jobs[0].metrics, of_jobs[1].metrics)


def _train(jobs: Sequence[JobSpec], archive: StackArchive) -> Any:
    return Stack(FormulaEngine(StackInputs([job.config for job in jobs])), archive).train()


@pytest.mark.usefixtures("checks")
def test_the_moments_of_the_kills_lie_inside_epochs(group: dict[str, Any], tmp_path: Path) -> None:
    jobs = jobs_on(group, "batch_size=1", buffer_rows=SEVERAL)
    positions = list[tuple[int, int]]()
    for calls in (2, 14, 20, 30):
        files = StackFiles(tmp_path / f"{calls}.pt", tmp_path / f"{calls}.history")
        with pytest.raises(Stopped):
            _train(jobs, StackArchive(files, [0, 1, 2], ["h"] * 3, signals=StopAt(calls)))
        snapshot = StackArchive(files, [0, 1, 2], ["h"] * 3).snapshot
        assert snapshot is not None
        positions.append((snapshot["epoch"], snapshot["so_far"]["done"]))
    assert positions == [(0, 120), (0, 480), (1, 120), (1, 420)]


def test_groups_of_jobs_share_the_batches_of_an_evaluation(
    group: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = jobs_on(group, "batch_size=100", seeds=range(7), buffer_rows=SEVERAL)
    together = Stack(FormulaEngine(StackInputs([job.config for job in jobs]))).train()
    monkeypatch.setattr(evaluation, "_NUMBERS_AT_ONCE", 3 * (ROWS // 3 + 1))  # three jobs at a time
    in_groups = Stack(FormulaEngine(StackInputs([job.config for job in jobs]))).train()
    ours, theirs = (each.curves.of_jobs(range(7)).metrics for each in (together, in_groups))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_many_batches_of_an_evaluation_add_up(group: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = jobs_on(group, "batch_size=100", "precision=64-true", buffer_rows=SEVERAL)
    whole = Stack(FormulaEngine(StackInputs([job.config for job in jobs]))).train()
    monkeypatch.setattr(evaluation, "_MOST_SUMS", 1)
    folded = Stack(FormulaEngine(StackInputs([job.config for job in jobs]))).train()
    ours, theirs = (each.curves.of_jobs(range(3)).metrics for each in (whole, folded))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_jobs_are_divided_by_the_buffers_that_they_read(group: dict[str, Any], tmp_path: Path) -> None:
    with blocks_of(BLOCK):
        other = make(tmp_path / "other", ROWS)
    jobs = [
        *jobs_on(group, "batch_size=50", buffer_rows=SEVERAL),
        *jobs_on(group, "batch_size=50", seeds=(0, 1), buffer_rows=2 * SEVERAL),
        *jobs_on(group, "batch_size=50", seeds=(0, 1), buffer_rows=SEVERAL, seed=1),
        *jobs_on(group, "batch_size=50", seeds=(0, 1), buffer_rows=SEVERAL, shuffle=False),
        *jobs_on(other, "batch_size=50", seeds=(0, 1), buffer_rows=SEVERAL),
    ]
    shares = share([job.config for job in jobs])
    assert {part.jobs for part in shares} == {(0, 1, 2), (3, 4), (5, 6), (7, 8), (9, 10)}
    assert all(part.reason is None for part in shares)


def test_jobs_with_different_buffers_are_no_stack(group: dict[str, Any]) -> None:
    jobs = jobs_on(group, "batch_size=50", seeds=(0,), buffer_rows=SEVERAL)
    for change in ({"buffer_rows": 2 * SEVERAL}, {"shuffle": False}):
        others = jobs_on(group, "batch_size=50", seeds=(0,), **{"buffer_rows": SEVERAL, **change})
        with pytest.raises(UnstackableError, match="from disk"):
            StackInputs([jobs[0].config, others[0].config])


class Steps(pl.LightningModule):
    """A module that Holdfast knows nothing of."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def training_step(self, batch: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])

    def validation_step(self, batch: Sequence[torch.Tensor]) -> None:
        self.log("val/loss", self.training_step(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def test_a_module_with_steps_trains_alone(group: dict[str, Any]) -> None:
    jobs = jobs_on(group, "batch_size=50", buffer_rows=SEVERAL)
    model = {"_target_": f"{__name__}.Steps"}
    shares = share([dataclasses.replace(job.config, model=model) for job in jobs])
    assert [part.reason for part in shares] == ["its rows are read from disk, buffer by buffer"]


@pytest.mark.parametrize("engine", ["stack", "alone"])
def test_a_damaged_file_is_an_error_of_the_run(group: dict[str, Any], tmp_path: Path, engine: str) -> None:
    jobs = jobs_on(group, "batch_size=50", buffer_rows=SEVERAL)
    path = Path(group["folder"]) / "train"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="block 15 is damaged"):
        if engine == "stack":
            stacked(jobs, tmp_path / "sweep")
        else:
            trained_alone(jobs[0], tmp_path / "run")


def test_blocks_have_their_size_again() -> None:
    assert blocks.BLOCK_ROWS == 4096
