"""What the commands of the golden record do today is what they did when it was recorded."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.golden.record import COMMANDS, RECORD, machine, record

RECORDED = json.loads(RECORD.read_text())
TOLERANCE = 1e-4
"""Relative, in single precision, on a machine other than the one that recorded."""


def test_every_command_was_recorded() -> None:
    assert list(RECORDED["outcomes"]) == list(COMMANDS)
    assert sum(map(len, COMMANDS.values())) >= 20


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_does_what_it_did(name: str, tmp_path: Path) -> None:
    outcomes = json.loads(json.dumps(record(name, tmp_path.resolve())))
    if machine() == RECORDED["machine"]:
        assert outcomes == RECORDED["outcomes"][name]
    else:
        assert_close(outcomes, RECORDED["outcomes"][name])


def assert_close(value: Any, recorded: Any, path: str = "") -> None:
    """Compare numbers by tolerance, all else exactly; digests of weights and printed numbers not at all."""
    if isinstance(recorded, dict):
        assert value.keys() == recorded.keys(), path
        for key, item in recorded.items():
            if not key.endswith((".ckpt", ".pth")) and key not in ("printed", "why"):
                assert_close(value[key], item, f"{path}/{key}")
    elif isinstance(recorded, list):
        assert len(value) == len(recorded), path
        for index, item in enumerate(recorded):
            assert_close(value[index], item, f"{path}/{index}")
    elif (number := as_number(recorded)) is not None:
        assert math.isclose(as_number(value) or 0.0, number, rel_tol=TOLERANCE, abs_tol=1e-6), path
    else:
        assert value == recorded, path


def as_number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
