"""The pool: how many workers, which GPUs, what waits for what, and what is said of jobs that run alone."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.main import CONF
from holdfast.compose.recompose import compose
from holdfast.config.job import JobSpec
from holdfast.errors import ConfigError, StorageError
from holdfast.execute.advice import Advice
from holdfast.execute.pending import Pending
from holdfast.execute.work import NO_PROGRESS, Work
from holdfast.store.folders import RunFolder, SweepFolder
from holdfast.sweeps import works
from holdfast.workers import worker_slots
from holdfast.workers.pool import Attempt, Pool, PoolSetting
from holdfast.workers.worker_handle import WorkerHandle
from holdfast.workers.worker_slots import check_workers, slots, visible_gpus
from tests.conftest import command_line
from tests.workers.gpu_notes import WORDS, most_at_once, times_by_gpu, write_notes

CONFIG = compose(["accelerator=cpu"], CONF)
JOBS = tuple(JobSpec(number, (f"lr={number + 1}",), CONFIG, f"hash {number}") for number in range(8))
ALONE = [Work("alone", (job,)) for job in JOBS]


def test_the_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_slots, "core_count", lambda: 4)
    assert slots("auto", 100, []) == [None] * 4
    assert slots("auto", 3, []) == [None] * 3
    assert slots(9, 100, []) == [None] * 9
    assert slots("auto", 100, ["4", "5"]) == ["4", "5"]
    assert slots(3, 100, ["4", "5"]) == ["4", "5", "4"]
    assert slots("auto", 0, []) == [None]
    for workers in (0, -1, "many", 1.5, True, None):
        with pytest.raises(ConfigError):
            check_workers(workers)


@pytest.mark.parametrize(
    ("given", "count", "names"),
    [
        (None, 2, ["0", "1"]),
        ("3, 1", 2, ["3", "1"]),
        ("GPU-1,MIG-2", 2, ["GPU-1", "MIG-2"]),
        ("", 0, []),
        ("7", 1, ["7"]),
    ],
)
def test_gpus_are_those_that_the_environment_shows(given: str | None, count: int, names: list[str]) -> None:
    assert visible_gpus(count, {} if given is None else {"CUDA_VISIBLE_DEVICES": given}) == names


def test_never_two_works_on_one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of unequal length on faked GPUs: each notes when it began and ended, and what it could see."""
    write_notes(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-6")
    monkeypatch.setattr(works, "uses_gpus", lambda configs: True)
    from holdfast.runtime import devices

    counts = devices.device_counts
    monkeypatch.setattr(devices, "device_counts", lambda: {**counts(), "cuda": 2})
    words = ["-m", "--config-dir", "my_conf", *WORDS, "hydra/launcher=processes", "hydra.sweep.dir=sweep"]
    code, said = command_line(*words)
    assert code == 0, said
    by_gpu = times_by_gpu(tmp_path)
    assert {gpu for _, gpu in by_gpu} == {"5", "GPU-6"}
    assert all(most_at_once(times) == 1 for times in by_gpu.values())
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5,GPU-6"


def test_stacks_come_first_then_jobs_by_number() -> None:
    pending = Pending([ALONE[6], Work("stack", JOBS[1:3]), ALONE[0], Work("stack", JOBS[4:6], frozenset({4, 5}))])
    taken = iter(pending.take, None)
    assert [work.jobs[0].number for work in taken if work is not None] == [1, 0, 6]
    with pytest.raises(StorageError):
        pending.give_up(Work("stack", JOBS[1:3]), StorageError("full"))


def test_a_stack_that_was_killed_waits_until_no_other_needs_memory(tmp_path: Path) -> None:
    class Surroundings:
        keeps_events = True

    pool = Pool(Surroundings(), SweepFolder(tmp_path), PoolSetting(2, [], False, {}), Pool, NO_PROGRESS)  # type: ignore[arg-type]
    killed = Attempt(Work("stack", JOBS[:2]), ("its worker process died (signal 9)",))
    pending, again = Pending(ALONE[2:4]), [killed]
    pool._busy[object()] = Attempt(ALONE[7])  # type: ignore[index]
    assert pool._next(pending, again) == Attempt(ALONE[2])
    assert pool._next(pending, again) == Attempt(ALONE[3])
    assert pool._next(pending, again) is None
    pool._busy.clear()
    assert pool._next(pending, again) == killed


def test_a_worker_is_alone_in_its_session_and_ends_when_it_is_let_go() -> None:
    worker = WorkerHandle()
    assert worker.is_alive
    deadline = time.monotonic() + 60
    while os.getsid(worker._process.pid) != worker._process.pid:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    worker.let_go()
    assert worker.wait_until_it_ends(60)
    assert worker.how_it_died() == "exit code 0"
    worker.kill()  # does nothing more


@pytest.mark.parametrize("forks", [True, False])
def test_a_worker_sees_its_gpu_and_the_environment_of_now(
    forks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a GPU may be there workers are not forked, since the server may have initialised it."""
    from holdfast.workers import worker_handle

    if forks and not worker_handle.can_fork():
        pytest.skip("workers are not forked on this machine")
    monkeypatch.setattr(worker_handle, "can_fork", lambda: forks)
    monkeypatch.setenv("SET_JUST_NOW", "yes")
    worker = WorkerHandle("3")
    worker.give(tmp_path, "altered\n")
    messages: list[Any] = []
    while not messages and worker.is_alive:
        worker_handle.wait_for_signs([worker], 1.0)
        messages += worker.messages()
    assert messages == [{"failure": ["worker", "what the worker was given was altered on its way: its digest differs"]}]
    if not forks:  # of a forked process the system shows the variables of its server
        shown = Path(f"/proc/{worker._process.pid}/environ")
        if shown.exists():
            variables = shown.read_bytes().split(b"\0")
            assert {b"CUDA_VISIBLE_DEVICES=3", b"OMP_NUM_THREADS=1", b"SET_JUST_NOW=yes"} <= set(variables)
    worker.kill()
    assert not worker.is_alive


def test_worker_processes_are_named_once_where_jobs_alone_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.execute import advice

    monkeypatch.setattr(advice, "core_count", lambda: 2)
    long = Advice(ALONE)
    assert long.note(2.0) is None  # eight of them take 16 s
    line = "8 jobs run alone, about 32 s one after another; with hydra/launcher=processes about 21 s, in 2 processes"
    assert long.note(6.0) == line
    assert long.note(60.0) is None
    assert Advice([*ALONE[:1], Work("stack", JOBS[1:])]).note(100.0) is None  # nothing to spread
    assert Advice([work._replace(accelerator="cuda") for work in ALONE]).note(100.0) is None
    assert Advice([work._replace(devices=2) for work in ALONE]).note(100.0) is None
    monkeypatch.setattr(advice, "core_count", lambda: 1)
    assert Advice(ALONE).note(100.0) is None


def test_the_line_is_printed_by_the_default_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from holdfast.execute import advice
    from holdfast.execute.here import Here

    monkeypatch.setattr(advice, "core_count", lambda: 2)
    monkeypatch.setattr(advice, "LONG", -1.0)
    monkeypatch.setattr(advice, "SECONDS_TO_START", -1.0)

    class Surroundings:
        def train(self, job: JobSpec, train: Any) -> Exception:
            return RuntimeError("not trained")

    for advises in (True, False):
        here = Here(Surroundings(), lambda *_: None, lambda n: RunFolder(tmp_path / str(n)), advises=advises)  # type: ignore[arg-type,return-value]
        assert len(list(here.run(ALONE))) == 8
        assert capsys.readouterr().out.count("hydra/launcher=processes") == advises


def test_what_sweep_json_says_of_threads_and_devices() -> None:
    config = compose(["accelerator=cpu", "devices=2"], CONF)
    two = JobSpec(8, (), config, "hash 8")
    on_hardware = works.on_hardware([Work("alone", (JOBS[0],)), Work("alone", (two,))], 1)
    assert [(work.threads, work.accelerator, work.devices) for work in on_hardware] == [(1, "cpu", 1), (1, "cpu", 2)]
