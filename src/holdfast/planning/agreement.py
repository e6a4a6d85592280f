"""The first batch of every job: loss, gradient and metrics in a stack against those of the job's module.

The trial trains only a few jobs, those with the smallest and largest swept values; a job between them may still be a
special case. On one batch each different module is cheap to compare.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from holdfast.config.schema import Config
from holdfast.data import Rows
from holdfast.model import Module
from holdfast.stacked.gradients import Batch, engine, on_device
from holdfast.stacked.inputs import Members
from holdfast.usercode.watch import NoTrainer, UnstackableError


def compare_first_batches(configs: Sequence[Config], tolerance: float) -> None:
    """Compare what a stack of jobs computes on one batch with what each job's module computes.

    Args:
        configs: configurations of the jobs.
        tolerance: largest relative difference.

    Raises:
        UnstackableError: a number differs by more.
    """
    inputs = Members(configs, short=True)
    gradients = engine(inputs.module, inputs.trainer, inputs.numbers)
    for module in inputs.modules:
        module.to(inputs.trainer.strategy.root_device).trainer = NoTrainer()  # type: ignore[assignment]
    for source, (train, val) in enumerate(zip(inputs.train, inputs.val, strict=True)):
        jobs = np.flatnonzero(inputs.source_of == source)
        first = Rows(train.x[: inputs.batch_size], train.y[: inputs.batch_size])
        batch, rows = (on_device(inputs.trainer, part) for part in (first, val))
        with torch.no_grad():
            gradients.place(jobs[np.newaxis])
            start = inputs.start[:, None, jobs]
            prepared = tuple(part[None, None] for part in gradients.prepare(batch))
            outcome, gradient = gradients(start, gradients.batches(prepared, len(jobs))[0])
            losses = gradients.losses([outcome])[0, 0]
            sums = gradients.statistics(start[:, 0], gradients.prepare(rows), jobs)
        expected: dict[int, dict[str, Tensor]] = {}  # by the index of the module
        for index, job in enumerate(jobs):
            module_index = inputs.hparams_of[job]
            if module_index not in expected:
                expected[module_index] = _of_module(inputs, inputs.modules[module_index], batch, rows)
            stacked = {"the loss": losses[index], "the gradient": gradient[:, 0, index], "a statistic": sums[index]}
            for name, values in stacked.items():
                compare(inputs.module, name, _array(values), _array(expected[module_index][name]), tolerance)


def _of_module(inputs: Members, module: Module, batch: Batch, rows: Batch) -> dict[str, Tensor]:
    """The loss and the gradient of one module on a batch, and its statistics of validation rows."""
    parameters = [value for value in module.parameters() if value.requires_grad]
    with inputs.trainer.precision_plugin.forward_context():
        loss = module.loss(tuple(part.clone() for part in batch))
        parts = torch.autograd.grad(loss, parameters)
        module.eval()
        with torch.no_grad():
            statistics = module.statistics(tuple(part.clone() for part in rows))
        module.train()
    gradient = torch.cat([part.flatten() for part in parts])
    return {"the loss": loss.detach(), "the gradient": gradient, "a statistic": statistics}


def _array(values: Tensor) -> ArrayLike:
    array: ArrayLike = values.double().cpu().numpy()
    return array


def compare(module: Module, name: str, stacked: ArrayLike, expected: ArrayLike, tolerance: float) -> None:
    """Compare values from a stack with those from a Trainer or from the module by itself.

    Args:
        module: module of the jobs; the message names its class.
        name: name of the values, for the message.
        stacked: values from the stack.
        expected: values that they should equal; NaN equals NaN.
        tolerance: largest difference, relative to the value and, below 1, to the largest of the expected values.

    Raises:
        UnstackableError: the shapes differ, or a value differs by more.
    """
    stacked, expected = (np.asarray(values, dtype=np.float64) for values in (stacked, expected))
    text = f"{name} of {type(module).__name__} differs between a stack and a Trainer"
    if stacked.shape != expected.shape:
        raise UnstackableError(f"{text}: {stacked.size} values, not {expected.size}")
    finite = np.abs(expected[np.isfinite(expected)])
    scale = float(finite.max()) if finite.size else 0.0
    close = np.isclose(stacked, expected, rtol=tolerance, atol=tolerance * min(1.0, scale) + 1e-12, equal_nan=True)
    if not close.all():
        worst = np.unravel_index(np.argmin(close), close.shape)
        raise UnstackableError(f"{text}: {float(stacked[worst]):.6g}, not {float(expected[worst]):.6g}")
