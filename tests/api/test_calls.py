"""The Python API: the same numbers as from the command line, and a process that is left as it was."""

from __future__ import annotations

import csv
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import holdfast
from tests.conftest import command_line


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_importing_it_loads_nothing_heavy() -> None:
    heavy = "('torch', 'hydra', 'numpy', 'lightning')"
    code = f"import sys, holdfast; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_run_is_that_of_the_command_line() -> None:
    run = holdfast.run("lr=0.01", "epochs=3", "hydra.run.dir=here")
    assert command_line("lr=0.01", "epochs=3", "hydra.run.dir=there")[0] == 0
    assert run.path == Path("here")
    for name, value in torch.load("there/model.pth", weights_only=True).items():
        assert torch.equal(torch.load("here/model.pth", weights_only=True)[name], value)
    assert run.result["best"] == json.loads(Path("there/result.json").read_text())["best"]
    assert run.metrics["val/loss"].shape == (3,)
    assert run.metrics["train/loss_step"].shape == (180,)
    assert run.metrics["val/loss"].min() == pytest.approx(run.result["best"]["val/loss"], rel=1e-6)


def test_a_model_predicts_arrays_and_tensors() -> None:
    run = holdfast.run("epochs=2")
    state = torch.load(run.path / "model.pth", weights_only=True)
    x = np.linspace(-1, 1, 5)[:, None]
    expected = x * float(state["linear.weight"]) + float(state["linear.bias"])
    for given in (x, torch.tensor(x), x.tolist()):
        found = run.predict(given)
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert not run.model().training


def test_a_table_is_predicted_in_its_units() -> None:
    sweep = holdfast.sweep("experiment=diabetes", "lr=0.01,0.1", "epochs=3", "report=false")
    from holdfast.tables.reader import files_of

    (file,) = files_of("pkg://holdfast.tables/examples/diabetes.csv", "data.path")
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    x = np.array([[float(value) for key, value in row.items() if key != "progression"] for row in rows])
    y = np.array([float(row["progression"]) for row in rows])
    found = sweep.winner.predict(x)
    assert np.corrcoef(found, y)[0, 1] > 0.5
    assert abs(found.mean() - y.mean()) < 20


def test_a_sweep_has_its_winner_its_leaderboard_and_its_test() -> None:
    sweep = holdfast.sweep("lr=0.001,0.01,0.1", "epochs=3", "report=false", "hydra.sweep.dir=here")
    selection = json.loads(Path("here/selection.json").read_text())
    assert sweep.winner.path == Path("here", str(selection["winner"]))
    assert sweep.test == selection["test"]
    assert [job["job"] for job in sweep.jobs] == [0, 1, 2]
    board: Any = sweep.leaderboard()
    assert len(board) == 3
    assert isinstance(board, list) == (not has_pandas())
    if not has_pandas():
        assert (board[0]["rank"], board[0]["job"]) == (1, selection["winner"])
    assert sweep.report() == Path("here/report.html")
    assert Path("here/report.html").stat().st_size > 1000
    assert all(
        torch.equal(value, sweep.winner.model().state_dict()[name])
        for name, value in sweep.model().state_dict().items()
    )
    for shown in (sweep._repr_html_(), sweep.winner._repr_html_()):
        assert "<table>" in shown
        assert "test/loss" in shown or "val/loss" in shown


def has_pandas() -> bool:
    try:
        import pandas  # noqa: F401
    except ImportError:
        return False
    return True


def test_the_winner_of_folds_is_the_model_on_all_rows() -> None:
    sweep = holdfast.sweep("lr=0.01,0.1", "epochs=2", "sweep.folds=3", "report=false")
    assert sweep.winner.path == sweep.path / "refit"
    assert sweep.winner.result["overrides"] == sweep.selection["refit_overrides"]


def test_what_was_trained_is_loaded_again() -> None:
    run, sweep = holdfast.run("epochs=1"), holdfast.sweep("lr=0.01,0.1", "epochs=1", "report=false")
    assert holdfast.load(run.path).result == run.result  # type: ignore[union-attr]
    assert holdfast.load(str(sweep.path)).selection == sweep.selection  # type: ignore[union-attr]
    with pytest.raises(holdfast.HoldfastError, match="holds neither a sweep"):
        holdfast.load("outputs")


def test_mistakes_are_exceptions_with_all_problems() -> None:
    with pytest.raises(holdfast.ConfigError) as raised:
        holdfast.run("lr=-1", "epochs=0", "optimizer=adma")
    assert len(raised.value.problems) == 3
    with pytest.raises(holdfast.ConfigError, match="use holdfast"):
        holdfast.run("lr=0.1,0.2")
    with pytest.raises(holdfast.HoldfastError, match="is no override"):
        holdfast.run("--cfg")
    with pytest.raises(AttributeError, match="no attribute 'runs'"):
        _ = holdfast.runs  # type: ignore[attr-defined]
    assert not Path("outputs").exists()


def test_users_code_is_found_and_what_it_raises_is_raised(tmp_path: Path) -> None:
    Path("api_model.py").write_text(
        "import holdfast.model\n"
        "class Mine(holdfast.model.Linear):\n"
        "    def loss(self, batch):\n"
        "        raise ZeroDivisionError('no')\n"
    )
    Path("mine/model").mkdir(parents=True)
    Path("mine/model/own.yaml").write_text("defaults: [linear]\n_target_: api_model.Mine\n")
    with pytest.raises(ZeroDivisionError, match="no"):
        holdfast.run("model=own", "epochs=1", config_dir="mine")
    assert str(tmp_path) not in sys.path


def test_the_process_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["notebook", "x"])
    root = logging.getLogger()

    def state() -> tuple[Any, ...]:
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        draws = (random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes())  # type: ignore[union-attr]
        settings = (torch.get_num_threads(), torch.get_default_dtype(), root.handlers[:], root.level)
        return os.getcwd(), list(sys.argv), dict(os.environ), list(sys.path), handlers, draws, settings

    holdfast.run("epochs=1")
    before = state()
    holdfast.run("epochs=1", "precision=64-true")
    holdfast.sweep("lr=0.01,0.1", "epochs=1", "report=false")
    with pytest.raises(holdfast.ConfigError):
        holdfast.sweep("lr=0.01,x")
    assert state() == before


def test_threads_take_turns() -> None:
    found: dict[int, Any] = {}

    def train(number: int) -> None:
        found[number] = holdfast.run(f"seed={number}", "epochs=1")

    threads = [threading.Thread(target=train, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({found[number].path for number in range(3)}) == 3
    assert [found[number].result["overrides"][0] for number in range(3)] == [f"seed={number}" for number in range(3)]


def test_an_interrupt_leaves_a_folder_that_resumes() -> None:
    code = (
        "import holdfast, signal, threading, os, time\n"
        "def stop():\n"
        "    while not os.path.exists('here/last.ckpt'): time.sleep(0.1)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Thread(target=stop).start()\n"
        "try:\n"
        "    holdfast.run('epochs=100000', 'hydra.run.dir=here')\n"
        "except KeyboardInterrupt as stop:\n"
        "    print('interrupted', stop)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "to resume: holdfast.run('resume=here')" in done.stdout, done.stderr
    assert Path("here/last.ckpt").exists()
    assert not Path("here/result.json").exists()


def test_a_sweep_without_a_single_winner_is_returned_all_the_same() -> None:
    sweep = holdfast.sweep("lr=1e9,1e10", "epochs=1", "report=false")
    assert [job["status"] for job in sweep.jobs] == ["diverged", "diverged"]
    with pytest.raises(holdfast.HoldfastError, match="has no single winner: no job completed"):
        _ = sweep.winner


def test_hydra_of_the_caller_goes_on() -> None:
    import hydra

    with hydra.initialize(version_base="1.2", config_path=None):
        before = hydra.compose(config_name=None, overrides=["+a=1"])
        run = holdfast.run("epochs=1")
        assert run.model().training is False
        assert hydra.compose(config_name=None, overrides=["+a=1"]) == before
