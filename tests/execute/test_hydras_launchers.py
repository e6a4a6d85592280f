"""Launchers of Hydra's plugins, which train each job alone: the same sweep, the same bits."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.store.folders import SweepFolder
from tests.conftest import ROOT
from tests.full import IN_FULL
from tests.workers.swept import FLAGS, contents, write_modules

WORDS = [*FLAGS, "model=linear,alone,failing", "lr=0.1", "epochs=2", "batch_size=5", "report=false"]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def swept(folder: Path, *words: str) -> SweepFolder:
    """Run the sweep in processes of its own: launchers keep workers that would look for modules elsewhere."""
    write_modules(folder)
    command = [sys.executable, str(ROOT / "train.py"), *WORDS, *words, "hydra.sweep.dir=sweep"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, **ONE_THREAD})
    assert done.returncode == 1, done.stdout + done.stderr  # a job fails
    assert "job 2 (model=failing) failed: RuntimeError: as asked (swept_modules.py, line" in done.stdout
    return SweepFolder(folder / "sweep")


@pytest.mark.parametrize(
    ("launcher", "package", "words"),
    [
        ("joblib", "hydra_plugins.hydra_joblib_launcher", ["hydra.launcher.n_jobs=2"]),
        pytest.param("submitit_local", "hydra_plugins.hydra_submitit_launcher", [], marks=IN_FULL),
    ],
)
def test_the_same_bits(launcher: str, package: str, words: list[str], tmp_path: Path) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    one = swept(tmp_path / "one", "hydra/launcher=basic")
    other = swept(tmp_path / "other", f"hydra/launcher={launcher}", *words)
    assert contents(other) == contents(one)
