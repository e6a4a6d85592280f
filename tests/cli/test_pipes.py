"""A reader that leaves, as `head` does, ends no command: the work is done, and nothing is said about it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

COMMANDS = {
    "-m lr=0.1,0.2 epochs=1 hydra.sweep.dir=out": "selection.json",
    "-m lr=0.1,0.2 epochs=1 hydra/launcher=basic hydra.sweep.dir=out": "selection.json",
    "lr=0.1 epochs=1 hydra.run.dir=out": "result.json",
    "--help": "",
    "--cfg job": "",
    "lrr=1": "",
}


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_survives_a_closed_pipe(words: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -u {ROOT / 'train.py'} {words}"
    # all output goes to a reader that has left before the first line
    script = f"set -o pipefail; {{ sleep 0.2; {command} 2>&1; echo $? >&2; }} | true"
    ran = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ran.stderr == ("2\n" if words == "lrr=1" else "0\n")
    if name := COMMANDS[words]:
        assert json.loads((tmp_path / "out" / name).read_text())
