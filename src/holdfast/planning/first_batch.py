"""The first batch of every job: its loss, gradient and metrics in a stack, against those of its own module.

Two jobs at the ends of what is swept say nothing of one in the middle that is special. A few calls for each different
module do.
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
from holdfast.stacked.gradients import gradients_for, on_device
from holdfast.stacked.inputs import StackInputs
from holdfast.stacked.streams import Batch
from holdfast.usercode.watch import NoTrainer, UnstackableError


def compare_each(configs: Sequence[Config], tolerance: float) -> None:
    """Compare what a stack of jobs gives on one batch with what each of their modules gives.

    Args:
        configs: of the jobs.
        tolerance: largest relative difference.

    Raises:
        UnstackableError: a number differs.
    """
    inputs = StackInputs(configs, short=True)
    modules = [_Own(inputs, module) for module in inputs.modules]
    gradients = gradients_for(inputs.module, inputs.trainer, inputs.job_values)
    for source, (train, val) in enumerate(zip(inputs.rows.train, inputs.rows.val, strict=True)):
        jobs = np.flatnonzero(inputs.rows.dataset_of == source)
        first = Rows(train.x[: inputs.rows.batch_size], train.y[: inputs.rows.batch_size])
        batch, rows = (on_device(inputs.trainer, part) for part in (first, val))
        with torch.no_grad():
            gradients.set_layout(jobs[np.newaxis])
            start = inputs.initial_parameters[:, None, jobs]
            prepared = tuple(part[None, None] for part in gradients.prepare(batch))
            outcome, gradient = gradients(start, gradients.batches(prepared, len(jobs))[0])
            losses = gradients.losses([outcome])[0, 0]
            sums = gradients.statistics(start[:, 0], gradients.prepare(rows), jobs)
        for at, job in enumerate(jobs):
            expected = modules[inputs.hparams_of[job]].on(source, batch, rows)
            given = {"the loss": losses[at], "the gradient": gradient[:, 0, at], "a statistic": sums[at]}
            for name, stacked in given.items():
                compare(inputs.module, name, (_array(stacked), _array(expected[name])), tolerance)


class _Own:
    """The module of one job, and what it gives by itself."""

    def __init__(self, inputs: StackInputs, module: Module) -> None:
        self._inputs, self._module = inputs, module.to(inputs.trainer.strategy.root_device)
        self._known: dict[int, dict[str, Tensor]] = {}
        module.trainer = NoTrainer()  # type: ignore[assignment]

    def on(self, source: int, batch: Batch, rows: Batch) -> dict[str, Tensor]:
        """Loss, gradient and statistics on the rows of a data set."""
        if source not in self._known:
            parameters = [value for value in self._module.parameters() if value.requires_grad]
            with self._inputs.trainer.precision_plugin.forward_context():
                loss = self._module.loss(tuple(part.clone() for part in batch))
                parts = torch.autograd.grad(loss, parameters)
                self._module.eval()
                with torch.no_grad():
                    statistics = self._module.statistics(tuple(part.clone() for part in rows))
                self._module.train()
            gradient = torch.cat([part.flatten() for part in parts])
            self._known[source] = {"the loss": loss.detach(), "the gradient": gradient, "a statistic": statistics}
        return self._known[source]


def _array(values: Tensor) -> ArrayLike:
    array: ArrayLike = values.double().cpu().numpy()
    return array


def compare(module: Module, name: str, pair: tuple[ArrayLike, ArrayLike], tolerance: float) -> None:
    """Raise where what a stack gives differs from what is expected."""
    stacked, expected = (np.asarray(values, dtype=np.float64) for values in pair)
    text = f"{name} of {type(module).__name__} is another one in a stack than by a Trainer"
    if stacked.shape != expected.shape:
        raise UnstackableError(f"{text}: {stacked.size} values, not {expected.size}")
    finite = np.abs(expected[np.isfinite(expected)])
    scale = float(finite.max()) if finite.size else 0.0
    close = np.isclose(stacked, expected, rtol=tolerance, atol=tolerance * min(1.0, scale) + 1e-12, equal_nan=True)
    if not close.all():
        at = np.unravel_index(np.argmin(close), close.shape)
        raise UnstackableError(f"{text}: {float(stacked[at]):.6g}, not {float(expected[at]):.6g}")
