"""`hydra/launcher=slurm` on a real SLURM: the same bits as with the default launcher."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.store.folders import SweepFolder
from tests.clusters.slurm_sweeps import NEEDS_SLURM, SLURM, arrays, in_folder, resumed, swept
from tests.conftest import command_line
from tests.full import ALL, IN_FULL
from tests.workers.swept import EVERYTHING, contents, digest

pytestmark = NEEDS_SLURM


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with in_folder(tmp_path_factory.mktemp("slurm")) as path:
        yield path


def test_one_digest_as_with_the_default_launcher(folder: Path) -> None:
    # by default without the jobs that train alone, each of which is an element that imports torch
    words = EVERYTHING if ALL else [word.replace(",alone,failing", "") for word in EVERYTHING]
    code, said = command_line(*words, "hydra.sweep.dir=default")
    assert code == (1 if ALL else 0), said
    again, told = command_line(*words, SLURM, "hydra.sweep.dir=slurm")
    assert again == code, told
    by_default, sweep = SweepFolder(folder / "default"), SweepFolder(folder / "slurm")
    assert contents(sweep) == contents(by_default)
    assert digest(sweep) == digest(by_default)
    assert not {path.name for path in sweep.path.iterdir()} ^ {path.name for path in by_default.path.iterdir()}
    (record,) = json.loads(sweep.sweep.read_text())["plan"]["works"]
    assert (record["threads"], record["accelerator"], record["devices"]) == (1, "cpu", 1)
    assert len(arrays(sweep)) == 1
    if ALL:
        assert "job 9 (model=failing lr=0.01) failed: RuntimeError: as asked (swept_modules.py, line" in told
    finished = resumed(sweep)
    assert (finished[0], "nothing was done" in finished[1]) == (code, True)


@IN_FULL
def test_two_devices_are_two_tasks_of_slurm(folder: Path) -> None:
    (folder / "tasks.py").write_text(
        "import os, pathlib\n"
        "import lightning.pytorch as pl\n"
        "class Tasks(pl.Callback):\n"
        "    def on_fit_end(self, trainer, pl_module):\n"
        "        text = [trainer.world_size, trainer.global_rank, os.environ['SLURM_NTASKS']]\n"
        "        pathlib.Path(f'task_{os.environ[\"SLURM_PROCID\"]}.txt').write_text(repr(text))\n"
    )
    (folder / "my_conf/callbacks").mkdir(exist_ok=True)
    (folder / "my_conf/callbacks/tasks.yaml").write_text("defaults: [default]\ntasks: {_target_: tasks.Tasks}\n")
    words = ["model=alone", "lr=0.01,0.1", "epochs=2", "devices=2", "accelerator=cpu"]
    code, said, by_default = swept("default_2", *words)
    assert code == 0, said
    code, said, sweep = swept("slurm_2", *words, SLURM)
    assert code == 0, said
    assert contents(sweep) == contents(by_default)
    code, said, _ = swept("slurm_tasks", *words, "callbacks=tasks", SLURM)
    assert code == 0, said
    assert [(folder / f"task_{rank}.txt").read_text() for rank in (0, 1)] == ["[2, 0, '2']", "[2, 1, '2']"]


@IN_FULL
def test_a_job_on_two_tasks_that_fails_says_why(folder: Path) -> None:
    code, said, sweep = swept("failing_2", "model=failing,alone", "epochs=2", "devices=2", "accelerator=cpu", SLURM)
    assert code == 1
    assert "job 0 (model=failing) failed: RuntimeError: as asked" in said
    assert [sweep.job(number).read().status for number in (0, 1)] == ["failed", "completed"]


@IN_FULL
def test_keys_reach_the_elements(folder: Path) -> None:
    (folder / "keys.py").write_text(
        "import os, pathlib\n"
        "import lightning.pytorch as pl\n"
        "class Keys(pl.Callback):\n"
        "    def on_fit_end(self, trainer, pl_module):\n"
        "        names = ['MINE', 'SLURM_CPUS_PER_TASK', 'OMP_NUM_THREADS', 'SLURM_JOB_COMMENT']\n"
        "        pathlib.Path('keys.txt').write_text(repr([os.environ.get(name) for name in names]))\n"
    )
    (folder / "my_conf/callbacks").mkdir(exist_ok=True)
    (folder / "my_conf/callbacks/keys.yaml").write_text("defaults: [default]\nkeys: {_target_: keys.Keys}\n")
    keys = ["time=10", "cpus_per_task=1", "array_parallelism=1", "setup=['export MINE=7']", "additional.comment=a"]
    words = [*(f"hydra.launcher.{key}" for key in keys[:-1]), f"+hydra.launcher.{keys[-1]}", "partition=main"]
    words[-1] = f"hydra.launcher.{words[-1]}"
    code, said, sweep = swept("keys", "model=alone", "lr=0.1,0.2", "callbacks=keys", "epochs=1", SLURM, *words)
    assert code == 0, said
    assert (folder / "keys.txt").read_text().startswith("['7', '1', '1'")
    assert not (sweep.path / "slurm").exists()


def test_keys_that_cannot_work_are_refused_with_all_other_problems(folder: Path) -> None:
    words = [SLURM, "hydra.launcher.time=soon", "hydra.launcher.mem=8", "hydra.sweep.dir=no"]
    code, said = command_line("-m", "lr=0.1,-1", *words)
    assert code == 2
    for lesson in ("must be minutes, or a text", "must be a size such as 8GB", "lr=-1"):
        assert lesson in said
    assert not (folder / "no").exists()
    assert shutil.which("sbatch")


def test_another_sweeper_is_refused(folder: Path) -> None:
    code, said = command_line("-m", "lr=0.1,0.2", SLURM, "hydra/sweeper=basic", "hydra.sweep.dir=no")
    assert code == 2
    assert "stacks are planned by hydra/sweeper=holdfast" in said
