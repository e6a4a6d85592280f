"""Stacks of ordinary modules that are stopped after each epoch, against stacks that are not.

A part of the zoo runs by default; all of it with `HOLDFAST_FAULTS=all`, as in CI.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.errors import Stopped
from holdfast.planning.share import share
from holdfast.record.history import StackHistory
from holdfast.runtime.isolation import isolated
from holdfast.stacked.loop import Stack
from holdfast.stacked.stack_trainer import engine_of
from holdfast.store.folders import SweepFolder
from tests.full import ALL
from tests.sweeps.test_archive import Interrupted, assert_same
from tests.zoo.test_zoo import SHOWN, Animal, configs, name

STACKED = [animal for animal in SHOWN if not animal.alone]
STEP = 1 if ALL else 5


@pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training")
@pytest.mark.filterwarnings("ignore:Attribute 'net' is an instance of `nn.Module`")
@pytest.mark.parametrize("animal", STACKED[::STEP], ids=name)
def test_a_stack_goes_on_from_the_end_of_any_epoch_bit_for_bit(animal: Animal, tmp_path: Path) -> None:
    some = list(configs(animal))
    part = share(some)[0]
    jobs, folder = [some[index] for index in sorted(part.jobs)], SweepFolder(tmp_path)

    def train(name: int, pauses: int) -> StackHistory | None:
        archive = Interrupted(folder.stack(name), range(len(jobs)), ["h"] * len(jobs), pauses=pauses)
        try:
            with isolated():
                return Stack(engine_of(jobs, part.by_steps), archive).train()
        except Stopped:
            return None

    whole = train(0, 10**9)
    assert whole is not None
    attempts = [train(1, 1) for _ in range(3)]  # of three epochs
    assert attempts[:2] == [None, None]
    history = attempts[2]
    assert history is not None
    assert_same(history, whole)
    logged = [each.curves.of_jobs(list(range(len(jobs)))).logged for each in (history, whole)]
    assert repr(logged[0]) == repr(logged[1])
