"""The contract between the training loop of a stack and the engines that compute what it trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from holdfast.arithmetic.layout import Indexes, Layout
from holdfast.config.schema import Config

Metrics = dict[str, NDArray[np.float64]]
"""Metrics of jobs by name, such as `val/loss`, each of shape `(jobs,)`."""

Tensors = dict[str, Tensor]
"""What a job is at one moment, by name: its parameters, the state of its optimizer, its buffers."""


class Logged(NamedTuple):
    """What the loggers of each job would have been given at one moment.

    Attributes:
        step: the step at which Lightning logs.
        epoch_start: at the end of an epoch, the iterations before it: a job that has diverged in this epoch logs at its
            own last step; -1 at other moments.
        values: by name, of the jobs in all rows.
    """

    step: int
    epoch_start: int
    values: Metrics


class Engine(Protocol):
    """Computes the iterations and the metrics of the jobs of a stack.

    Attributes:
        config: configuration of the first job; the keys that the loop reads are the same for all.
        jobs: number of jobs.
        iterations: of an epoch.
        batch_size: rows of an iteration.
        stream_of: the stream of each job: jobs of one stream read the same batches, shape `(jobs,)`.
        logged: what was logged since this list was last emptied.
        splits_epochs: whether a snapshot can be taken between any two iterations, and not only between two epochs.
    """

    config: Config
    jobs: int
    iterations: int
    batch_size: int
    stream_of: Indexes
    logged: list[Logged]
    splits_epochs: bool

    @property
    def parameters(self) -> Tensor:
        """The trained parameters, shape `(parameters, streams, width)`; before the first `set_tensors` `(…, jobs)`."""

    def begin_epoch(self, epoch: int) -> None:
        """Prepare the iterations of an epoch."""

    def train(self, done: int, after_step: Callable[[Tensor], None] | None) -> list[Tensor]:
        """Some more iterations; none goes beyond the next `CHECK_EVERY` iterations.

        Args:
            done: iterations of this epoch so far.
            after_step: called with the parameters after every iteration.

        Returns:
            What `losses` takes, one entry for each iteration.
        """

    def losses(self, outcomes: list[Tensor]) -> Tensor:
        """The losses of some iterations, shape `(iterations, streams, width)`."""

    def validate(self, epoch: int) -> Metrics:
        """The metrics at the end of an epoch, of the jobs in all columns."""

    def measure_train(self) -> Metrics:
        """The metrics over all training rows, likewise."""

    def rates(self, epoch: int) -> NDArray[np.float64]:
        """The learning rate of each job in an epoch, shape `(jobs,)`."""

    def tensors(self) -> Tensors:
        """Everything that one iteration passes on to the next, each of shape `(numbers, streams, width)`."""

    def plain(self, jobs: Indexes) -> list[Any] | None:
        """What else each job is at the end of an epoch, in plain containers; None where that follows from the epoch."""

    def set_tensors(self, tensors: Mapping[str, Tensor], layout: Layout, steps: int) -> None:
        """Go on with other tensors, in another layout, after a number of iterations."""

    def freeze(self, columns: Indexes) -> None:
        """Keep what some jobs have logged so far: they have diverged, and their epoch ends here."""

    def put(self, columns: Indexes, tensors: Mapping[str, Tensor]) -> None:
        """Put tensors of earlier back, of some jobs, each of shape `(numbers, columns)`."""

    def snapshot(self) -> dict[str, Any]:
        """All that `restore` needs to go on from here, in plain containers and tensors."""

    def restore(self, snapshot: Mapping[str, Any], layout: Layout, steps: int) -> None:
        """Go on from a snapshot, in the layout in which it was taken, after a number of iterations."""

    def check(self) -> None:
        """Check that the user's code has done nothing that it must not do in a stack.

        Raises:
            UnstackableError: it has.
        """
