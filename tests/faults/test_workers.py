"""Worker processes that die, lie, or lack something, and drivers that are killed: see `docs/reliability.md`.

By default a sample; HOLDFAST_FAULTS=all, as in CI, tries everything.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.compose import executors
from holdfast.store.folders import SweepFolder
from holdfast.store.work_folder import WorkFolder
from holdfast.workers import hand_over
from holdfast.workers.bundle import Bundle, read_bundle
from holdfast.workers.pool import Pool
from holdfast.workers.worker_handle import WorkerHandle
from tests.conftest import ROOT, command_line
from tests.faults.group import MARK, marked
from tests.full import IN_FULL, sample
from tests.workers.damages import DAMAGES
from tests.workers.swept import FLAGS, MODULES, QUIET, same, swept, working_in

PROCESSES = ["hydra/launcher=processes", "hydra.launcher.workers=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with working_in(tmp_path_factory.mktemp("workers")) as path:
        yield path


LOADING = """
import lightning.pytorch as pl
import torch


class Loading(pl.LightningDataModule):
    '''Loads its batches in processes of its own, which hand them over in shared memory.'''

    def setup(self, stage):
        x = torch.linspace(-1, 1, 4000)[:, None]
        self.rows = torch.utils.data.TensorDataset(x, 3 * x)

    def train_dataloader(self):
        return torch.utils.data.DataLoader(self.rows, 2000, num_workers=1)

    val_dataloader = train_dataloader
"""

# ---------------------------------------------------------------- what a job does to its process

DEATHS = {"kill": "signal 9", "_exit": "exit code 7", "segfault": "signal 11"}
FAILURES = {
    "memory": "MemoryError",
    "limit": "memory",
    "exit": "the user's code left by sys.exit(3)",
    "full": "/dev/shm/somewhere cannot be written: No space left on device.",
}


@pytest.mark.parametrize("harm", sample(list(DEATHS)))
def test_a_job_whose_worker_dies_once_is_tried_once_more(harm: str, folder: Path) -> None:
    words = ["model=alone", "lr=0.01,0.1,0.2", "epochs=3", f"model.harm={harm}", "sweep.stack=never"]
    code, said, sweep = swept([*words, f"model.once=died_{harm}", *PROCESSES])
    assert code == 0, said
    assert f"its worker process died ({DEATHS[harm]}); trying once more" in said
    assert all(sweep.job(number).read().status == "completed" for number in range(3))
    assert not (sweep.path / "works").exists()
    same(sweep, [*words, f"model.once=died_{harm}"])  # the file is there: no harm is done


@pytest.mark.parametrize("harm", sample(list(DEATHS)))
def test_a_job_whose_worker_dies_twice_fails_by_name_and_no_other(harm: str, folder: Path) -> None:
    words = ["model=alone", "epochs=3", "lr=0.01", f"model.harm='',{harm}", "seed=0,1", "sweep.stack=never", *PROCESSES]
    code, said, sweep = swept(words)
    assert code == 1
    for number in (2, 3):
        line = f"job {number} (model.harm={harm} seed={number - 2}) failed: its worker process died ({DEATHS[harm]}), "
        assert f"{line}twice" in said
        result = sweep.job(number).read()
        assert result is not None
        assert (result.status, result.error) == ("failed", f"its worker process died ({DEATHS[harm]}), twice")
        assert (sweep.job(number).path / ".hydra/config.yaml").exists()
        assert sweep.job(number - 2).finished(sweep.job(number - 2).read().config_hash)
    assert not (sweep.path / "works").exists()
    again = command_line("-m", "--config-dir", "my_conf", f"resume={sweep.path}")
    assert (again[0], "nothing was done" in again[1]) == (1, True)


@pytest.mark.parametrize("harm", sample(list(FAILURES)))
def test_a_job_that_fails_in_any_other_way_fails_at_once(harm: str, folder: Path) -> None:
    code, said, sweep = swept(["model=alone", "epochs=3", f"model.harm='',{harm}", "sweep.stack=never", *PROCESSES])
    assert code == 1
    assert "trying once more" not in said
    assert sweep.job(0).read().status == "completed"
    assert (sweep.job(1).read().status, FAILURES[harm] in sweep.job(1).read().error) == ("failed", True)
    if harm != "full":
        assert "Traceback" in sweep.job(1).log.read_text()


def test_a_stack_that_does_not_fit_into_a_worker_is_halved_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["lr=0.01,0.02,0.03,0.04", "epochs=2"]
    halved: list[int] = []
    heard = Pool._heard

    def out_of_memory(pool: Pool, worker: WorkerHandle) -> Any:
        message = heard(pool, worker)
        width = len(pool._busy[worker].work.jobs)
        if message and width > 2:
            halved.append(width)
            return {"failure": ["memory", "MemoryError: "]}
        return message

    monkeypatch.setattr(Pool, "_heard", out_of_memory)
    code, said, sweep = swept([*words, *PROCESSES])
    assert code == 0, said
    assert halved == [4]
    assert said.count("4 jobs do not fit into memory together, and are trained in two halves") == 1
    assert all(sweep.job(number).read().status == "completed" for number in range(4))


# ---------------------------------------------------------------- workers killed from outside

LONG = ["model=ordinary,alone", "lr=0.01,0.1", "batch_size=5", "epochs=40", "sweep.snapshot=0"]


@pytest.mark.parametrize("number", sample(list(range(12))))
def test_a_worker_killed_at_a_random_moment_changes_nothing(
    number: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers: list[WorkerHandle] = []
    begin = WorkerHandle.__init__

    def noted(self: WorkerHandle, *args: Any) -> None:
        begin(self, *args)
        workers.append(self)

    monkeypatch.setattr(WorkerHandle, "__init__", noted)
    over, killed = threading.Event(), list[int]()
    moments = random.Random(number)
    after = moments.uniform(0.0, 4.0)

    def kill() -> None:
        while not workers and not over.wait(0.005):
            pass
        if not over.wait(after) and (alive := [worker for worker in workers if worker.is_alive]):
            killed.append(moments.choice(alive)._process.pid)
            os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        code, said, sweep = swept([*LONG, *PROCESSES])
    finally:
        over.set()
        thread.join()
    assert code == 0, said
    assert not killed or "(signal 9); trying once more" in said or "died" not in said
    assert not (sweep.path / "works").exists()
    same(sweep, LONG)


def started(words: list[str], name: str, mark: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "train.py"), *FLAGS, *words, *QUIET, f"hydra.sweep.dir={name}"]
    environment = {**os.environ, MARK: mark}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def none_left(mark: str) -> bool:
    deadline = time.monotonic() + 10
    while marked(mark) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not marked(mark)


def ended_jobs(sweep: SweepFolder) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sweep.path.glob("[0-9]*/result.json")}


def wait_for_workers(process: subprocess.Popen[str], sweep: SweepFolder) -> None:
    while not (sweep.path / "works").exists() and process.poll() is None:
        time.sleep(0.02)


@pytest.mark.parametrize("number", sample(list(range(10))))
def test_a_driver_killed_at_a_random_moment_is_resumed(number: int, folder: Path) -> None:
    mark, sweep = uuid.uuid4().hex, SweepFolder(Path(f"killed_{number}"))
    process = started([*LONG, *PROCESSES], sweep.path.name, mark)
    wait_for_workers(process, sweep)
    time.sleep(random.Random(100 + number).uniform(0.0, 3.0))
    process.kill()
    process.communicate()
    assert none_left(mark)
    before = ended_jobs(sweep)
    code, said = command_line("-m", "--config-dir", "my_conf", f"resume={sweep.path}", "hydra.launcher.workers=2")
    assert code == 0, said
    assert {path: when for path, when in ended_jobs(sweep).items() if path in before} == before  # none ran again
    assert not (sweep.path / "works").exists()
    same(sweep, LONG)


@pytest.mark.parametrize(("number", "code"), sample([(signal.SIGINT, 130), (signal.SIGTERM, 143)]))
@pytest.mark.parametrize("model", sample(["linear", "alone"]))
def test_a_signal_stops_all_workers_and_the_sweep_can_be_resumed(
    number: int, code: int, model: str, folder: Path
) -> None:
    words = [f"model={model}", "lr=0.01,0.1", "batch_size=1,5", "epochs=100000", "sweep.snapshot=1"]
    mark, sweep = uuid.uuid4().hex, SweepFolder(Path(f"stopped_{model}_{number}"))
    process = started([*words, *PROCESSES], sweep.path.name, mark)
    wait_for_workers(process, sweep)
    pattern = "works/*/stacks/*.pt" if model == "linear" else "works/*/*/last.ckpt"
    deadline = time.monotonic() + 30
    while len(list(sweep.path.glob(pattern))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    for _ in range(2):  # as `timeout` does, which sends it to the process and to its group
        process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert "stopping 2 worker processes" in said
    assert f"to resume: python train.py --config-dir my_conf -m resume={sweep.path.name}" in said
    assert none_left(mark)
    assert not [path for name in ("*.part", ".lock") for path in sweep.path.rglob(name)]  # no worker was killed
    assert list(sweep.path.glob("works/*/stacks/*.pt" if model == "linear" else "works/*/*/last.ckpt"))


def test_a_driver_stopped_right_after_it_has_placed_a_work_is_resumed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(work: WorkFolder) -> None:
        raise KeyboardInterrupt

    words = ["model=alone", "lr=0.01,0.1", "epochs=2"]
    with monkeypatch.context() as patched:
        patched.setattr(WorkFolder, "remove", stop)
        code, said, sweep = swept([*words, *PROCESSES])
    assert code == 130, said
    placed = [number for number in range(2) if sweep.job(number).result.exists()]
    assert placed
    assert all(WorkFolder.of(sweep, number).bundle.exists() for number in placed)
    code, said = command_line("-m", "--config-dir", "my_conf", f"resume={sweep.path}", *QUIET)
    assert code == 0, said
    same(sweep, words)


@IN_FULL
def test_two_drivers_in_one_folder(folder: Path) -> None:
    mark, sweep = uuid.uuid4().hex, SweepFolder(Path("shared"))
    process = started([*LONG, *PROCESSES], sweep.path.name, mark)
    wait_for_workers(process, sweep)
    code, said = command_line("-m", "--config-dir", "my_conf", f"resume={sweep.path}")
    assert code == 2
    assert f"shared is in use by process {process.pid}" in said
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    same(sweep, LONG)


# ---------------------------------------------------------------- what workers hand back


@pytest.mark.parametrize("times", sample([1, 2]))
@pytest.mark.parametrize("damage", sample(DAMAGES), ids=lambda damage: damage.__name__)
def test_a_bundle_that_cannot_be_believed_is_refused(
    damage: Callable[[WorkFolder, Bundle], None], times: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = {"1": times}  # job 1 alone is disturbed

    def read(work: WorkFolder) -> Bundle | None:
        bundle = read_bundle(work)
        if bundle is not None and left.get(work.path.name):
            left[work.path.name] -= 1
            damage(work, bundle)
            return read_bundle(work)
        return bundle

    monkeypatch.setattr(hand_over, "read_bundle", read)
    words = ["model=alone", "lr=0.01,0.1,0.2", "epochs=2"]
    code, said, sweep = swept([*words, *PROCESSES])
    assert "what its worker process handed back was refused" in said
    assert "trying once more" in said
    assert not (sweep.path / "works").exists()
    assert not (sweep.path.parent / "outside").exists()
    if times == 1:
        assert code == 0, said
        same(sweep, words)
    else:
        assert code == 1
        assert "job 1 (lr=0.1) failed: what its worker process handed back was refused" in said
        assert [sweep.job(number).read().status for number in range(3)] == ["completed", "failed", "completed"]


# ---------------------------------------------------------------- what workers lack


@pytest.mark.parametrize("how", sample(["changed", "missing"]))
@pytest.mark.parametrize("model", sample(["Ordinary", "Alone"]))
def test_a_worker_with_other_code_refuses_its_work_by_name(
    how: str, model: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"own_{how}_{model.lower()}"
    module = folder / f"{name}.py"
    module.write_text(MODULES)
    make = executors.Executors._make_executor

    def make_pool(*args: Any) -> Any:
        pool = make(*args)
        if how == "changed":
            module.write_text(MODULES + "\n# another version\n")
        else:
            module.unlink()
        return pool

    monkeypatch.setattr(executors.Executors, "_make_executor", make_pool)
    words = ["model=ordinary", f"model._target_={name}.{model}", "lr=0.01,0.1", "epochs=2", *PROCESSES]
    code, said, sweep = swept(words)
    assert code == 1
    why = f"another version of the module {name}" if how == "changed" else f"cannot import {name}.{model}"
    for number in (0, 1):
        assert why in sweep.job(number).read().error
    assert "trying once more" not in said


@IN_FULL
def test_loaders_with_workers_of_their_own_train_in_workers(folder: Path) -> None:
    words = ["model=alone", "lr=0.01,0.1", "epochs=1", "data.num_workers=1"]
    code, said, sweep = swept([*words, *PROCESSES])
    assert code == 0, said
    same(sweep, words)


@pytest.mark.parametrize("kilobytes", sample([48, 16, 32, 64, 96, 128]))
def test_a_disk_that_is_too_small_for_workers(kilobytes: int, folder: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        words = ["lr=0.01,0.1", "seed=0,1,2", "batch_size=5", *PROCESSES, *QUIET]
        code, said = command_line("-m", *words, f"hydra.sweep.dir={disk}/sweep")
        assert "Traceback" not in said
        assert code == 0 or "No space left on device" in said
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@IN_FULL
@pytest.mark.parametrize("model", ["linear,ordinary", "alone", "loading"])
def test_shared_memory_that_is_full(model: str, folder: Path) -> None:
    """`/dev/shm` without a free byte, where a loader's own processes put their batches."""
    mount = "mount -t tmpfs -o size=4k tmpfs /dev/shm && cat /dev/zero > /dev/shm/full 2> /dev/null; "
    if subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    data, name = ["data=loading"] if model == "loading" else [], f"shm_{model.partition(',')[0]}"
    (folder / "loading.py").write_text(LOADING)
    (folder / "my_conf/data").mkdir(exist_ok=True)
    (folder / "my_conf/data/loading.yaml").write_text("_target_: loading.Loading\n")
    words = [*FLAGS, f"model={'alone' if data else model}", *data, "lr=0.01,0.1", "epochs=2", *QUIET]
    command = [sys.executable, str(ROOT / "train.py"), *words, *PROCESSES, f"hydra.sweep.dir={name}"]
    script = mount + 'df /dev/shm --output=avail | tail -1 && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *command], cwd=folder, capture_output=True, text=True, timeout=120
    )
    said = done.stdout + done.stderr
    assert said.split()[0] == "0", said
    sweep = SweepFolder(folder / name)
    if not data:
        assert "Traceback" not in said
        assert done.returncode == 0, said
        same(sweep, words[len(FLAGS) : -len(QUIET)])
        return
    assert done.returncode == 1, said
    for number in (0, 1):
        result = sweep.job(number).read()
        assert result is not None
        assert result.status == "failed"
        assert "No space left on device" in result.error or "shared memory" in result.error
    assert len(list(sweep.path.glob("[0-9]*/result.json"))) == 2
