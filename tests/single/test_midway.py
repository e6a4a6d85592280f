"""A run on rows from disk that is interrupted inside an epoch goes on there, and ends as one that never was."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.config.job import JobSpec
from holdfast.config.schema import Config
from holdfast.errors import CheckpointError, Stopped
from holdfast.model import Linear
from holdfast.record import writer
from holdfast.record.checkpoint import load, save
from holdfast.record.resume_point import RESUME_KEY
from holdfast.single import midway
from holdfast.single import recorder as recording
from holdfast.single.recorder import Recorder
from holdfast.single.trainer import train_one
from holdfast.store.folders import RunFolder
from tests.conftest import job_spec
from tests.data.on_disk import blocks_of, make
from tests.stacked.test_loop import assert_folders_alike, configured

BLOCK, ROWS = 32, 500  # 16 blocks


@pytest.fixture
def group(tmp_path: Path) -> Iterator[dict[str, Any]]:
    with blocks_of(BLOCK):
        yield make(tmp_path / "rows", ROWS)


def job_on(group: dict[str, Any], *words: str, **data: Any) -> JobSpec:
    base = configured("data=linear", "data.features=3", *words)
    rows = {**group, "batch_size": base.batch_size, "order_seed": base.seed, "buffer_rows": 4 * BLOCK, **data}
    job: JobSpec = job_spec(dataclasses.replace(base, data=rows))
    return job


def trained(
    job: JobSpec, folder: RunFolder, stop: int | None = None, *, writes: float = 0.0, between: float = 0.0
) -> int:
    """Train until the n-th batch of this process, or to the end; returns the number of batches that it trained."""
    seen, original = 0, Recorder.on_train_batch_end

    def interrupt(self: Recorder, *args: Any, **kwargs: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == stop:
            raise KeyboardInterrupt
        original(self, *args, **kwargs)

    folder.path.mkdir(exist_ok=True, parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recorder, "on_train_batch_end", interrupt)
        patch.setattr(writer, "SECONDS_BETWEEN_WRITES", writes)
        patch.setattr(midway, "SECONDS_BETWEEN_CHECKPOINTS", between)
        if stop is None:
            train_one(job, folder)
        else:
            with pytest.raises(Stopped):
                train_one(job, folder)
    return seen


CASES: dict[str, tuple[list[str], Sequence[int]]] = {
    "first epoch": (["batch_size=10", "epochs=2"], (3, 40)),  # 50 batches in an epoch
    "straddling batches, momentum": (["batch_size=33", "optimizer.momentum=0.9", "epochs=4"], (5, 6, 2, 20)),
    "dropout, Adam, a schedule, early stopping": (
        ["model=mlp", "model.dropout=0.3", "model.hidden=[4]", "optimizer=adam", "scheduler=cosine", "batch_size=40",
         "callbacks.early_stopping.patience=2", "epochs=5"],
        (4, 15, 1, 8),
    ),
    "accumulation": (["trainer.accumulate_grad_batches=3", "batch_size=20", "epochs=3"], (17, 20, 20)),
    "ending inside an epoch": (["trainer.max_steps=60", "batch_size=20", "epochs=4"], (30, 22)),
    "diverging": (["lr=30", "batch_size=50", "epochs=6"], (4, 3)),
    "a schedule of steps": (["scheduler=step", "scheduler.step_size=2", "batch_size=50", "epochs=5"], (23, 4)),
    "one buffer": (["batch_size=20", "epochs=3"], (35, 13)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_run_resumed_inside_an_epoch_equals_one_that_was_never_interrupted(
    group: dict[str, Any], tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, stops = CASES[case]
    monkeypatch.setattr(recording, "CHECK_EVERY", 7)  # of the losses, some are read and some are not
    job = job_on(group, *words, **({"buffer_rows": ROWS} if case == "one buffer" else {}))
    whole, cut = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "cut")
    total = trained(job, whole)
    done = 0
    for stop in stops:
        done += trained(job, cut, stop)
        assert cut.midway.exists()
        assert not cut.result.exists()
    done += trained(job, cut)
    wide = 3 if case == "accumulation" else 1  # batches between two moments at which gradients are complete
    assert total <= done <= total + wide * len(stops)  # the batch that was interrupted is trained again, and no other
    assert_folders_alike(whole.path, cut.path, 0, 0)
    if whole.weights.exists():
        assert whole.weights.read_bytes() == cut.weights.read_bytes()
    assert not cut.midway.exists()


def test_a_line_has_its_path_again(tmp_path: Path) -> None:
    with blocks_of(BLOCK):
        job = job_on(make(tmp_path / "rows", ROWS, features=1), "batch_size=20", "epochs=3")
        job = job._replace(config=dataclasses.replace(job.config, model={**job.config.model, "features": 1}))
        whole, cut = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "cut")
        trained(job, whole)
        for stop in (7, 40):
            trained(job, cut, stop)
        trained(job, cut)
    assert whole.parameter_path.exists()
    assert whole.parameter_path.read_bytes() == cut.parameter_path.read_bytes()


def test_a_crash_after_an_epoch_resumes_from_the_later_of_both_checkpoints(
    group: dict[str, Any], tmp_path: Path
) -> None:
    job = job_on(group, "batch_size=50", "epochs=3")  # 10 batches in an epoch
    whole, cut = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "cut")
    trained(job, whole)
    trained(job, cut, 8)
    inside_first = cut.midway.read_bytes()
    trained(job, cut, 8)  # in the second epoch
    assert load(cut.last)[RESUME_KEY]["epochs"]
    cut.midway.write_bytes(inside_first)  # as if no later one had been written
    assert trained(job, cut) == 20
    assert_folders_alike(whole.path, cut.path, 0, 0)


def test_checkpoints_are_written_at_intervals(group: dict[str, Any], tmp_path: Path) -> None:
    job, folder = job_on(group, "batch_size=50", "epochs=2"), RunFolder(tmp_path / "run")
    trained(job, folder, 8, between=60.0)
    assert not folder.midway.exists()


class Logs(Linear):
    """Gathers a metric over an epoch, in a state that is in no checkpoint."""

    def training_step(self, batch: Any) -> torch.Tensor:
        loss = super().training_step(batch)
        self.log("train/mean", loss, on_epoch=True, on_step=False)
        return loss


def logging_module(job: JobSpec) -> Config:
    return dataclasses.replace(job.config, model={**job.config.model, "_target_": f"{__name__}.Logs"})


def validating_inside(job: JobSpec) -> Config:
    return dataclasses.replace(job.config, trainer=dataclasses.replace(job.config.trainer, val_check_interval=0.5))


def in_memory(job: JobSpec) -> Config:
    return dataclasses.replace(job.config, data={**job.config.data, "buffer_rows": 0})


@pytest.mark.parametrize("change", [logging_module, validating_inside, in_memory])
def test_what_gathers_more_over_an_epoch_resumes_from_its_end(
    group: dict[str, Any], tmp_path: Path, change: Any
) -> None:
    job = job_on(group, "batch_size=50", "epochs=3")
    job = job._replace(config=change(job))
    whole, cut = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "cut")
    trained(job, whole)
    trained(job, cut, 18)
    assert not cut.midway.exists()
    assert trained(job, cut) == 20
    assert whole.weights.read_bytes() == cut.weights.read_bytes()


def test_a_checkpoint_of_other_rows_is_refused_and_one_of_another_configuration_is_left_out(
    group: dict[str, Any], tmp_path: Path
) -> None:
    job, folder = job_on(group, "batch_size=50", "epochs=2"), RunFolder(tmp_path / "run")
    trained(job, folder, 8)
    content = load(folder.midway)
    changed = {**content, RESUME_KEY: {**content[RESUME_KEY], "rows": "others"}}
    save(changed, folder.midway)
    with pytest.raises(CheckpointError, match="have changed since this run was begun"):
        train_one(job, folder)
    assert not folder.midway.exists()
    folder = RunFolder(tmp_path / "another")
    trained(job, folder, 8)
    save({**content, RESUME_KEY: {**content[RESUME_KEY], "config_hash": "another"}}, folder.midway)
    assert trained(job, folder) == 20
