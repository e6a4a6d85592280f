"""The trial of a stack that calls the steps of a module: against a Trainer, and job by job on the first batch."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from holdfast.arithmetic.steps import loss_alone
from holdfast.config.schema import Config
from holdfast.errors import in_a_line
from holdfast.planning.agreement import compare
from holdfast.planning.extremes import extremes
from holdfast.planning.trial import TOLERANCES, fit, for_trial, in_double_if_possible, is_finite
from holdfast.planning.width import Cost, multiplications
from holdfast.record.history import History, StackHistory
from holdfast.runtime.isolation import isolated
from holdfast.single.event_logger import EventLogger
from holdfast.stacked.loop import Stack
from holdfast.stacked.module_engine import ModuleEngine
from holdfast.stacked.module_inputs import ModuleInputs
from holdfast.usercode.packages import place_of_users
from holdfast.usercode.watch import UnstackableError

_BATCHES = (12, 4)
"""Training and validation batches of an epoch of a trial."""

_ROUNDING = 1e-12
"""Size of a gradient, relative to the largest, below which it is only rounding in double precision."""

_MOST_AT_ONCE = 256
"""Jobs whose first batches are compared together."""

_COPIES = 10
"""Tensors of the size of a job's parameters: parameters, gradient, optimizer state, best epoch and last epoch."""


def try_steps(configs: Sequence[Config], most: int) -> str:
    """Train jobs in a stack and by a Trainer, and compare all results.

    The jobs that `extremes` chooses are trained; the first batch of every job is compared besides.

    Args:
        configs: configurations of jobs with the same structure.
        most: largest number of jobs in a stack.

    Returns:
        What the user has to know of the parameters whose gradient is only rounding; "" if there are none.

    Raises:
        UnstackableError: a number differs, or one of the two ways fails.
    """
    reference = in_double_if_possible(partial(_references, configs), configs[0].precision)
    inputs, history, logged = _train_stack(reference.configs)
    for index, (alone, seen) in enumerate(zip(reference.histories, reference.logged, strict=True)):
        _compare_job(inputs, history, alone, index, reference.tolerance)
        _compare_logged(inputs, logged, seen, index, reference.tolerance)
    at_once, noise = min(most, _MOST_AT_ONCE), dict[str, None]()
    for first in range(0, len(configs), at_once):
        some = [for_trial(config, reference.precision) for config in configs[first : first + at_once]]
        with isolated(), redirect_stdout(io.StringIO()):
            noise |= dict.fromkeys(_compare_first_batches(some, reference.tolerance))
    if not noise or reference.precision != "64-true" or configs[0].precision == "64-true":
        return ""
    return (
        f"{', '.join(noise)}: the gradient is zero but for rounding, which the optimizer divides by its size; "
        "in single precision such values are not those of a job alone. No loss in training depends on them; by the "
        "running means of a normalisation one in evaluation may"
    )


class _Reference(NamedTuple):
    """Jobs that were each trained by a Trainer.

    Attributes:
        configs: as they were trained.
        histories: one for each job.
        logged: what the loggers of each job were given: step, name and value.
        precision: of the training.
    """

    configs: list[Config]
    histories: list[History]
    logged: list[list[tuple[int, str, float]]]
    precision: str

    @property
    def tolerance(self) -> float:
        """Largest relative difference from them."""
        return TOLERANCES[self.precision]


def _references(configs: Sequence[Config], precision: str) -> _Reference:
    """Train the jobs with the extreme values by a Trainer.

    Jobs that diverge are left out, and others take their places: beyond all bounds only rounding could be compared.
    """
    limits = dict(zip(("limit_train_batches", "limit_val_batches"), _BATCHES, strict=True))
    trained: dict[int, tuple[Config, History, _Captured]] = {}
    left = list(range(len(configs)))
    while left:
        chosen = [left[index] for index in extremes([configs[job] for job in left])]
        for job in set(chosen) - trained.keys():
            config, logger = for_trial(configs[job], precision), _Captured()
            trained[job] = config, fit(config, {"logger": logger, **limits}), logger
        diverged = {job for job in chosen if not is_finite(trained[job][1])}
        if not diverged:
            some = [trained[job] for job in chosen]
            return _Reference(
                [each[0] for each in some], [each[1] for each in some], [each[2].seen for each in some], precision
            )
        left = [job for job in left if job not in diverged]
    raise UnstackableError("the losses of all its jobs that were tried are not finite")


class _Captured(EventLogger):
    """Keeps what a Trainer gives to loggers."""

    save_dir = log_dir = ""

    def __init__(self) -> None:
        self.seen: list[tuple[int, str, float]] = []
        self.experiment = None

    def finalize(self, status: str) -> None:
        """Nothing to do."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Keep metrics as they come."""
        self.seen += [(step or 0, name, value) for name, value in metrics.items() if name != "epoch"]


def _train_stack(configs: Sequence[Config]) -> tuple[ModuleInputs, StackHistory, list[tuple[int, str, Any]]]:
    """Train jobs as one program; returns also what was logged through Lightning."""
    with isolated(), redirect_stdout(io.StringIO()) as output:
        inputs = ModuleInputs(configs, _BATCHES)
        engine, printed_before = ModuleEngine(inputs), len(output.getvalue())
        try:
            history = Stack(engine).train()
        except UnstackableError:
            raise
        except Exception as error:
            engine.check()  # what the steps have done to the module may be the reason
            raise UnstackableError(_why(error)) from error
    if len(output.getvalue()) > printed_before:
        raise UnstackableError("it prints while it is trained")
    curves = history.curves.of_jobs(range(len(configs)))
    logged = [
        (int(step), name, curves.logged[row, column])
        for row, step in enumerate(curves.moments[:, 0])
        for column, name in enumerate(history.curves.logged_names)
        if curves.is_logged[row, column]
    ]
    return inputs, history, logged


def _why(error: Exception) -> str:
    """Why steps cannot be mapped over jobs, and where."""
    text, line = in_a_line(error), place_of_users(error)
    if "data-dependent control flow" in text:
        text = "it reads the value of a tensor, which is another one for each job (.item(), or a condition)"
    return f"it cannot be mapped over jobs: {text}{line}"


def _compare_job(inputs: ModuleInputs, history: StackHistory, alone: History, index: int, tolerance: float) -> None:
    """Compare the losses, metrics, parameters and buffers of one job."""
    module, curves = inputs.module, history.curves.of_jobs([index])
    compare(module, "the loss", curves.losses[: history.counts[index], 0], alone.losses, tolerance)
    measured = curves.metrics[: history.epochs[index], :, 0].T
    stacked = dict(zip(history.curves.names, measured, strict=True))
    expected = {name: [epoch.metrics.get(name, np.nan) for epoch in alone.epochs] for name in alone.epochs[0].metrics}
    for name in dict.fromkeys((*stacked, *expected)):
        if name not in stacked or name not in expected:
            raise UnstackableError(f"{name} is logged only {'in a stack' if name in stacked else 'by a Trainer'}")
        compare(module, name, stacked[name], expected[name], tolerance)
    last = alone.reached.last
    assert last is not None
    weights, tensors = last.checkpoint["state_dict"], history.last.tensors
    flat = torch.cat([weights[name].flatten() for names in inputs.names for name in names])
    compare(module, "a parameter", _array(tensors["parameters"][:, index]), _array(flat), tolerance)
    for name in (*inputs.constants, *inputs.buffers):
        if name in weights:
            stored = tensors[f"buffer/{name}"][:, index]
            compare(module, f"the buffer {name}", _array(stored), _array(weights[name].flatten()), tolerance)
    groups = last.checkpoint["optimizer_states"][0]["param_groups"]
    for mine, yours in zip(history.last.plain[index]["param_groups"], groups, strict=True):
        for key, value in mine.items():
            if isinstance(value, (int, float, tuple)):
                compare(module, f"{key} of the optimizer", np.array(value, float), np.array(yours[key], float), 1e-12)


def _compare_logged(
    inputs: ModuleInputs,
    logged: Sequence[tuple[int, str, Any]],
    seen: Sequence[tuple[int, str, float]],
    index: int,
    tolerance: float,
) -> None:
    """Compare what the loggers of one job are given."""
    mine = sorted((step, name, float(values[index])) for step, name, values in logged)
    yours = sorted(seen)
    if [entry[:2] for entry in mine] != [entry[:2] for entry in yours]:
        raise UnstackableError("its loggers are given other values, or at other steps, in a stack than by a Trainer")
    compare(inputs.module, "a logged value", [entry[2] for entry in mine], [entry[2] for entry in yours], tolerance)


def _compare_first_batches(configs: Sequence[Config], tolerance: float) -> list[str]:
    """Compare the first loss and gradient of every job with those of its module.

    Returns:
        The names of the parameters whose gradient is only rounding, where the optimizer divides it by its size.
    """
    inputs = ModuleInputs(configs, _BATCHES)
    engine, names = ModuleEngine(inputs), [name for names in inputs.names for name in names]
    engine.begin_epoch(0)
    generators = [job.generator.get_state() for job in inputs.jobs]
    rows, result = engine.first_step()
    for index, job in enumerate(inputs.jobs):
        batch = inputs.first_rows("train", 0).batch([leaf[rows[index]] for leaf in inputs.leaves("train", 0)])
        job.generator.set_state(generators[index])
        parameters = dict(job.module.named_parameters())
        job.stand_in.update(training=True)
        with job.drawing(), inputs.trainer.precision_plugin.forward_context():
            loss = loss_alone(job.module, job.stand_in, batch)
        gradient = torch.autograd.grad(loss, [parameters[name] for name in names])
        compare(inputs.module, "the loss", _array(result.outcome.loss[index]), _array(loss.detach()), tolerance)
        flat = torch.cat([part.flatten() for part in gradient])
        compare(inputs.module, "the gradient", _array(result.gradient[index]), _array(flat), tolerance)
    if type(inputs.jobs[0].optimizer) is torch.optim.SGD:
        return []
    sizes = [float(part.abs().max()) for part in gradient]  # of the last job
    return [name for name, size in zip(names, sizes, strict=True) if 0 < size < _ROUNDING * max(sizes)]


def probe_steps(configs: Sequence[Config]) -> Cost:
    """What a job costs.

    Args:
        configs: configurations of jobs with the same structure; the first is tried.

    Raises:
        UnstackableError: the steps of a single job do not work.
    """
    config = configs[0]
    inputs = ModuleInputs([config])
    saved: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor.nbytes)
        return tensor

    job, rows = inputs.jobs[0], inputs.first_rows("train", 0)
    batch = rows.batch([leaf[: inputs.batch_size] for leaf in rows.leaves])
    counted = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with counted, redirect_stdout(io.StringIO()), job.drawing(), inputs.trainer.precision_plugin.forward_context():
        parameters = [value for value in job.module.parameters() if value.requires_grad]
        count = multiplications(lambda: loss_alone(job.module, job.stand_in, batch), parameters)
    leaves = sum(leaf[: inputs.batch_size].nbytes for leaf in rows.leaves)
    others = sum(value.nbytes for value in (*inputs.constants.values(), *inputs.buffers.values()))
    iterations = config.epochs * inputs.iterations
    size = _COPIES * (inputs.parameters.nbytes + others) + 3 * (sum(saved) + leaves) + 8 * iterations
    return Cost(size, inputs.trainer.strategy.root_device, count, iterations)


def _array(values: Tensor) -> Any:
    return values.double().cpu().numpy()
