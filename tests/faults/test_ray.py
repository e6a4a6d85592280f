"""Ray workers, nodes and drivers that die, lie, or lack something: see `docs/reliability.md`.

By default a sample; HOLDFAST_FAULTS=all, as in CI, tries everything.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.store.folders import SweepFolder
from holdfast.store.versions import versions
from tests.clusters.ray_cluster import RAY, alive, cluster, descendants, free_port, words_for
from tests.conftest import ROOT, command_line
from tests.faults.group import MARK, marked
from tests.full import IN_FULL, sample
from tests.workers.swept import FLAGS, MODULES, QUIET, same, swept, working_in

ray = pytest.importorskip("ray", reason="needs the extra ray")

from holdfast.clusters import ray_pool, ray_session, ray_starter  # noqa: E402
from holdfast.clusters.ray_handle import RayHandle  # noqa: E402
from holdfast.clusters.ray_sources import Sources  # noqa: E402

LONG = ["model=ordinary,alone", "lr=0.01,0.1", "batch_size=5", "epochs=40", "sweep.snapshot=0"]
SHORT = ["model=alone", "lr=0.01,0.1,0.2", "epochs=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with working_in(tmp_path_factory.mktemp("ray_faults")) as path:
        yield path


@pytest.fixture(scope="module")
def two_nodes(folder: Path) -> Iterator[Any]:
    with cluster({"num_cpus": 1}, {"num_cpus": 1}) as started:
        yield started


def workers_of(started: Any) -> dict[int, str]:
    """The actors, and the worker processes that they keep, on all nodes of a cluster, with the names of both."""
    names = {}
    for node in started.list_all_nodes():
        raylet = node.all_processes["raylet"][0].process.pid
        for pid in descendants(raylet):
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:  # it has ended meanwhile
                continue
            if b"RayWorker" in line:
                names[pid] = "actor"
            elif b"multiprocessing" in line:
                names[pid] = "process"
    return names


# ---------------------------------------------------------------- what a job does to its process

DEATHS = {"kill": "signal 9", "_exit": "exit code 7", "segfault": "signal 11"}


@IN_FULL
@pytest.mark.parametrize("harm", list(DEATHS))
def test_a_job_whose_process_dies_once_is_tried_once_more(harm: str, two_nodes: Any) -> None:
    words = ["model=alone", "lr=0.01,0.1,0.2", "epochs=3", f"model.harm={harm}", "sweep.stack=never"]
    words.append(f"model.once=died_{harm}")
    code, said, sweep = swept([*words, *words_for(two_nodes)])
    assert code == 0, said
    assert f"its worker process died ({DEATHS[harm]}); trying once more" in said
    same(sweep, words)  # the file is there: no harm is done


@IN_FULL
@pytest.mark.parametrize(("harm", "retries"), sample([("kill", 0), ("_exit", 1), ("segfault", 2)]))
def test_a_job_whose_process_dies_too_often_fails_by_name_and_no_other(harm: str, retries: int, two_nodes: Any) -> None:
    words = ["model=alone", "epochs=3", f"model.harm='',{harm}", "sweep.stack=never"]
    code, said, sweep = swept([*words, *words_for(two_nodes, retries=retries)])
    assert code == 1
    often = ["", ", twice", ", 3 times"][retries]
    why = f"its worker process died ({DEATHS[harm]}){often}"
    assert f"job 1 (model.harm={harm}) failed: {why}" in said
    assert [sweep.job(number).read().status for number in (0, 1)] == ["completed", "failed"]
    assert sweep.job(1).read().error == why
    assert said.count("trying") == retries


# ---------------------------------------------------------------- workers and nodes killed from outside


def during(action: Callable[[], None], after: float, words: list[str], started: Any) -> tuple[int, str, SweepFolder]:
    """Run a sweep, and do something some seconds after its first worker has begun."""
    over = threading.Event()

    def act() -> None:
        while not workers_of(started) and not over.wait(0.05):
            pass
        if not over.wait(after):
            action()

    thread = threading.Thread(target=act)
    thread.start()
    try:
        return swept(words)
    finally:
        over.set()
        thread.join()


@IN_FULL
@pytest.mark.parametrize("number", list(range(6)))
def test_a_worker_killed_at_a_random_moment_changes_nothing(number: int, two_nodes: Any) -> None:
    moments = random.Random(number)
    kind = ["actor", "process"][number % 2]
    killed = []

    def kill() -> None:
        pids = sorted(pid for pid, name in workers_of(two_nodes).items() if name == kind)
        if pids:
            killed.append(moments.choice(pids))
            os.kill(killed[0], signal.SIGKILL)

    code, said, sweep = during(kill, moments.uniform(2.0, 7.0), [*LONG, *words_for(two_nodes)], two_nodes)
    assert code == 0, said
    same(sweep, LONG)


@IN_FULL
@pytest.mark.parametrize("number", list(range(3)))
def test_a_node_that_is_removed_changes_nothing(number: int, folder: Path) -> None:
    with cluster({"num_cpus": 1}) as started:
        doomed = started.add_node(num_cpus=1)
        words = [*LONG, *words_for(started, workers=2)]
        action = lambda: started.remove_node(doomed, allow_graceful=False)  # noqa: E731
        code, said, sweep = during(action, random.Random(number).uniform(4.0, 8.0), words, started)
    assert code == 0, said
    same(sweep, LONG)


@IN_FULL
def test_a_worker_that_ends_while_its_bundle_is_fetched(two_nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces, killed = RayHandle._pieces, list[RayHandle]()

    def cut(handle: RayHandle, first: bytes) -> Iterator[bytes]:
        yield first[: len(first) // 2]
        if not killed:
            killed.append(handle)
            ray.kill(handle._actor)
            ray.get(handle._actor.piece.remote())
        yield first[len(first) // 2 :]
        yield from list(pieces(handle, first))[1:]

    monkeypatch.setattr(RayHandle, "_pieces", cut)
    code, said, sweep = swept([*SHORT, *words_for(two_nodes)])
    assert code == 0, said
    assert "trying once more" in said
    same(sweep, SHORT)


# ---------------------------------------------------------------- drivers that are killed or stopped


def started_driver(words: list[str], name: str, mark: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "train.py"), *FLAGS, *words, *QUIET, f"hydra.sweep.dir={name}"]
    environment = {**os.environ, MARK: mark}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def wait_until(condition: Callable[[], Any], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return bool(condition())


@IN_FULL
@pytest.mark.parametrize("number", list(range(4)))
def test_a_driver_killed_at_a_random_moment_is_resumed(number: int, two_nodes: Any) -> None:
    sweep = SweepFolder(Path(f"killed_{number}"))
    driver = started_driver([*LONG, *words_for(two_nodes)], sweep.path.name)
    assert wait_until(lambda: workers_of(two_nodes) or driver.poll() is not None)
    time.sleep(random.Random(100 + number).uniform(1.0, 8.0))
    driver.kill()
    driver.communicate()
    assert wait_until(lambda: not workers_of(two_nodes))  # the cluster is left as it was
    before = {path: path.stat().st_mtime_ns for path in sweep.path.glob("[0-9]*/result.json")}
    code, said = command_line(*FLAGS, f"resume={sweep.path}", *words_for(two_nodes)[1:])
    assert code == 0, said
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())  # none ran again
    same(sweep, LONG)


STOPS = [(signal.SIGINT, 130, "alone"), (signal.SIGTERM, 143, "linear"), (signal.SIGTERM, 143, "alone")]


@IN_FULL
@pytest.mark.parametrize(("number", "code", "model"), STOPS)
def test_a_signal_brings_home_what_is_needed_to_resume(number: int, code: int, model: str, two_nodes: Any) -> None:
    words = [f"model={model}", "lr=0.01,0.1", "batch_size=1,5", "epochs=100000", "sweep.snapshot=1"]
    sweep = SweepFolder(Path(f"stopped_{model}_{number}"))
    driver = started_driver([*words, *words_for(two_nodes, workers=2)], sweep.path.name)
    assert wait_until(lambda: len(list(sweep.path.glob("works/*"))) > 1 or driver.poll() is not None)
    time.sleep(4.0)
    driver.send_signal(number)
    said, _ = driver.communicate(timeout=60)
    assert driver.returncode == code, said
    assert "Traceback" not in said
    assert "stopping 2 worker processes" in said
    assert f"to resume: python train.py --config-dir my_conf -m resume={sweep.path.name}" in said
    assert len(list(sweep.path.glob("works/*/stacks/*.pt" if model == "linear" else "works/*/*/last.ckpt"))) == 2
    assert not list(sweep.path.glob("works/*/bundle.json"))
    assert wait_until(lambda: not workers_of(two_nodes))


@IN_FULL
def test_a_stack_that_was_stopped_goes_on_from_its_snapshot_on_any_node(two_nodes: Any) -> None:
    words = ["model=linear", "lr=0.01,0.1", "batch_size=1", "epochs=800", "sweep.snapshot=0"]
    sweep = SweepFolder(Path("goes_on"))
    driver = started_driver([*words, *words_for(two_nodes, workers=1)], sweep.path.name)
    assert wait_until(lambda: (sweep.path / "works").exists() or driver.poll() is not None)
    assert wait_until(lambda: list(sweep.path.glob("works/*")) or driver.poll() is not None)
    time.sleep(1.0)
    driver.terminate()
    said, _ = driver.communicate(timeout=60)
    assert driver.returncode == 143, said
    (history,) = sweep.path.glob("works/*/stacks/*.history")
    size = history.stat().st_size
    assert size > 0
    sent, give = list[int](), RayHandle.give

    def noted(handle: RayHandle, folder: Path, text: str) -> None:
        sent.extend(path.stat().st_size for path in folder.glob("stacks/*.history"))
        give(handle, folder, text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RayHandle, "give", noted)
        code, said = command_line(*FLAGS, f"resume={sweep.path}", *words_for(two_nodes)[1:])
    assert (code, sent) == (0, [size]), said
    same(sweep, words)


@IN_FULL
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_ray_that_was_started_for_a_sweep_ends_with_it(number: int, folder: Path) -> None:
    sweep = SweepFolder(Path(f"local_{number}"))
    words = [RAY, "hydra.launcher.address=local", "hydra.launcher.workers=2"]
    mark = uuid.uuid4().hex
    driver = started_driver([*LONG, *words], sweep.path.name, mark)
    assert wait_until(lambda: (sweep.path / "works").exists() or driver.poll() is not None)
    processes = descendants(driver.pid)  # those of Ray overwrite their environment
    assert len(processes) > 6
    driver.send_signal(number)
    said, _ = driver.communicate(timeout=60)
    assert driver.returncode == (-9 if number == signal.SIGKILL else 128 + number), said
    assert wait_until(lambda: not marked(mark) and not any(map(alive, processes)), 30)
    code, said = command_line(*FLAGS, f"resume={sweep.path}")
    assert code == 0, said
    same(sweep, LONG)


# ---------------------------------------------------------------- what workers hand back


def tear(pieces: list[bytes]) -> list[bytes]:
    return [*pieces[:-1], pieces[-1][:-10]]


def alter(pieces: list[bytes]) -> list[bytes]:
    last = bytearray(pieces[-1])
    last[-20] ^= 1
    return [*pieces[:-1], bytes(last)]


def lengthen(pieces: list[bytes]) -> list[bytes]:
    return [*pieces, b"more"]


def name_another(pieces: list[bytes]) -> list[bytes]:
    return [pieces[0].replace(b'"path": "1/', b'"path": "../', 1), *pieces[1:]]


def replace(pieces: list[bytes]) -> list[bytes]:
    return [b"something else"]


def claim_too_much(pieces: list[bytes]) -> list[bytes]:
    head = len(b"holdfast bundle 1\n")
    return [pieces[0][:head] + b"\xff" * 8 + pieces[0][head + 8 :], *pieces[1:]]


@IN_FULL
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(
    "damage", [tear, alter, lengthen, name_another, replace, claim_too_much], ids=lambda each: each.__name__
)
def test_a_bundle_that_cannot_be_believed_is_refused(
    damage: Callable[[list[bytes]], list[bytes]], times: int, two_nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces, left = RayHandle._pieces, [times]

    def disturbed(handle: RayHandle, first: bytes) -> Iterator[bytes]:
        arrived = list(pieces(handle, first))
        if left[0] and handle._folder is not None and handle._folder.path.name == "1":  # job 1 alone is disturbed
            left[0] -= 1
            arrived = damage(arrived)
        yield from arrived

    monkeypatch.setattr(RayHandle, "_pieces", disturbed)
    code, said, sweep = swept([*SHORT, *words_for(two_nodes)])
    assert "what its worker process handed back was refused" in said
    assert "trying once more" in said
    assert not (sweep.path / "works").exists()
    if times == 1:
        assert code == 0, said
        same(sweep, SHORT)
    else:
        assert code == 1
        assert "job 1 (lr=0.1) failed: what its worker process handed back was refused" in said
        assert [sweep.job(number).read().status for number in range(3)] == ["completed", "failed", "completed"]


# ---------------------------------------------------------------- what workers lack


@IN_FULL
@pytest.mark.parametrize("how", ["missing", "changed", "altered on its way"])
def test_a_worker_without_the_user_s_module_refuses_its_work_by_name(
    how: str, folder: Path, two_nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"mine_{how[:7]}"
    (folder / f"{name}.py").write_text(MODULES)
    collect = ray_pool.collect

    def lacking() -> Sources:
        sources = collect()
        if how == "missing":
            del sources.files[f"{name}.py"]
        else:
            sources.files[f"{name}.py"] += "\n# another version\n"
        return sources

    if how == "altered on its way":
        text = Sources.as_text
        monkeypatch.setattr(Sources, "as_text", lambda sources: text(sources).replace("import", "improt", 1))
    else:
        monkeypatch.setattr(ray_pool, "collect", lacking)
    words = ["model=ordinary", f"model._target_={name}.Ordinary", "lr=0.01,0.1", "epochs=2", *words_for(two_nodes)]
    code, said, sweep = swept(words)
    assert code == 1
    if how == "altered on its way":
        assert "the user's modules were altered on their way" in said
        return
    why = f"cannot import {name}.Ordinary" if how == "missing" else f"another version of the module {name}"
    for number in (0, 1):
        assert why in sweep.job(number).read().error
        assert "(on node " in sweep.job(number).read().error
    assert "trying once more" not in said


@IN_FULL
def test_a_module_that_is_edited_while_the_sweep_runs_is_still_the_one_that_travelled(
    folder: Path, two_nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = folder / "mine_edited.py"
    module.write_text(MODULES)
    collect = ray_pool.collect

    def edited() -> Sources:
        sources = collect()
        module.write_text("raise RuntimeError('edited')")
        return sources

    monkeypatch.setattr(ray_pool, "collect", edited)
    words = ["model=alone", "model._target_=mine_edited.Alone", "epochs=2", "lr=0.01,0.1", *words_for(two_nodes)]
    code, said, _ = swept(words)
    assert code == 0, said


@IN_FULL
@pytest.mark.parametrize("name", ["torch", "holdfast", "python"])
def test_a_node_with_other_versions_is_refused(
    name: str, tmp_path: Path, two_nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = words_for(two_nodes)
    if name == "torch":  # one that the node itself takes for installed
        metadata = tmp_path / "torch-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 1.0\n")
        words.append(f"hydra.launcher.runtime_env={{env_vars: {{PYTHONPATH: '{search_path(tmp_path)}'}}}}")
    else:
        now = versions()
        monkeypatch.setattr(ray_starter, "versions", lambda: {**now, name: "2.9.1"})
    code, said, _ = swept([*SHORT, *words])
    assert code == 1
    assert f"has other versions than this computer, so that its numbers might differ:\n  {name} is " in said
    assert "to resume: python train.py" in said
    assert said.count(" there and ") == 1


def search_path(first: Path) -> str:
    import holdfast

    return f"{first}:{Path(holdfast.__file__).parents[1]}"


@IN_FULL
def test_a_node_without_holdfast_is_told_by_name(tmp_path: Path, two_nodes: Any) -> None:
    (tmp_path / "holdfast").mkdir()
    (tmp_path / "holdfast/__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'holdfast'\")")
    words = [f"hydra.launcher.runtime_env={{env_vars: {{PYTHONPATH: '{tmp_path}'}}}}", *words_for(two_nodes)]
    code, said, _ = swept([*SHORT, *words])
    assert code == 1
    assert "a worker cannot begin on a node of the Ray cluster" in said
    assert "No module named 'holdfast'" in said
    assert "Traceback" not in said


@IN_FULL
def test_a_table_that_is_not_on_the_node_is_told_by_name(
    folder: Path, two_nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = "\n".join(f"{number},{3 * number % 7},{number % 5}" for number in range(60))
    (folder / "table.csv").write_text(f"a,b,y\n{rows}\n")
    words = ["data=table", "data.path=table.csv", "data.target=y", "data.task=regression", "lr=0.01,0.1", "epochs=1"]
    code, said, sweep = swept([*words, *words_for(two_nodes)])
    assert code == 0, said
    same(sweep, words)
    monkeypatch.setattr(ray_starter, "os", SimpleNamespace(getcwd=lambda: "/a/folder/of/the/driver"))
    code, said, sweep = swept([*words, *words_for(two_nodes)])
    assert code == 1
    assert "the table table.csv is not on the node" in sweep.job(0).read().error


@IN_FULL
def test_a_disk_of_a_node_that_is_full_stops_the_sweep(tmp_path: Path, two_nodes: Any) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        words = ["lr=0.01,0.1", "seed=range(200)", f"hydra.launcher.runtime_env={{env_vars: {{TMPDIR: '{tmp_path}'}}}}"]
        code, said, _ = swept([*words, *words_for(two_nodes)])
        assert code == 1, said[:600]
        assert "No space left on device" in said
        assert "to resume: python train.py" in said
        assert "Traceback" not in said
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


# ---------------------------------------------------------------- where there is no room, or no Ray


@IN_FULL
@pytest.mark.parametrize(
    ("key", "needs"), [("cpus_per_worker=64", "64 CPUs"), ("gpus_per_worker=0.5", "1 CPU and 0.5")]
)
def test_no_room_is_told_in_time(key: str, needs: str, two_nodes: Any) -> None:
    began = time.monotonic()
    words = [*words_for(two_nodes, placement_timeout=3), f"hydra.launcher.{key}"]
    code, said, sweep = swept([*SHORT, *words])
    assert code == 1
    assert time.monotonic() - began < 30
    assert "no worker has found room in the Ray cluster within 3 s" in said
    assert f"A worker needs {needs}" in said
    assert "2 nodes have 1 CPUs and 0 GPUs" in said
    assert "Traceback" not in said
    code, said = command_line(*FLAGS, f"resume={sweep.path}", "hydra/launcher=stacked")
    assert code == 0, said


@IN_FULL
def test_a_sweep_goes_on_with_the_workers_that_have_found_room(two_nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    skipped = 0.0  # seconds of the wait for room: a slow computer may need any time until the first worker begins

    def begin(*words: Any) -> RayHandle:
        nonlocal skipped
        skipped = 1000.0
        return RayHandle(*words)

    monkeypatch.setattr(ray_starter, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + skipped))
    monkeypatch.setattr(ray_starter, "RayHandle", begin)
    words = [*SHORT, "sweep.stack=never"]
    code, said, sweep = swept([*words, *words_for(two_nodes, workers=3, placement_timeout=300)])
    assert code == 0, said
    assert "of 3 workers have found room; the others begin when there is some" in said
    same(sweep, words)


def test_an_address_where_nothing_listens_is_told_at_once(folder: Path) -> None:
    code, said, _ = swept([*SHORT, RAY, f"hydra.launcher.address=127.0.0.1:{free_port()}"])
    assert code == 1
    assert "no Ray cluster answers at 127.0.0.1:" in said
    assert "ray start --head --port=" in said


@IN_FULL
def test_an_address_where_something_else_listens_is_told(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        code, said, _ = swept([*SHORT, RAY, f"hydra.launcher.address=127.0.0.1:{listener.getsockname()[1]}"])
    assert code == 1
    assert "no Ray cluster answers at" in said
    assert "Traceback" not in said


def test_the_address_of_a_killed_cluster_is_not_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    path = tmp_path / "ray" / "ray_current_cluster"
    path.parent.mkdir()
    path.write_text(f"127.0.0.1:{free_port()}")
    assert ray_session.running_cluster() is None


@IN_FULL
def test_what_ray_cannot_prepare_is_told(two_nodes: Any) -> None:
    code, said, _ = swept([*SHORT, "hydra.launcher.runtime_env={pip: ['/nowhere/at/all.whl']}", *words_for(two_nodes)])
    assert code == 1
    assert "runtime_env" in said
    assert "Traceback" not in said
