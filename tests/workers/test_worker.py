"""What a worker does with an assignment, in this process: it checks it, trains, and lists what it leaves."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from holdfast.cli.main import CONF
from holdfast.compose.recompose import compose
from holdfast.config.job import FOLDER, JobSpec
from holdfast.errors import CheckpointError, FolderError, HoldfastError, StorageError, WorkerError, is_out_of_memory
from holdfast.execute.work import Work
from holdfast.store.lock import locked
from holdfast.store.work_folder import WorkFolder
from holdfast.workers import assignment as assignments
from holdfast.workers import worker
from holdfast.workers.assignment import Assignment
from holdfast.workers.bundle import read_bundle
from holdfast.workers.worker import do
from holdfast.workers.worker_process import Failure

HYDRA = {
    "job_logging": {
        "version": 1,
        "formatters": {"full": {"format": "%(name)s: %(message)s"}},
        "handlers": {"file": {"class": "logging.FileHandler", "formatter": "full", "filename": f"{FOLDER}/train.log"}},
        "root": {"level": "INFO", "handlers": ["file"]},
        "disable_existing_loggers": False,
    },
    "verbose": False,
    "job": {"env_set": {"MINE": "7"}, "chdir": True, "num": 3},
}


def jobs(*overrides: str, count: int = 2) -> tuple[JobSpec, ...]:
    words = ["epochs=2", "batch_size=20", "accelerator=cpu", *overrides]
    return tuple(
        JobSpec(number, (f"seed={number}",), compose([*words, f"seed={number}"], CONF), f"hash {number}")
        for number in range(3, 3 + count)
    )


@pytest.fixture
def folder(tmp_path: Path) -> WorkFolder:
    return WorkFolder(tmp_path / "works" / "3")


@pytest.fixture(autouse=True)
def _nothing_imported() -> Iterator[None]:
    assignments._imported.clear()
    yield
    assignments._imported.clear()


def test_an_assignment_comes_back_as_it_was_and_an_altered_one_is_refused() -> None:
    given = Assignment(Work("stack", jobs(), frozenset({4}), threads=1), True, {"mine": "abc"}, HYDRA)
    text = given.as_text()
    assert repr(Assignment.from_text(text)) == repr(given)
    for altered in (text.replace("seed=3", "seed=9"), text[:-1], "", text.upper()):
        with pytest.raises(WorkerError, match="altered on its way"):
            Assignment.from_text(altered)
    for told, why in (({"version": 1, "holdfast": "0"}, "another version"), ({"version": 1}, "cannot be read")):
        other = json.dumps(told)
        with pytest.raises(WorkerError, match=why):
            Assignment.from_text(f"{hashlib.sha256(other.encode()).hexdigest()}\n{other}")


def test_a_stack_leaves_its_archive_event_files_and_results(folder: WorkFolder) -> None:
    members = jobs(count=3)
    epochs = []

    class Progress:
        def epoch(self, *args: object) -> None:
            epochs.append(args[:3])

        def ended(self, *args: object) -> None:
            raise AssertionError

    do(Assignment(Work("stack", members, frozenset({4}), threads=1), True, {}), folder, Progress())
    bundle = read_bundle(folder)
    assert bundle is not None
    assert bundle.is_of([members[0], members[2]])
    assert {result.status for result in bundle.results.values()} == {"completed"}
    paths = {file.path.partition("events")[0] for file in bundle.files}
    assert paths == {"stacks/3.pt", "stacks/3.history", "3/", "5/"}
    assert epochs == [(3, 2, 0), (3, 2, 1)]
    assert not folder.lock.exists()


def test_a_job_alone_has_its_log_its_environment_and_its_folder(folder: WorkFolder, tmp_path: Path) -> None:
    (job,) = jobs("model._target_=no.such.Model", count=1)
    before, threads = Path.cwd(), torch.get_num_threads()
    do(Assignment(Work("alone", (job,), threads=1), True, {}, HYDRA), folder)
    bundle = read_bundle(folder)
    assert bundle is not None
    assert "no.such.Model: cannot be imported" in bundle.errors[3]
    assert folder.job(3).log.read_text().startswith("holdfast.execute.alone: This job failed.")
    assert (Path.cwd(), torch.get_num_threads(), "MINE" in os.environ) == (before, threads, False)


def test_a_job_that_had_ended_before_its_worker_died_is_not_trained_again(
    folder: WorkFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Assignment(Work("alone", jobs(count=1), threads=1), True, {}, HYDRA)
    do(given, folder)
    first = read_bundle(folder)
    folder.bundle.unlink()
    monkeypatch.setattr(worker, "_as_hydra_job", lambda *_: pytest.fail("trained again"))
    do(given, folder)
    assert read_bundle(folder) == first


def test_other_code_and_missing_code_are_refused_by_name(
    folder: WorkFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "own_module.py"
    module.write_text("from holdfast.model import Linear\nclass Own(Linear): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    own = jobs("model._target_=own_module.Own", count=1)
    sha256 = hashlib.sha256(module.read_bytes()).hexdigest()
    assignments.check_code({"own_module": sha256, "another": "of other jobs"}, own)
    module.write_text("# edited while the sweep runs\n")
    assignments.check_code({"own_module": sha256}, own)  # this process has the version of the driver
    with pytest.raises(WorkerError, match="another version of the module own_module"):
        do(Assignment(Work("alone", own), True, {"own_module": "0" * 64}, HYDRA), folder)
    sys.modules.pop("own_module")
    gone = jobs("model._target_=gone_module.Own", count=1)
    with pytest.raises(WorkerError, match=r"cannot import gone_module.Own: ModuleNotFoundError"):
        do(Assignment(Work("alone", gone), True, {"gone_module": sha256}, HYDRA), folder)
    assert read_bundle(folder) is None


def test_a_folder_in_which_another_process_works_is_refused(
    folder: WorkFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "LONGEST_WAIT", 0.3)
    folder.path.mkdir(parents=True)
    with locked(folder.path), pytest.raises(FolderError, match="is in use by process"):
        do(Assignment(Work("stack", jobs()), True, {}), folder)


def test_a_failure_keeps_its_kind_on_its_way() -> None:
    for error, kind in (
        (MemoryError("much"), "memory"),
        (RuntimeError("CUDA out of memory"), "memory"),
        (StorageError("a cannot be written"), "files"),
        (OSError(28, "No space left on device", "b"), "files"),
        (CheckpointError("c cannot be read"), "files"),
        (WorkerError("d"), "worker"),
        (FolderError("e"), "worker"),
        (ValueError("f"), "other"),
    ):
        failure = Failure(*json.loads(json.dumps(Failure.of(error))))
        assert failure.kind == kind
        again = failure.as_error()
        assert is_out_of_memory(again) == (kind == "memory")
        assert isinstance(again, (StorageError, CheckpointError)) == (kind == "files")
    assert str(Failure.of(ValueError("a\nshape")).as_error()) == "ValueError: a shape"
    assert isinstance(Failure.of(ValueError("a")).as_error(), HoldfastError)
