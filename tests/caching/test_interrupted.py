"""Trainings on a streamed table that are killed and started again end with the same weights, bit for bit.

By default a part of the moments is tried; HOLDFAST_FAULTS=all, as in CI, tries several times as many.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.full import ALL, IN_FULL

MOMENTS = (
    {"reading": 2, "dividing": 1, "measuring": 1, "writing": 1, "block": 1, "training": 3}
    if ALL
    else {"reading": 1, "training": 2}
)
OF_A_SWEEP = {"reading": 1, "writing": 1, "training": 2} if ALL else {"training": 1}
"""How many moments of each kind are tried."""

TIMES = 7 if ALL else 1
"""How many times as many."""


def table(path: Path, rows: int = 2000) -> None:
    """Numbers, some of them missing, texts, and a column that turns out to be other than its first rows."""
    draw = np.random.default_rng(0)
    lines = ["a,b,c,d,y"]
    for row in range(rows):
        a, b = draw.normal(), draw.integers(0, 9)
        text = "xyz"[row % 3] if row > rows // 3 else "7"
        missing = "" if draw.random() < 0.1 else f"{a:.4f}"
        lines.append(f"{missing},{b},level {draw.integers(0, 5)},{text},{a - 0.3 * b + draw.normal():.3f}")
    path.write_text("\n".join(lines) + "\n")


def outcomes(folder: Path, kind: str, moments: dict[str, int]) -> dict[str, Any]:
    plan = {"folder": str(folder), "kind": kind, "moments": moments}
    command = [sys.executable, "-m", "tests.caching.victims", json.dumps(plan)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_a_stop_at_any_moment_changes_nothing(kind: str, tmp_path: Path) -> None:
    table(tmp_path / "t.csv")
    moments = OF_A_SWEEP if kind == "sweep" else MOMENTS
    found = outcomes(tmp_path, kind, {moment: TIMES * count for moment, count in moments.items()})
    for outcome in found["outcomes"]:
        expected = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 128 + signal.SIGTERM}[outcome["signal"]]
        assert outcome["code"] == expected, outcome
        assert outcome["again"] == 0, outcome
        assert outcome["same"], outcome
        assert not outcome["left"], outcome
        assert outcome["converted"] == (outcome["at"][0] != "training"), outcome


@IN_FULL
def test_a_buffer_of_all_rows_is_the_table_in_memory(tmp_path: Path) -> None:
    """Stopped in the middle of a conversion, the weights are those of rows in memory."""
    table(tmp_path / "t.csv")
    found = outcomes(tmp_path, "one buffer", {"reading": 1, "writing": 1, "training": 1})
    assert all(outcome["same"] for outcome in found["outcomes"]), found["outcomes"]
    (tmp_path / "memory").mkdir()
    table(tmp_path / "memory" / "t.csv")
    memory = outcomes(tmp_path / "memory", "in memory", {})
    assert memory["trained"] == found["trained"]
