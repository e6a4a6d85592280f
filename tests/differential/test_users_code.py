"""Modules and data modules of users, generated from parts: a stack and a Trainer give the same numbers.

A fifth of the cases runs by default; all of them with `HOLDFAST_FAULTS=all`, as in CI.
"""

from __future__ import annotations

import csv
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.store.folders import SweepFolder
from tests.conftest import command_line
from tests.differential.parts import DATA, IMPORTS, MODELS, Part, data_source, model_source
from tests.full import ALL
from tests.stacked.test_loop import assert_alike, curves

TOLERANCES = {"64-true": (1e-9, 1e-12), "32-true": (1e-4, 1e-6)}
"""Relative and absolute tolerances, which the design fixed before the first comparison."""

NOT_COMPARED = ("seconds", "sha256", "versions")
OF_STACKS = ("sha256", "verified", "verified_jobs", "largest_difference")


@dataclass(frozen=True)
class Case:
    """A user's module and data module, and a sweep over them."""

    models: tuple[Part, ...]
    data: Part | None
    sweep: str

    def __str__(self) -> str:
        names = [part.name for part in self.models] + ([f"data: {self.data.name}"] if self.data else [])
        return " + ".join(names)

    @property
    def kind(self) -> str:
        """Whether the jobs must share a stack, must be trained alone, or may do either."""
        kinds = {part.kind for part in (*self.models, *([self.data] if self.data else []))}
        if any(part.name == "a loss on the object" for part in self.models):
            return "either"  # it replaces the loss of the class, and with it the other parts
        return "alone" if "alone" in kinds else "stack" if kinds == {"stack"} else "either"


def cases() -> Iterator[Case]:
    """Every part by itself, and pairs of parts drawn with a fixed seed."""
    for part in MODELS:
        yield Case((part,), None, part.sweep)
    nothing = next(part for part in MODELS if part.name == "nothing added")
    for part in DATA:
        yield Case((nothing,), part, part.sweep if part.sweep != Part("").sweep else "lr=0.01,0.05")
    hyper = next(part for part in MODELS if part.name == "a hyperparameter")
    clash = next(part for part in DATA if part.name == "a hyperparameter that the module has too")
    yield Case((hyper,), clash, clash.sweep)  # Lightning refuses hyperparameters that do not agree
    dice = random.Random(20261124)
    plain = [part for part in MODELS if not part.top]
    for _ in range(40):
        one, other = dice.sample(plain, 2)
        if _attributes(one) & _attributes(other):
            continue
        yield Case((one, other), None, dice.choice((one.sweep, other.sweep)))
    for _ in range(10):
        yield Case((dice.choice(plain),), data := dice.choice(DATA), data.sweep)


def _attributes(part: Part) -> set[str]:
    return {line.partition(" =")[0] for line in part.init.splitlines()} | {part.body.partition("(")[0]} - {""}


CASES = list(cases())
CASES = CASES if ALL else CASES[::10]
COEFFICIENTS = [case for case in CASES if case.data is None and len(case.models) == 1 and "model.l2" in case.sweep]
COEFFICIENTS = [case for case in COEFFICIENTS if case.kind == "stack"]
COEFFICIENTS = COEFFICIENTS if ALL else COEFFICIENTS[:4]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_stack_gives_what_a_trainer_gives(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = compare(case, "64-true", tmp_path, monkeypatch)
    planned = json.loads((tmp_path / "stacked" / "sweep.json").read_text())["plan"]
    if case.kind == "alone":
        assert not planned["stacks"], output
    elif case.kind == "stack":
        assert not planned["alone"], output
        assert len(planned["stacks"]) == 1, output
        assert "could not be trained together" not in output


@pytest.mark.parametrize("case", COEFFICIENTS, ids=str)
def test_in_single_precision_too(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compare(case, "32-true", tmp_path, monkeypatch)


def compare(case: Case, precision: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a sweep with both launchers and compare every number; returns the output of the launcher with stacks."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    name = f"users_code_{CASES.index(case)}_{precision[:2]}"
    (folder / f"{name}.py").write_text("\n".join([IMPORTS, data_source(case.data), model_source(list(case.models))]))
    write_configs(folder, name, case)
    sweeps, outputs = {}, {}
    for launcher in ("basic", "stacked"):
        sys.modules.pop(name, None)
        batch = "" if "batch_size" in case.sweep else "batch_size=7"
        overrides = f"model=users data=users epochs=3 {batch} precision={precision} report=false {case.sweep}"
        overrides += f" hydra/launcher={launcher} hydra.sweep.dir={launcher}"
        code, outputs[launcher] = command_line("-m", "--config-dir", "conf", *overrides.split())
        assert code in (0, 1), outputs[launcher]
        sweeps[launcher] = (SweepFolder(folder / launcher), code)
    assert sweeps["stacked"][1] == sweeps["basic"][1], "exit codes"
    assert_sweeps_alike(sweeps["stacked"][0], sweeps["basic"][0], *TOLERANCES[precision])
    return outputs["stacked"]


def write_configs(folder: Path, module: str, case: Case) -> None:
    line = "start: -3.0\nstop: 3.0\nstep: 0.1\nslope: -3.0\nintercept: 1.0\nnoise: 0.1\noutliers: null\nseed: 0\n"
    order = "shuffle: true\nnum_workers: 0\nbatch_size: ${batch_size}\norder_seed: ${seed}\n"
    keys = {"l2": "0.1", "seed": "${seed}", **{key: value for part in case.models for key, value in part.keys.items()}}
    keys = keys if any("seed" in part.init for part in case.models) else {k: v for k, v in keys.items() if k != "seed"}
    texts = {
        "data": f"_target_: {module}.Data\n{line}{order}" + ("extra: 0.0\n" if case.data else ""),
        "model": f"_target_: {module}.Model\n" + "".join(f"{key}: {value}\n" for key, value in keys.items()),
    }
    for group, text in texts.items():
        (folder / "conf" / group).mkdir(parents=True)
        (folder / "conf" / group / "users.yaml").write_text(text)


def assert_sweeps_alike(stacked: SweepFolder, alone: SweepFolder, rtol: float, atol: float) -> None:
    """Compare every number of the jobs' files, the leaderboard and the selection."""
    jobs = [json.loads(folder.sweep.read_text())["jobs"] for folder in (stacked, alone)]
    assert jobs[0] == jobs[1]
    for number in range(len(jobs[0])):
        assert_jobs_alike(stacked.job(number).path, alone.job(number).path, number, rtol, atol)
    boards = [list(csv.DictReader(folder.leaderboard.read_text().splitlines())) for folder in (stacked, alone)]
    numbers = [[{k: _number(v) for k, v in row.items() if k != "seconds"} for row in board] for board in boards]
    assert_alike(numbers[0], numbers[1], rtol, atol, "leaderboard")
    selections = [json.loads(folder.selection.read_text()) for folder in (stacked, alone)]
    for selection in selections:
        for entry in (selection, *selection.get("data_sets", ())):
            for key in OF_STACKS:
                entry.pop(key, None)
            entry["why"] = entry["why"].partition(",")[0]  # without the margin, which is compared as a number
    # the test metrics are computed in single precision
    assert_alike(selections[0], selections[1], max(rtol, 1e-6), max(atol, 1e-9), "selection")


def assert_jobs_alike(stacked: Path, alone: Path, number: int, rtol: float, atol: float) -> None:
    results = [json.loads((folder / "result.json").read_text()) for folder in (stacked, alone)]
    for result in results:
        for key in NOT_COMPARED:
            result.pop(key)
    assert_alike(results[0], results[1], rtol, atol, f"job {number}")
    for name in ("best.ckpt", "last.ckpt", "model.pth"):
        assert (stacked / name).exists() == (alone / name).exists()
        if (stacked / name).exists():
            loaded = [torch.load(folder / name, weights_only=True) for folder in (stacked, alone)]
            assert_alike(loaded[0], loaded[1], rtol, atol, f"job {number}: {name}")
    # event files hold single precision
    assert_alike(curves(stacked), curves(alone), max(rtol, 1e-6), atol, f"job {number}: events")


def _number(text: Any) -> Any:
    try:
        return float(text)
    except (TypeError, ValueError):
        return text
