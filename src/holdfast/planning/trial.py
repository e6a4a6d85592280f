"""The trial of a stack: a few different jobs are trained as one program, and each by a Trainer, and compared.

Reading a user's code cannot show that it trains correctly in a stack; two jobs that differ as much as the jobs of the
sweep can show that it does not. Both ways train for two epochs, with optimizer steps, on few rows, and in double
precision where the code allows that: there rounding is far below any other difference.
"""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from typing import Any, NamedTuple, TypeVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from numpy.typing import ArrayLike

from holdfast.config.schema import Config
from holdfast.data import DataModule
from holdfast.errors import in_a_line
from holdfast.planning.agreement import compare, compare_first_batches
from holdfast.planning.extremes import extremes
from holdfast.record.checkpoint import plain_values
from holdfast.record.history import History, StackHistory
from holdfast.runtime.isolation import isolated
from holdfast.single.build import build, build_trainer, seed_rows
from holdfast.single.recorder import Recorder
from holdfast.stacked.formula_engine import FormulaEngine
from holdfast.stacked.inputs import StackInputs, is_equal, is_trained
from holdfast.stacked.loop import Stack
from holdfast.stacked.streams import shorten
from holdfast.usercode.watch import UnstackableError

T = TypeVar("T")

_EPOCHS = 2

TOLERANCES = {"64-true": 1e-8, "32-true": 1e-4}
"""Largest difference for each precision, relative to the largest value; half precisions have `_COARSE`."""

_COARSE = 5e-2

_RATE_FACTORS = (1.0, 1e-3, 1e-6, 1e-12, 1e-18)
"""Factors of the learning rates, tried until all losses are finite: nothing else can be compared."""

_MOST_GROWTH = 1e6
"""Largest loss that counts as finite, relative to the first: beyond it the comparison would measure rounding."""

_MOST_AT_ONCE = 256
"""Jobs whose first batches are compared together."""


def try_together(configs: Sequence[Config], most: int = _MOST_AT_ONCE) -> None:
    """Train jobs in a stack and by a Trainer, and compare all results.

    The jobs that `extremes` chooses are trained; the first batch of every job is compared besides.

    Args:
        configs: configurations of jobs with the same structure.
        most: largest number of jobs in a stack.

    Raises:
        UnstackableError: a number differs, or one of the two ways fails.
    """
    chosen = [configs[index] for index in extremes(configs)]
    reference = in_double_if_possible(partial(_train_alone_in, chosen), configs[0].precision)
    precision, tolerance = reference.precision, TOLERANCES.get(reference.precision, _COARSE)
    inputs, histories = _train_stack([for_trial(config, precision, reference.rate_factor) for config in chosen])
    for index, history in enumerate(reference.histories):
        for name, stacked, expected in _results(inputs, histories, history, index):
            compare(inputs.module, name, stacked, expected, tolerance)
    at_once = min(most, _MOST_AT_ONCE)
    for first in range(0, len(configs), at_once):
        with isolated():
            part = configs[first : first + at_once]
            compare_first_batches([for_trial(config, precision, 1.0) for config in part], tolerance)


class _Reference(NamedTuple):
    """The histories of jobs that were each trained by a Trainer, and how they were trained.

    Attributes:
        histories: one for each job.
        precision: precision of the training.
        rate_factor: factor of the learning rates.
    """

    histories: list[History]
    precision: str
    rate_factor: float


def in_double_if_possible(train: Callable[[str], T], precision: str) -> T:
    """Call a function with double precision; where that fails, with the precision of the jobs.

    Raises:
        UnstackableError: a Trainer cannot train them in either.
    """
    try:
        return train("64-true")
    except UnstackableError:
        raise
    except Exception:  # code that sets its own precision, or an accelerator without this one
        try:
            return train(precision)
        except Exception as error:
            raise UnstackableError(f"a Trainer could not train it in a trial: {in_a_line(error)}") from error


def _train_alone_in(configs: Sequence[Config], precision: str) -> _Reference:
    for factor in _RATE_FACTORS:
        histories = [fit(for_trial(config, precision, factor)) for config in configs]
        if all(map(is_finite, histories)):
            return _Reference(histories, precision, factor)
    raise UnstackableError("its losses are not finite, however small the learning rate")


def _train_stack(configs: Sequence[Config]) -> tuple[StackInputs, StackHistory]:
    """Train jobs as one program."""
    try:
        with isolated(), redirect_stdout(io.StringIO()) as output:
            inputs = StackInputs(configs, short=True)
            printed_before = len(output.getvalue())
            histories = Stack(FormulaEngine(inputs)).train()
    except UnstackableError:
        raise
    except Exception as error:
        raise UnstackableError(f"it cannot be mapped over jobs: {in_a_line(error)}") from error
    if len(output.getvalue()) > printed_before:
        raise UnstackableError("it prints while it is trained")
    return inputs, histories


def for_trial(config: Config, precision: str, rate_factor: float = 1.0) -> Config:
    """A configuration for two epochs without early stopping; `is_finite` replaces the divergence threshold."""
    early_stopping = dataclasses.replace(config.callbacks.early_stopping, patience=None)
    divergence = dataclasses.replace(config.callbacks.divergence, threshold=math.inf)
    return dataclasses.replace(
        config,
        epochs=_EPOCHS,
        precision=precision,  # type: ignore[arg-type]
        report=False,
        optimizer={**config.optimizer, "lr": config.optimizer["lr"] * rate_factor},
        callbacks=dataclasses.replace(config.callbacks, early_stopping=early_stopping, divergence=divergence),
    )


class _Shorten(pl.Callback):
    """Shortens the rows of the data module right after its `setup`."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, DataModule)
        shorten(data)


def fit(config: Config, arguments: Mapping[str, Any] | None = None, callbacks: Sequence[pl.Callback] = ()) -> History:
    """Train a job by a Trainer, without writing files; with arguments of the Trainer, or with few rows."""
    with isolated(), redirect_stdout(io.StringIO()):
        module, data = build(config)
        recorder = Recorder(config, History())
        # with a logger, because only then Lightning checks that the hyperparameters of module and data agree
        callbacks = [recorder, *callbacks] if arguments else [recorder, *callbacks, _Shorten()]
        more = arguments or {"logger": DummyLogger()}
        trainer = build_trainer(config, data, plugins=[recorder.checkpoint_io], callbacks=callbacks, **more)
        seed_rows()
        trainer.fit(module, datamodule=data)
        return recorder.history


def is_finite(history: History) -> bool:
    """Whether no loss of a job has diverged."""
    losses = [*history.losses, *(epoch.metrics.get("val/loss", 0.0) for epoch in history.epochs)]
    return all(math.isfinite(loss) and abs(loss) <= _MOST_GROWTH * (1 + abs(losses[0])) for loss in losses)


def _results(
    inputs: StackInputs, histories: StackHistory, history: History, index: int
) -> Iterator[tuple[str, ArrayLike, ArrayLike]]:
    """The losses, metrics and parameters of one job: name, values from the stack, values from the Trainer.

    Raises:
        UnstackableError: names of metrics, entries of the `state_dict`, or hyperparameters differ.
    """
    curves = histories.curves.of_jobs([index])
    yield "train/loss_step", curves.losses[: histories.counts[index], 0], history.losses
    names, measured = history.epochs[0].metrics, curves.metrics[: histories.epochs[index], :, 0]
    stacked = dict(zip(histories.curves.names, measured.T, strict=True))
    expected = {name: [epoch.metrics.get(name, math.nan) for epoch in history.epochs] for name in names}
    for name in dict.fromkeys((*stacked, *expected)):
        if name not in stacked or name not in expected:
            raise UnstackableError(f"{name} is logged only {'in a stack' if name in stacked else 'by a Trainer'}")
        yield name, stacked[name], expected[name]
    last = history.reached.last
    assert last is not None
    weights = last.checkpoint["state_dict"]
    entries = inputs.module_of(int(inputs.rows.dataset_of[index])).state_dict(keep_vars=True)
    constants = [name for name, value in entries.items() if not is_trained(value)]
    if entries.keys() != weights.keys() or not all(is_equal(entries[name], weights[name]) for name in constants):
        raise UnstackableError("its state_dict differs between a stack and a Trainer")
    trained = [weights[name].flatten() for name, value in inputs.module.named_parameters() if value.requires_grad]
    parameters = histories.last.tensors["parameters"][:, index].cpu()
    yield "a parameter", parameters.double().numpy(), torch.cat(trained).double().numpy()
    for key, hparams in (
        ("hyper_parameters", inputs.hparams[inputs.hparams_of[index]]),
        ("datamodule_hyper_parameters", inputs.rows.hparams[index]),
    ):
        if repr(last.checkpoint.get(key, {})) != repr(plain_values(hparams)):
            raise UnstackableError(f"its {key} differ between a stack and a Trainer")
