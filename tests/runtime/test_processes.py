"""A process trains a run alone, unless it was started together with others to train one run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.mpi import MPIEnvironment
from lightning_utilities.core.rank_zero import rank_zero_only

from holdfast.cli.main import CONF
from holdfast.compose.recompose import compose
from holdfast.data import Line
from holdfast.errors import FolderError
from holdfast.runtime import processes as ranks
from holdfast.single.build import build_trainer
from holdfast.store import lock as claims
from holdfast.store.folders import RunFolder
from holdfast.store.lock import await_leader, locked
from tests.conftest import ROOT, Ran, command_line

Run = Callable[..., Ran]
VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
TWO = ["devices=2", "accelerator=cpu", "trainer.strategy=ddp", "epochs=2", "batch_size=5", "hydra.run.dir=run"]
ITERATIONS = 2 * 60 // (2 * 5)


def task(rank: int, tasks: int = 2) -> dict[str, str]:
    """The variables that `srun -n` sets for a task on one computer."""
    numbers = {"NTASKS": tasks, "PROCID": rank, "LOCALID": rank, "NODEID": 0, "JOB_ID": 4242, "STEP_ID": 0}
    names = {"JOB_NAME": "job", "NODELIST": "localhost"}
    return {f"SLURM_{name}": str(value) for name, value in {**numbers, **names}.items()}


def worker(rank: int, workers: int = 2) -> dict[str, str]:
    """The variables that torchrun sets for a process on one computer."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": workers, "LOCAL_WORLD_SIZE": workers}
    address = {"MASTER_ADDR": "localhost", "TORCHELASTIC_RUN_ID": "id"}
    return {**{name: str(value) for name, value in numbers.items()}, **address}


def start(environment: dict[str, str], *overrides: str, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "train.py"), *overrides]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=cwd, env={**os.environ, **environment}, **pipes)


def output(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What a process prints until it ends; after two minutes it is killed, as it waits for others in vain."""
    try:
        return process.communicate(timeout=120)
    finally:
        process.kill()


@pytest.fixture(params=VARIABLES)
def left_over(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A left-over variable, and Lightning as if it had read its rank from it."""
    monkeypatch.setenv(request.param, "1")
    monkeypatch.setattr(rank_zero_only, "rank", 1)


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_run_ignores_a_left_over_variable(variable: str, tmp_path: Path) -> None:
    process = start({variable: "1"}, "epochs=1", "hydra.run.dir=run", cwd=tmp_path)
    out, err = output(process)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("best val/loss")
    assert RunFolder(tmp_path / "run").read()


@pytest.mark.usefixtures("left_over")
def test_a_run_ignores_a_left_over_variable_that_lightning_has_read(holdfast: Run) -> None:
    before = dict(os.environ)
    first = holdfast("epochs=1")
    assert (first.code, first.result.status) == (0, "completed")
    first.folder.result.unlink()
    assert command_line(f"resume={first.folder.path}", "report=true")[0] == 0
    assert first.result.status == "completed"
    assert command_line("report", str(first.folder.path))[0] == 0
    assert rank_zero_only.rank == 0
    assert dict(os.environ) == before


@pytest.mark.usefixtures("left_over")
@pytest.mark.parametrize("launcher", ["stacked", "basic"])
def test_a_sweep_ignores_a_left_over_variable(launcher: str, holdfast: Run, tmp_path: Path) -> None:
    overrides = ["epochs=1", "lr=0.1,0.01", "report=false", f"hydra/launcher={launcher}", "hydra.sweep.dir=sweep"]
    assert holdfast("-m", *overrides).code == 0
    assert json.loads((tmp_path / "sweep" / "selection.json").read_text())["winner"] == 0
    assert [RunFolder(tmp_path / "sweep" / str(job)).read() is None for job in range(2)] == [False, False]


def test_two_devices_are_two_processes_despite_left_over_variables(tmp_path: Path) -> None:
    left = {**task(1, tasks=3), **worker(1, workers=3), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    process = start(left, *TWO, cwd=tmp_path)
    _, err = output(process)
    assert process.returncode == 0, err
    assert json.loads((tmp_path / "run" / "result.json").read_text())["iterations"] == ITERATIONS


@pytest.mark.parametrize("launcher", [task, worker])
def test_processes_that_were_started_together_train_one_run(
    launcher: Callable[[int], dict[str, str]], tmp_path: Path
) -> None:
    with socket.create_server(("localhost", 0)) as server:
        port = {"MASTER_PORT": str(server.getsockname()[1])}

    def together(*overrides: str) -> list[str]:
        processes = [start({**launcher(rank), **port}, *overrides, cwd=tmp_path) for rank in (1, 0)]
        outputs = [output(process) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], outputs
        return [out for out, _ in outputs]

    other, first = together(*TWO, "test=true")
    assert first.startswith("best val/loss")
    assert other == ""
    folder = RunFolder(tmp_path / "run")
    result = folder.read()
    assert result is not None
    assert (result.status, result.iterations, result.test_opened) == ("completed", ITERATIONS, 1)
    assert folder.config.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert "nothing was done" in together("resume=run")[1]
    folder.result.unlink()
    assert together("resume=run", "test_again=true")[1].startswith("best val/loss")
    again = folder.read()
    assert again is not None
    assert (again.best, again.iterations, again.test_opened) == (result.best, result.iterations, 2)


def test_processes_that_were_started_together_need_a_folder_chosen_by_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for rank in (0, 1):
        with monkeypatch.context() as patched:
            for name, value in task(rank).items():
                patched.setenv(name, value)
            code, text = command_line("devices=2", "accelerator=cpu")
        assert code == 2
        assert "SLURM job 4242.0 train one run: add hydra.run.dir=" in text
    assert not list(tmp_path.iterdir())


def test_several_machines_need_processes_that_were_started_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = command_line("trainer.num_nodes=2")
    assert (code, "srun or torchrun" in text) == (2, True)
    assert not list(tmp_path.iterdir())


def test_mpi_does_not_decide_which_process_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MPIEnvironment, "detect", lambda: True)
    trainer = build_trainer(compose(["devices=2", "accelerator=cpu"], CONF), Line())
    assert isinstance(trainer._accelerator_connector.cluster_environment, LightningEnvironment)
    assert trainer.is_global_zero


ALONE: tuple[None, int] = (None, 0)
CASES: dict[str, tuple[list[str], dict[str, str], tuple[str | None, int]]] = {
    "one device": ([], {**task(1, 1), **worker(1, 1)}, ALONE),
    "several tasks, one device": ([], task(1), ALONE),
    "fewer devices than tasks": (["devices=2"], task(1, 4), ALONE),
    "as many devices as there are": (["devices=auto"], task(1), ALONE),
    "a shell of SLURM": (["devices=2"], {**task(1), "SLURM_JOB_NAME": "bash"}, ALONE),
    "half of SLURM": (["devices=2"], {"SLURM_NTASKS": "2", "SLURM_PROCID": "1"}, ALONE),
    "no numbers": (["devices=2"], {**dict.fromkeys(task(1), "x"), **dict.fromkeys(worker(1), "")}, ALONE),
    "a task for each device": (["devices=2"], task(1), ("SLURM", 1)),
    "devices by number": (["devices=[0,1]"], task(0), ("SLURM", 0)),
    "two computers": (["devices=2", "trainer.num_nodes=2"], {**task(3, 4), "SLURM_NODEID": "1"}, ("SLURM", 3)),
    "torchrun": (["devices=2"], worker(1), ("torchrun", 1)),
    "torchrun in SLURM": (["devices=2"], {**task(0), **worker(1)}, ("torchrun", 1)),
    "torchrun elsewhere": (["devices=2"], {**task(1), **worker(1, 4)}, ("SLURM", 1)),
    "what Lightning sets for a process that it starts": (
        ["devices=2"],
        {"LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"},
        ALONE,
    ),
    "the same, with all devices": (["devices=auto"], {"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, ALONE),
}


@pytest.mark.parametrize("case", CASES)
def test_variables_count_only_where_they_fit_the_devices(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    overrides, environment, expected = CASES[case]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    config = compose(overrides, CONF)
    with ranks.entered(config) as launch:
        assert (launch.starter, launch.rank) == expected
        assert ranks.current() == launch
        left = {name for name in environment if name in os.environ}
        if launch.starter is None:
            assert left <= {"SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_JOB_NAME", "SLURM_NODELIST"}
        else:
            assert "TORCHELASTIC_RUN_ID" not in left or launch.starter == "torchrun"
            assert "SLURM_NTASKS" not in left or launch.starter == "SLURM"
        with ranks.single_process():
            assert ranks.current().rank == 0
        assert ranks.current() == launch
    assert ranks.current().starter is None
    assert {name: os.environ.get(name) for name in environment} == environment


def test_processes_wait_for_the_first_process_of_the_same_launch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "LONGEST_WAIT", 0.2)
    RunFolder(tmp_path).started.write_text("{}")  # of an earlier run
    with pytest.raises(FolderError, match="first process of SLURM job 2 has begun no run"):
        await_leader(tmp_path, "SLURM job 2")
    with locked(tmp_path, "SLURM job 1"), pytest.raises(FolderError):
        await_leader(tmp_path, "SLURM job 2")
    with locked(tmp_path, "SLURM job 2"):
        await_leader(tmp_path, "SLURM job 2")
        RunFolder(tmp_path).started.unlink()
        with pytest.raises(FolderError):
            await_leader(tmp_path, "SLURM job 2")
