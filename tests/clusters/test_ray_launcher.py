"""`hydra/launcher=ray`, as a user meets it: the same bits, on any number of workers and nodes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.store.folders import SweepFolder
from tests.clusters.ray_cluster import cluster, words_for
from tests.conftest import command_line
from tests.workers.swept import EVERYTHING, contents, digest, write_modules

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


@pytest.mark.parametrize("workers", [1, 2, "auto"])
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
