"""The first batch of every job: loss, gradient and metrics in a stack against those of the job's module.

The trial trains only a few jobs, those with the smallest and largest swept values; a job between them may still be a
special case. On one batch each different module is cheap to compare.
"""

from __future__ import annotations

from collections.abc import Sequence

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from holdfast.arithmetic.gradients import Gradients, gradients_for, on_device
from holdfast.arithmetic.layout import Batch
from holdfast.config.schema import Config
from holdfast.data import Rows
from holdfast.model import Module
from holdfast.stacked.inputs import StackInputs
from holdfast.usercode.watch import NoTrainer, UnstackableError


def compare_first_batches(configs: Sequence[Config], tolerance: float) -> None:
    """Compare what a stack of jobs computes on one batch with what each job's module computes.

    Args:
        configs: configurations of the jobs.
        tolerance: largest relative difference.

    Raises:
        UnstackableError: a number differs by more.
    """
    inputs = StackInputs(configs, short=True)
    gradients = gradients_for(inputs.module, inputs.trainer, inputs.job_values)
    for module in inputs.modules:
        module.to(inputs.trainer.strategy.root_device).trainer = NoTrainer()  # type: ignore[assignment]
    for dataset, (train, val) in enumerate(zip(inputs.rows.train, inputs.rows.val, strict=True)):
        jobs = np.flatnonzero(inputs.rows.dataset_of == dataset)
        first = Rows(*train[: inputs.rows.batch_size])
        batch, rows = (on_device(inputs.trainer, part) for part in (first, val))
        stacked = in_a_stack(gradients, inputs.initial_parameters[:, jobs], batch, rows, jobs)
        expected: dict[int, dict[str, Tensor]] = {}  # by the index of the module
        for index, job in enumerate(jobs):
            module_index = inputs.hparams_of[job]
            if module_index not in expected:
                expected[module_index] = _of_module(inputs, inputs.modules[module_index], batch, rows)
            for name, values in expected[module_index].items():
                compare(inputs.module, name, _array(stacked[name][index]), _array(values), tolerance)


def in_a_stack(
    gradients: Gradients, parameters: Tensor, batch: Batch, rows: Batch, jobs: NDArray[np.int64]
) -> dict[str, Tensor]:
    """Compute the losses and gradients of jobs on one batch, and the statistics of other rows, as a stack does.

    Args:
        gradients: from `gradients_for`.
        parameters: parameters of the jobs, shape `(parameters, jobs)`.
        batch: x and y, for losses and gradients.
        rows: x and y, for statistics.
        jobs: indexes of the jobs, shape `(jobs,)`.

    Returns:
        Values of each job by their name, shape `(jobs, ...)`.
    """
    with torch.no_grad():
        gradients.set_layout(jobs[np.newaxis])
        prepared = tuple(part[None, None] for part in gradients.prepare(batch))  # (iterations, streams, batch, ...)
        outcome, gradient = gradients(parameters[:, None], gradients.batches(prepared, len(jobs))[0])
        return {
            "the loss": gradients.losses([outcome])[0, 0],
            "the gradient": gradient[:, 0].T,
            "a statistic": gradients.statistics(parameters, gradients.prepare(rows), jobs),
        }


def _of_module(inputs: StackInputs, module: Module, batch: Batch, rows: Batch) -> dict[str, Tensor]:
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


def compare(module: pl.LightningModule, name: str, stacked: ArrayLike, expected: ArrayLike, tolerance: float) -> None:
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
