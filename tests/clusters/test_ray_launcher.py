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
from tests.workers.gpu_notes import WORDS, most_at_once, times_by_gpu, write_notes
from tests.workers.swept import EVERYTHING, FLAGS, contents, digest, working_in

pytest.importorskip("ray", reason="needs the extra ray")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with working_in(tmp_path_factory.mktemp("ray")) as path:
        yield path


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
    write_notes(folder)
    keys = words_for(three_nodes, gpus_per_worker=gpus, cpus_per_worker=0.5)
    code, said = command_line(*FLAGS, *WORDS, *keys, f"hydra.sweep.dir=gpus_{str(gpus).replace('.', '_')}")
    assert code == 0, said
    by_gpu = times_by_gpu(folder)
    if gpus == 0:
        assert {gpu for _, gpu in by_gpu} == {"none"}
        return
    assert len(by_gpu) > 1
    assert {gpu for _, gpu in by_gpu} <= {"0", "1"}  # one, never two
    assert all(most_at_once(times) <= 1 / gpus for times in by_gpu.values())


def test_folders_of_workers_that_were_killed_are_removed(tmp_path: Path) -> None:
    killed, lock = ray_worker.new_folder(tmp_path)
    os.close(lock)  # as the system does for a process that is killed
    alive, _ = ray_worker.new_folder(tmp_path)
    other, _ = ray_worker.new_folder(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([alive, other])
    assert killed not in (alive, other)
