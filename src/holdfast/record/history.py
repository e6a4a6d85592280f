"""What happened in a run, or in the runs of a stack: losses, metrics, and the saved epochs."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from holdfast.record.curves import Curves
from holdfast.record.stopping import Standing
from holdfast.store.folders import RunFolder


@dataclass(frozen=True)
class Epoch:
    """One pass over the training rows.

    Attributes:
        metrics: by name, such as `val/loss`, `train/loss`, `train/lr`.
        iterations: updates of the parameters up to the end of this epoch, over all epochs.
        ended: end of the epoch, in seconds since 1970.
        inside: metrics of the best of several validations, where it is not the one at the end of the epoch.
    """

    metrics: dict[str, float]
    iterations: int
    ended: float
    inside: dict[str, float] | None = None

    @property
    def best(self) -> dict[str, float]:
        """The metrics by which the epoch may be the best."""
        return self.metrics if self.inside is None else self.inside


@dataclass(frozen=True)
class Snapshot:
    """A Lightning checkpoint, of the end of an epoch or of a validation inside of it; its tensors are copies."""

    epoch: int
    checkpoint: dict[str, Any]


@dataclass(frozen=True)
class Reached:
    """The state of a run at the end of its last complete epoch.

    Attributes:
        epochs: number of complete epochs.
        losses: number of losses.
        points: number of points of the parameter path.
        standing: the state of the stopping rules.
        best: the best epoch; None while no epoch was finite.
        last: the last epoch; None before the first one ended.
    """

    epochs: int = 0
    losses: int = 0
    points: int = 0
    standing: Standing = field(default_factory=Standing)
    best: Snapshot | None = None
    last: Snapshot | None = None


@dataclass
class History:
    """What happened in one run.

    Attributes:
        losses: the loss of every batch, in order.
        clock: pairs of a number of losses and the time at which it was reached, in seconds since 1970.
        parameter_path: for a model with two parameters, these before the first and after every `stride` iterations.
        recorded: the recorded epochs, in order; may hold one more than `reached` counts.
        reached: the state at the end of the last complete epoch.
    """

    losses: list[float] = field(default_factory=list)
    clock: list[tuple[int, float]] = field(default_factory=list)
    parameter_path: list[Tensor] = field(default_factory=list)
    recorded: list[Epoch] = field(default_factory=list)
    reached: Reached = field(default_factory=Reached)

    @property
    def epochs(self) -> list[Epoch]:
        """The complete epochs, in order."""
        return self.recorded[: self.reached.epochs]

    def end_epoch(self, epoch: Epoch, standing: Standing, candidate: Snapshot, last: Snapshot) -> None:
        """Add an epoch; a single assignment completes it, since a signal may end the run between any two statements.

        Args:
            epoch: what was measured.
            standing: the state of the stopping rules.
            candidate: the weights of `epoch.best`.
            last: the weights of the end of the epoch.
        """
        self.recorded.append(epoch)
        best = candidate if standing.best_epoch == last.epoch else self.reached.best
        self.reached = Reached(last.epoch + 1, len(self.losses), len(self.parameter_path), standing, best, last)


@dataclass
class SavedEpochs:
    """One saved epoch per run of a stack; the epochs may differ.

    Attributes:
        epoch: the saved epoch, shape `(runs,)`; -1 where none is saved.
        iterations: updates of the parameters up to the end of that epoch, shape `(runs,)`.
        metrics: what was measured at its end, by name, each of shape `(runs,)`.
        tensors: the parameters and the state of the optimizer, by name, each of shape `(parameters, runs)`.
        plain: what else a run is at that moment, in plain containers; empty where that follows from the epoch.
    """

    epoch: NDArray[np.int64]
    iterations: NDArray[np.int64]
    metrics: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    plain: list[Any] = field(default_factory=list)

    @classmethod
    def none(cls, runs: int) -> SavedEpochs:
        """No saved epoch for any run.

        >>> SavedEpochs.none(2).epoch
        array([-1, -1])
        """
        return cls(np.full(runs, -1), np.zeros(runs, dtype=np.int64))


@dataclass
class StackHistory:
    """What happened in the runs of a stack.

    Attributes:
        counts: number of iterations, shape `(runs,)`.
        epochs: number of epochs, shape `(runs,)`.
        standing: the state of the stopping rules.
        best, last: the best and the last epoch of each run.
        curves: losses of every iteration, metrics of every epoch, and parameter paths.
        began, ended: start and end of the training, in seconds since 1970.
        events: name of the event file of each run.
        seconds: duration of the training of all runs together.
    """

    counts: NDArray[np.int64]
    epochs: NDArray[np.int64]
    standing: Standing
    best: SavedEpochs
    last: SavedEpochs
    curves: Curves
    began: float
    events: str
    ended: float = 0.0
    seconds: float = 0.0

    @classmethod
    def start(cls, runs: int, curves: Curves) -> StackHistory:
        """The history before the first iteration.

        Args:
            runs: number of runs.
            curves: empty curves of these runs.
        """
        began = time.time()
        return cls(
            counts=np.zeros(runs, dtype=np.int64),
            epochs=np.zeros(runs, dtype=np.int64),
            standing=Standing.of_many(runs),
            best=SavedEpochs.none(runs),
            last=SavedEpochs.none(runs),
            curves=curves,
            began=began,
            events=RunFolder.events_name(began, socket.gethostname()),
        )
