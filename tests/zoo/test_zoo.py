"""Every module of the zoo: what the plan says, and every number of a stack against a Trainer's.

A few of them run by default; all of them with `HOLDFAST_FAULTS=all`, as in CI.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from holdfast.config.job import JobSpec
from holdfast.config.schema import Config
from holdfast.planning.plan import Share
from holdfast.planning.share import share
from holdfast.single.trainer import train_one
from holdfast.stacked.stack_trainer import train_stack
from holdfast.stacked.stored import StoredStacks
from holdfast.store.folders import RunFolder, SweepFolder
from holdfast.sweeps.keep import write_folders
from tests.conftest import ROOT
from tests.full import ALL
from tests.stacked.test_loop import assert_folders_alike, configured


class Animal(NamedTuple):
    """A module over data, and what becomes of its sweep.

    Attributes:
        module, data: names of the classes.
        second: a key that is swept beside `lr`, with two values.
        alone: part of the reason why its jobs are trained alone; "" if they are one stack.
        stacks: number of stacks.
    """

    module: str
    data: str = "Table"
    second: tuple[str, Any, Any] | None = None
    alone: str = ""
    stacks: int = 1


ZOO = [
    Animal("Regressor", "Numbers"),
    Animal("Regressor", "Numbers", ("hidden", 4, 8), stacks=2),
    Animal("Huber", "Numbers", ("delta", 0.2, 1.0)),
    Animal("Quantiles", "Numbers", ("quantile", 0.1, 0.9)),
    Animal("GaussianNll", "Numbers", alone="cannot be mapped"),
    Animal("Classifier", second=("weight_decay", 0.01, 0.1)),
    Animal("Classifier", second=("dropout", 0.2, 0.5), stacks=2),
    Animal("Classifier", "Generated"),
    Animal("Classifier", "Workers"),
    Animal("Normalised"),
    Animal("BiasBeforeNorm"),
    Animal("Smoothed", second=("smoothing", 0.1, 0.3), stacks=2),
    Animal("Focal", second=("gamma", 1.0, 2.0)),
    Animal("Mixup"),
    Animal("Noisy"),
    Animal("AlphaDropout"),
    Animal("Convolutional", "Images"),
    Animal("Residual"),
    Animal("Recurrent"),
    Animal("LongShortTerm"),
    Animal("Transformer", "Tokens"),
    Animal("Tied", "Tokens"),
    Animal("Autoencoder"),
    Animal("Variational", second=("beta", 0.1, 1.0)),
    Animal("WarmUp", "Numbers"),
    Animal("Siamese"),
    Animal("Contrastive", second=("temperature", 0.2, 0.5)),
    Animal("MultiTask"),
    Animal("Averaged", "Numbers"),
    Animal("Spectral"),
    Animal("Finetuned"),
    Animal("FrozenNorm"),
    Animal("Plateau"),
    Animal("Sequential"),
    Animal("Lambdas"),
    Animal("OtherOptimizer"),
    Animal("Adamaxed"),
    Animal("AveragedSgd"),
    Animal("Template"),
    Animal("Metrics"),
    Animal("Nested", "Dictionaries"),
    Animal("FirstBatch"),
    Animal("Steps"),
    Animal("Boring"),
    Animal("Adversarial", alone="automatic_optimization"),
    Animal("Branching", alone="cannot be mapped"),
    Animal("Collecting", alone="changes what it is called on"),
    Animal("BatchHook", alone="on_train_batch_end"),
    Animal("Quasi", "Numbers", alone="LBFGS"),
    Animal("Curve", alone="keeps every value in a list"),
    Animal("Classifier", "Augmented", alone="differ each time they are read"),
    Animal("Classifier", "Stream", alone="stream"),
    Animal("Classifier", "Centred", alone="depends on the other rows"),
]

WITH_NOISE = {"BiasBeforeNorm", "Convolutional", "Transformer"}
"""Modules with a bias before a normalisation, or before a softmax."""

SHOWN = ZOO if ALL else ZOO[::9]


def name(animal: Animal) -> str:
    return "-".join([animal.module, animal.data, *([animal.second[0]] if animal.second else [])])


def configs(animal: Animal, *overrides: str) -> Iterator[Config]:
    """The jobs: two rates, two seeds, and two values of another key."""
    second = animal.second or ("", 0, 0)
    grid = itertools.product((0.003, 0.03), (0, 1), second[1:] if animal.second else (None,))
    for lr, seed, value in grid:
        config = configured(f"lr={lr}", f"seed={seed}", "epochs=3", "report=false", *overrides)
        model = {"_target_": f"tests.zoo.modules.{animal.module}", "lr": lr}
        model |= {second[0]: value} if animal.second else {}
        yield dataclasses.replace(config, model=model, data={"_target_": f"tests.zoo.data.{animal.data}"})


@pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training")
@pytest.mark.filterwarnings("ignore:Attribute 'net' is an instance of `nn.Module`")
@pytest.mark.parametrize("animal", SHOWN, ids=name)
def test_a_stack_is_what_a_trainer_makes(animal: Animal, tmp_path: Path) -> None:
    jobs = as_jobs(configs(animal, "precision=64-true"))
    shares = share([job.config for job in jobs])
    if animal.alone:
        assert [animal.alone in str(part.reason) for part in shares] == [True], shares
        return
    assert [part.reason for part in shares] == [None] * animal.stacks
    # the gradient of such a bias is zero, and Adam divides its rounding by its size
    compare(jobs, shares, tmp_path, (1e-6, 1e-8) if animal.module in WITH_NOISE else (1e-9, 1e-11))


def as_jobs(configs: Iterable[Config]) -> list[JobSpec]:
    return [JobSpec(number, (), config, f"{number:064}") for number, config in enumerate(configs)]


def compare(jobs: Sequence[JobSpec], shares: Sequence[Share], path: Path, tolerance: tuple[float, float]) -> None:
    """Train jobs in stacks, and the first and the last by a Trainer: every number of their folders is the same."""
    folder = SweepFolder(path)
    for part in shares:
        some = [jobs[index] for index in sorted(part.jobs)]
        train_stack(some, folder.stack(some[0].number), by_steps=part.by_steps)
    stacks = StoredStacks(folder, [job.config_hash for job in jobs])
    write_folders(folder, stacks, jobs, stacks.results(jobs), lambda job: {})
    for job in (jobs[0], jobs[-1]):
        (alone := path / f"alone{job.number}").mkdir()
        train_one(job, RunFolder(alone))
        assert_folders_alike(folder.job(job.number).path, alone, *tolerance)


def test_a_parameter_whose_gradient_is_only_rounding_is_named() -> None:
    (noisy,) = share(list(configs(Animal("BiasBeforeNorm"))))
    assert noisy.note.startswith("net.0.bias: the gradient is zero but for rounding")
    (plain,) = share(list(configs(Animal("Normalised"))))
    assert plain.note == ""


def test_the_page_says_of_every_module_what_becomes_of_it() -> None:
    page = (ROOT / "docs" / "stacks.md").read_text()
    rows = re.findall(r"^\| `(\w+)`(?:, over (\w+))? \|.*\| (alone: .*|\d+ stack) \| .*\|$", page, re.MULTILINE)
    told = {(module, data): outcome.startswith("alone") for module, data, outcome in rows}
    common = {"Table", "Numbers", "Images", "Tokens"}
    expected = {(each.module, "" if each.data in common else each.data): bool(each.alone) for each in ZOO}
    assert told == expected
    assert sum(not alone for alone in told.values()) >= 30
