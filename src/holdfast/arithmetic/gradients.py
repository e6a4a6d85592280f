"""The losses and gradients of many jobs at once: by formula where there is one, otherwise by torch.func.

The parameters of all jobs are one tensor of shape `(parameters, streams, width)`. The jobs of a stream visit the same
rows in the same order, so that a batch is read once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import lightning.pytorch as pl
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from holdfast.arithmetic.job_values import JobValues
from holdfast.arithmetic.layout import Batch
from holdfast.arithmetic.least_squares import LeastSquares
from holdfast.arithmetic.mapped import Mapped
from holdfast.arithmetic.tracing import TRACED_AFTER
from holdfast.model import Module


class Gradients(Protocol):
    """Computes losses, gradients and statistics of many jobs."""

    def prepare(self, rows: Batch) -> Batch:
        """Transform all rows once, before training; batches are gathered from the result."""

    def batches(self, gathered: Batch, width: int) -> list[Batch]:
        """Split gathered rows into the batches of single iterations.

        Args:
            gathered: prepared rows, shape `(iterations, streams, batch, ...)`.
            width: jobs of a stream.
        """

    def __call__(self, parameters: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compute the gradient for one batch.

        Args:
            parameters: shape `(parameters, streams, width)`.
            batch: one of `batches`.

        Returns:
            An outcome that `losses` takes, and the gradient, of the shape of the parameters.
        """

    def losses(self, outcomes: Sequence[Tensor]) -> Tensor:
        """The losses of some iterations, shape `(iterations, streams, width)`."""

    def set_layout(self, jobs: NDArray[np.int64]) -> None:
        """Set the index of the job in each cell of the parameters, shape `(streams, width)`."""

    def statistics(self, parameters: Tensor, prepared: Batch, jobs: NDArray[np.int64]) -> Tensor:
        """Sums over rows, for jobs that share the rows.

        Args:
            parameters: shape `(parameters, jobs)`.
            prepared: the prepared rows.
            jobs: the index of each job, shape `(jobs,)`.

        Returns:
            Shape `(jobs, sums)`.
        """


def gradients_for(
    module: Module, trainer: pl.Trainer, job_values: Sequence[JobValues] = (), traced_after: int = TRACED_AFTER
) -> Gradients:
    """The fastest implementation for a module.

    Args:
        module: the module that stands for all jobs.
        trainer: sets the precision.
        job_values: the values in which the jobs differ beside their parameters.
        traced_after: calls with the same shapes after which functions are traced.
    """
    precision = trainer.precision_plugin
    if not job_values and LeastSquares.fits(module, str(precision.precision)):
        return LeastSquares()
    return Mapped(module, precision.forward_context, job_values, traced_after)


def on_device(trainer: pl.Trainer, rows: Any) -> Batch:
    """Move rows to the device of a Trainer, in the type that its precision needs."""
    batch = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input((rows.x, rows.y)))
    return tuple(batch)
