"""The trial of a stack: a few different jobs trained as one program, and each by a Trainer, and every number compared.

No inspection of somebody else's code can say that it trains right in a stack; two jobs that differ as much as the jobs
of the sweep do can show that it does not. Both ways go through two epochs, with the steps of the optimizer, over few
rows, in double precision where the code allows it: there rounding is far below any other difference.
"""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from numpy.typing import ArrayLike

from holdfast.config.schema import Config
from holdfast.data import DataModule
from holdfast.errors import in_a_line
from holdfast.planning.first_batch import compare, compare_each
from holdfast.record.checkpoint import CheckpointIO, plain_values
from holdfast.record.history import History, StackHistory
from holdfast.record.stopping import StoppingRules
from holdfast.single.assemble import assemble, build, seed_rows
from holdfast.single.isolation import isolated
from holdfast.single.recorder import Recorder
from holdfast.stacked.inputs import StackInputs, is_equal, is_trained
from holdfast.stacked.loop import Stack
from holdfast.stacked.streams import shorten
from holdfast.usercode.watch import UnstackableError

EPOCHS = 2

_TOLERANCES = {"64-true": 1e-8, "32-true": 1e-4}  # relative to the largest value; other precisions round more coarsely
_COARSE = 5e-2
_SLOWER = (1.0, 1e-3, 1e-6, 1e-12, 1e-18)
"""Factors of the learning rates: a trial whose losses are not finite compares nothing."""

_GROWTH = 1e6
"""How many times the first loss others may be."""

_AT_ONCE = 256
"""Jobs whose first losses are compared together."""

_NAMED_VALUES = 4
"""Values of a key that are no numbers of which each gets into the trial."""


def try_together(configs: Sequence[Config], most: int = _AT_ONCE) -> None:
    """Train jobs both ways and compare all that comes out.

    Args:
        configs: of jobs that have the same structure.
        most: jobs that memory has room for.

    Raises:
        UnstackableError: a number differs, or one of the two ways fails.
    """
    chosen = [configs[index] for index in extremes(configs)]
    precision = "64-true"
    try:
        alone = _all_alone(chosen, precision)
    except UnstackableError:
        raise
    except Exception:  # code that fixes its own precision, or an accelerator without this one
        precision = chosen[0].precision
        try:
            alone = _all_alone(chosen, precision)
        except Exception as error:
            raise UnstackableError(f"a Trainer could not train it in a trial: {in_a_line(error)}") from error
    jobs = [_for_trial(config, precision, alone.factor) for config in chosen]
    try:
        with isolated(), redirect_stdout(io.StringIO()) as printed:
            inputs = StackInputs(jobs, short=True)
            said_before = len(printed.getvalue())
            traces = Stack(inputs).train()
    except UnstackableError:
        raise
    except Exception as error:
        raise UnstackableError(f"it cannot be mapped over jobs: {in_a_line(error)}") from error
    if len(printed.getvalue()) > said_before:
        raise UnstackableError("it prints while it is trained")
    tolerance = _TOLERANCES.get(precision, _COARSE)
    for index, trace in enumerate(alone.traces):
        for name, stacked, expected in _numbers(inputs, traces, trace, index):
            compare(inputs.module, name, (stacked, expected), tolerance)
    at_once = min(most, _AT_ONCE)
    for first in range(0, len(configs), at_once):
        some = configs[first : first + at_once]
        with isolated():
            compare_each([_for_trial(config, precision, 1.0) for config in some], tolerance)


@dataclasses.dataclass(frozen=True)
class _Alone:
    """How jobs went, each by a Trainer, with their learning rates multiplied by a factor."""

    traces: list[History]
    factor: float


def _all_alone(configs: Sequence[Config], precision: str) -> _Alone:
    for factor in _SLOWER:
        traces = [_alone(_for_trial(config, precision, factor)) for config in configs]
        if all(map(_is_finite, traces)):
            return _Alone(traces, factor)
    raise UnstackableError("its losses are not finite, however small the learning rate")


def _for_trial(config: Config, precision: str, factor: float) -> Config:
    stopping = dataclasses.replace(config.callbacks.early_stopping, patience=None)
    divergence = dataclasses.replace(config.callbacks.divergence, threshold=math.inf)  # see `_is_finite`
    return dataclasses.replace(
        config,
        epochs=EPOCHS,
        precision=precision,  # type: ignore[arg-type]
        report=False,
        optimizer={**config.optimizer, "lr": config.optimizer["lr"] * factor},
        callbacks=dataclasses.replace(config.callbacks, early_stopping=stopping, divergence=divergence),
    )


class _Shorten(pl.Callback):
    """Called right after the data module has made its rows, as for any run."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, DataModule)
        shorten(data)


def _alone(config: Config) -> History:
    """Train a job by a Trainer, and write nothing."""
    with isolated(), redirect_stdout(io.StringIO()):
        module, data = build(config)
        trace, checkpoints = History(), CheckpointIO()
        recorder = Recorder(
            trace,
            StoppingRules.from_config(config),
            checkpoints,
            seed=config.seed,
            full_train_loss=config.trainer.full_train_loss,
            descent=False,
            update=lambda trace: None,
        )
        # with a logger, since Lightning then holds the hyperparameters of both modules against each other
        trainer = assemble(config, data, plugins=[checkpoints], callbacks=[recorder, _Shorten()], logger=DummyLogger())
        seed_rows()
        trainer.fit(module, datamodule=data)
        return trace


def _is_finite(trace: History) -> bool:
    """Whether losses stay in reach of the first one: beyond, rounding would be all that is compared."""
    losses = [*trace.losses, *(epoch.metrics.get("val/loss", 0.0) for epoch in trace.epochs)]
    return all(math.isfinite(loss) and abs(loss) <= _GROWTH * (1 + abs(losses[0])) for loss in losses)


def _numbers(
    inputs: StackInputs, traces: StackHistory, trace: History, index: int
) -> Iterator[tuple[str, ArrayLike, ArrayLike]]:
    """All that one job left in the stack, and by a Trainer, each with its name."""
    yield "train/loss_step", traces.losses[: traces.counts[index], index], trace.losses
    metrics = {name: values[: traces.epochs[index], index] for name, values in traces.metrics.items()}
    logged = {name: [epoch.metrics.get(name, math.nan) for epoch in trace.epochs] for name in trace.epochs[0].metrics}
    for name in dict.fromkeys((*metrics, *logged)):
        if name not in metrics or name not in logged:
            raise UnstackableError(f"{name} is logged {'in a stack' if name in metrics else 'by a Trainer'} only")
        yield name, metrics[name], logged[name]
    last = trace.reached.last
    assert last is not None
    weights = last.checkpoint["state_dict"]
    mine = inputs.module.state_dict(keep_vars=True)
    others = [name for name, value in mine.items() if not is_trained(value)]
    if mine.keys() != weights.keys() or not all(is_equal(mine[name], weights[name]) for name in others):
        raise UnstackableError("its state_dict is another one by a Trainer")
    named = inputs.module.named_parameters()
    flat = torch.cat([weights[name].flatten() for name, value in named if value.requires_grad])
    yield "a parameter", traces.last.tensors["parameters"][:, index].cpu().double().numpy(), flat.double().numpy()
    for key, kept in (
        ("hyper_parameters", inputs.hparams[inputs.hparams_of[index]]),
        ("datamodule_hyper_parameters", inputs.rows.hparams[index]),
    ):
        if repr(last.checkpoint.get(key, {})) != repr(plain_values(kept)):
            raise UnstackableError(f"its {key.replace('_', ' ')} are others by a Trainer")


def extremes(configs: Sequence[Config]) -> list[int]:
    """Few jobs that hold the smallest and the largest of every value in which jobs differ; at least two, if there are.

    >>> from types import SimpleNamespace
    >>> groups = {"data": {}, "model": {}, "optimizer": {}, "scheduler": {}}
    >>> jobs = [SimpleNamespace(lr=lr, seed=seed, **groups) for lr in (0.1, 0.2, 0.3) for seed in (0, 1)]
    >>> extremes(jobs)
    [0, 5]
    """
    values = [dict(_values(config)) for config in configs]
    wanted: set[tuple[str, str]] = set()
    for path in dict.fromkeys(path for each in values for path in each):
        seen = {repr(each.get(path)): each.get(path) for each in values}
        if len(seen) > 1:
            numbers = {text: value for text, value in seen.items() if _is_number(value)}
            ends = sorted(numbers, key=lambda text: numbers[text])  # type: ignore[arg-type, return-value]
            others = [text for text in seen if text not in numbers][:_NAMED_VALUES]
            wanted |= {(path, text) for text in (*ends[:1], *ends[-1:], *others)}
    holds = [{pair for pair in wanted if repr(each.get(pair[0])) == pair[1]} for each in values]
    chosen: list[int] = []
    while wanted:
        best = max(range(len(configs)), key=lambda index: len(holds[index] & wanted))
        chosen.append(best)
        wanted -= holds[best]
    for index in range(len(configs)):
        if len(chosen) < min(2, len(configs)) and index not in chosen:
            chosen.append(index)
    return sorted(chosen)


def _values(config: Config) -> Iterator[tuple[str, Any]]:
    """Everything in which jobs of a stack may differ, by its key."""
    yield from (("lr", config.lr), ("seed", config.seed))
    for group in ("data", "model", "optimizer", "scheduler"):
        yield from _leaves(group, getattr(config, group))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(f"{path}.{key}", item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(f"{path}[{index}]", item)
    else:
        yield path, value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
