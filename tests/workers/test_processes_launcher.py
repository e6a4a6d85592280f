"""`hydra/launcher=processes`, as a user meets it: the same bits, whatever the number of processes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.store.folders import SweepFolder
from tests.conftest import command_line
from tests.workers.swept import EVERYTHING, FLAGS, contents, digest, working_in

PROCESSES = "hydra/launcher=processes"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with working_in(tmp_path_factory.mktemp("processes")) as path:
        yield path


@pytest.fixture(scope="module")
def by_default(folder: Path) -> SweepFolder:
    code, said = command_line(*EVERYTHING, "hydra.sweep.dir=default")
    assert code == 1, said  # jobs failed
    assert "12 jobs: 2 stacks" in said
    return SweepFolder(folder / "default")


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_one_digest_whatever_the_number_of_processes(workers: int, folder: Path, by_default: SweepFolder) -> None:
    words = [*EVERYTHING, PROCESSES, f"hydra.launcher.workers={workers}", f"hydra.sweep.dir=with_{workers}"]
    code, said = command_line(*words)
    assert code == 1, said
    sweep = SweepFolder(folder / f"with_{workers}")
    assert contents(sweep) == contents(by_default)
    assert digest(sweep) == digest(by_default)
    assert "job 9 (model=failing lr=0.01) failed: RuntimeError: as asked (swept_modules.py, line" in said
    left = {path.name for path in sweep.path.iterdir()} ^ {path.name for path in by_default.path.iterdir()}
    assert not left
    (record,) = json.loads(sweep.sweep.read_text())["plan"]["works"]
    assert (record["threads"], record["accelerator"], record["devices"]) == (1, "cpu", 1)


def test_a_job_has_its_log_its_environment_and_its_working_folder(folder: Path) -> None:
    (folder / "notes.py").write_text(
        "import logging, os, pathlib\n"
        "import lightning.pytorch as pl\n"
        "from hydra.core.hydra_config import HydraConfig\n"
        "class Notes(pl.Callback):\n"
        "    def __init__(self, number, folder):\n"
        "        self.number, self.folder = number, folder\n"
        "    def on_fit_end(self, trainer, pl_module):\n"
        "        logging.getLogger('mine').info('this is job %s', self.number)\n"
        "        hydra = HydraConfig.get()\n"
        "        folder = hydra.runtime.output_dir\n"
        "        text = [os.environ['MINE'], str(hydra.job.num == self.number), folder == self.folder]\n"
        "        pathlib.Path('noted.txt').write_text(repr(text))\n"
    )
    (folder / "my_conf/callbacks").mkdir()
    (folder / "my_conf/callbacks/noted.yaml").write_text(
        "defaults: [default]\nnotes: {_target_: notes.Notes, number: '${hydra:job.num}', "
        "folder: '${hydra:runtime.output_dir}'}\n"
    )
    words = [*FLAGS, "callbacks=noted", "lr=0.01,0.1", "epochs=1", "report=false", "+hydra.job.env_set.MINE=7"]
    code, said = command_line(*words, "hydra.job.chdir=true", PROCESSES, "hydra.sweep.dir=noted")
    assert code == 0, said
    for number in (0, 1):
        job = SweepFolder(folder / "noted").job(number)
        assert (job.path / "noted.txt").read_text() == "['7', 'True', True]"
        assert f"[mine][INFO] this is job {number}" in job.log.read_text()
        assert (job.path / ".hydra/overrides.yaml").read_text().startswith("- callbacks=noted")
    assert "MINE" not in os.environ


def test_callbacks_of_hydra_are_called_by_the_driver(folder: Path) -> None:
    (folder / "hydras.py").write_text(
        "import pathlib\n"
        "from hydra.experimental.callback import Callback\n"
        "def note(text):\n"
        "    with pathlib.Path('called.txt').open('a') as stream:\n"
        "        stream.write(f'{text}\\n')\n"
        "class Notes(Callback):\n"
        "    def on_job_start(self, config, **kwargs):\n"
        "        note(f'start {config.hydra.job.num}')\n"
        "    def on_job_end(self, config, job_return, **kwargs):\n"
        "        note(f'end {config.hydra.job.num} {job_return.status.name}')\n"
    )
    words = [*FLAGS, "model=alone,failing", "epochs=2", "report=false", PROCESSES, "hydra.sweep.dir=called"]
    code, said = command_line(*words, "+hydra.callbacks.mine._target_=hydras.Notes")
    assert code == 1, said
    lines = (folder / "called.txt").read_text().splitlines()
    assert sorted(lines) == ["end 0 COMPLETED", "end 1 FAILED", "start 0", "start 1"]


@pytest.mark.parametrize("workers", ["0", "-1", "two", "1.5", "true"])
def test_a_number_of_workers_that_cannot_be_is_refused_with_all_other_problems(workers: str, folder: Path) -> None:
    code, said = command_line("-m", "lr=0.1,-1", PROCESSES, f"hydra.launcher.workers={workers}", "hydra.sweep.dir=no")
    assert code == 2
    assert "must be auto, or a number of processes from 1 on" in said
    assert "lr=-1" in said
    assert not (folder / "no").exists()


def test_batches_and_a_process_for_each_work(folder: Path) -> None:
    words = [*FLAGS, "model=alone", "lr=0.01,0.1,0.2", "epochs=1", "report=false", PROCESSES]
    code, said = command_line(
        *words, "hydra.launcher.fresh=true", "hydra.sweeper.max_batch_size=2", "hydra.sweep.dir=fresh"
    )
    assert code == 0, said
    assert said.count("plan: ") == 2
    names = [path.name for path in folder.glob("fresh/*/events.out.tfevents.*") if "test" not in path.name]
    assert len({name.split(".")[-2] for name in names}) == 3  # process ids
    again, said = command_line("-m", "resume=fresh", "--config-dir", "my_conf")
    assert (again, "this sweep is finished; nothing was done" in said) == (0, True)


def test_another_sweeper_is_refused(folder: Path) -> None:
    code, said = command_line("-m", "lr=0.1,0.2", PROCESSES, "hydra/sweeper=basic", "hydra.sweep.dir=no")
    assert code == 2
    assert "stacks are planned by hydra/sweeper=holdfast" in said
