"""`hydra/launcher=ray`, as a user meets it: the same bits, on any number of workers and nodes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.clusters import ray_keys, ray_worker
from holdfast.store.folders import SweepFolder
from tests.clusters.ray_cluster import RAY, cluster, words_for
from tests.conftest import command_line
from tests.full import ALL, IN_FULL
from tests.workers.swept import EVERYTHING, FLAGS, contents, digest, write_modules

pytest.importorskip("ray", reason="needs the extra ray")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path, before = tmp_path_factory.mktemp("ray"), Path.cwd()
    write_modules(path)
    os.chdir(path)
    yield path
    os.chdir(before)


@pytest.fixture(scope="module")
def three_nodes(folder: Path) -> Iterator[Any]:
    with cluster({"num_cpus": 1}, {"num_cpus": 1, "num_gpus": 1}, {"num_cpus": 2, "num_gpus": 2}) as started:
        yield started


@pytest.fixture(scope="module")
def by_default(folder: Path) -> SweepFolder:
    code, said = command_line(*EVERYTHING, "hydra.sweep.dir=default")
    assert code == 1, said  # jobs failed
    return SweepFolder(folder / "default")


@pytest.mark.parametrize("workers", [2, *([1, "auto"] if ALL else [])])
def test_one_digest_whatever_the_number_of_workers_and_nodes(
    workers: int | str, folder: Path, three_nodes: Any, by_default: SweepFolder
) -> None:
    name = f"with_{workers}"
    code, said = command_line(*EVERYTHING, *words_for(three_nodes, workers=workers), f"hydra.sweep.dir={name}")
    assert code == 1, said
    sweep = SweepFolder(folder / name)
    assert contents(sweep) == contents(by_default)
    assert digest(sweep) == digest(by_default)
    assert "job 9 (model=failing lr=0.01) failed: RuntimeError: as asked (swept_modules.py, line" in said
    left = {path.name for path in sweep.path.iterdir()} ^ {path.name for path in by_default.path.iterdir()}
    assert not left
    (record,) = json.loads(sweep.sweep.read_text())["plan"]["works"]
    assert (record["threads"], record["accelerator"], record["devices"]) == (1, "cpu", 1)


def test_keys_that_cannot_be_are_refused_with_all_other_problems(folder: Path) -> None:
    words = ["address=ray://here:1", "workers=0", "cpus_per_worker=1.5", "gpus_per_worker=2", "retries=-1"]
    words += ["placement_timeout=0", "runtime_env=[1]"]
    code, said = command_line(
        "-m", "lr=0.1,-1", RAY, *(f"hydra.launcher.{word}" for word in words), "hydra.sweep.dir=no"
    )
    assert code == 2
    assert all(f"hydra.launcher.{word.partition('=')[0]}=" in said for word in words)
    assert "lr=-1" in said
    assert "8 problems" in said
    assert not (folder / "no").exists()


def test_without_ray_one_error_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_keys, "find_spec", lambda name: None)
    code, said = command_line("-m", "lr=0.1,0.2", RAY, "hydra.sweep.dir=no")
    assert (code, "pip install 'holdfast[ray]'" in said) == (2, True)


@IN_FULL
@pytest.mark.parametrize("gpus", [1, 0.5, 0])
def test_never_two_works_on_one_gpu_unless_asked(gpus: float, folder: Path, three_nodes: Any) -> None:
    """Jobs of unequal length on faked GPUs: each notes when it began and ended, where, and what it could see."""
    (folder / "gpu_notes.py").write_text(
        "import os, pathlib, time\n"
        "import lightning.pytorch as pl\n"
        "class Notes(pl.Callback):\n"
        "    def __init__(self, number):\n"
        "        self.number = number\n"
        "    def on_fit_start(self, trainer, pl_module):\n"
        "        began = time.time()\n"
        "        time.sleep(0.3 + 0.3 * (self.number % 3))\n"
        "        gpu = os.environ.get('CUDA_VISIBLE_DEVICES', 'unset') or 'none'\n"
        "        node = os.environ.get('RAY_RAYLET_PID', '-')\n"
        "        pathlib.Path(f'gpu_{self.number}.txt').write_text(f'{node}:{gpu} {began} {time.time()}')\n"
    )
    (folder / "my_conf/callbacks").mkdir(exist_ok=True)
    (folder / "my_conf/callbacks/gpus.yaml").write_text(
        "defaults: [default]\nnotes: {_target_: gpu_notes.Notes, number: '${hydra:job.num}'}\n"
    )
    words = [*FLAGS, "callbacks=gpus", "seed=range(8)", "epochs=1", "accelerator=cpu", "report=false"]
    keys = words_for(three_nodes, gpus_per_worker=gpus, cpus_per_worker=0.5)
    code, said = command_line(*words, *keys, f"hydra.sweep.dir=gpus_{str(gpus).replace('.', '_')}")
    assert code == 0, said
    by_gpu: dict[str, list[tuple[float, float]]] = {}
    for number in range(8):
        gpu, began, ended = (folder / f"gpu_{number}.txt").read_text().split()
        by_gpu.setdefault(gpu, []).append((float(began), float(ended)))
    if gpus == 0:
        assert all(gpu.endswith(":none") for gpu in by_gpu)
        return
    assert len(by_gpu) > 1
    for gpu, times in by_gpu.items():
        assert gpu.rpartition(":")[2] in ("0", "1")  # one, never two
        at_once = max(sum(began <= moment < ended for began, ended in times) for moment, _ in times)
        assert at_once <= 1 / gpus


def test_folders_of_workers_that_were_killed_are_removed(tmp_path: Path) -> None:
    killed, lock = ray_worker.new_folder(tmp_path)
    os.close(lock)  # as the system does for a process that is killed
    alive, _ = ray_worker.new_folder(tmp_path)
    other, _ = ray_worker.new_folder(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([alive, other])
    assert killed not in (alive, other)
