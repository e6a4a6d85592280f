"""LightningModules generated from parts: what is stacked has the numbers of a Trainer.

A few of the pairs run by default; all of them with `HOLDFAST_FAULTS=all`, as in CI.
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest

from holdfast.planning.share import share
from tests.full import ALL
from tests.stacked.test_loop import configured
from tests.zoo.generated import drawn
from tests.zoo.test_zoo import as_jobs, compare

PAIRS = 200
SHOWN = range(0, PAIRS, 1 if ALL else 70)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("number", SHOWN)
def test_a_generated_stack_is_what_a_trainer_makes(number: int, tmp_path: Path) -> None:
    module, data, overrides = drawn(number)
    configs = []
    for lr, coefficient in itertools.product((0.003, 0.03), (0.1, 0.3)):
        config = configured(f"lr={lr}", "epochs=3", "report=false", "precision=64-true", *overrides)
        model = {"_target_": "tests.zoo.generated.Generated", "lr": lr, "coefficient": coefficient, **module}
        rows = {"_target_": "tests.zoo.generated.GeneratedData", **data}
        configs.append(dataclasses.replace(config, model=model, data=rows))
    shares = share(configs)
    assert [part.reason for part in shares] == [None], (module, data, overrides)
    compare(as_jobs(configs), shares, tmp_path, (1e-9, 1e-11))
