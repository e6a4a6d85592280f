"""What happened in a run, whichever engine trained it, and the one rule that judges it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from holdfast.config.schema import Config
from holdfast.record.parameter_path import Descents

CHECK_EVERY = 1000
"""Iterations after which losses are looked at inside an epoch, so that a long one does not train on through NaN."""


Tell = Callable[[int, float], None]
"""Told after every epoch: its number, and the best metric so far."""


def no_one(epoch: int, best: float) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class Rules:
    """When an epoch is the best, and when a run ends early.

    Attributes:
        metric: what the best epoch is chosen by.
        mode: whether a lower ("min") or a higher ("max") metric is better.
        threshold: a loss above this, in size, counts as diverged.
        patience: epochs without improvement before a run ends; None never ends it.
        min_delta: smallest change that counts as improvement for `patience`.
    """

    metric: str = "val/loss"
    mode: Literal["min", "max"] = "min"
    threshold: float = 1e12
    patience: int | None = None
    min_delta: float = 0.0

    @classmethod
    def of(cls, config: Config) -> Rules:
        """The rules that a configuration asks for."""
        stopping = config.callbacks.early_stopping
        threshold = config.callbacks.divergence.threshold
        return cls(config.metric, config.mode, threshold, stopping.patience, stopping.min_delta)

    def within(self, loss: Any) -> Any:
        """Whether losses are finite and below the threshold."""
        return np.abs(loss) <= self.threshold  # False for NaN too


@dataclass(frozen=True)
class Standing:
    """Where runs stand after some epochs: of one run numbers, of many runs arrays with an entry each.

    Attributes:
        best_epoch: the best epoch so far; -1 while no epoch was finite.
        best: its metric.
        reference: the metric that the next improvement is measured from.
        waited: epochs since the last improvement.
        end: why a run is over, "diverged" or "stopped"; "" while it is not.
    """

    best_epoch: Any = -1
    best: Any = math.nan
    reference: Any = math.nan
    waited: Any = 0
    end: Any = ""


def judge(standing: Standing, epoch: int, metrics: Mapping[str, Any], worst: Any, rules: Rules) -> Standing:
    """Where runs stand after one more epoch; those that are over stay where they are.

    An epoch in which a loss is not finite, or passes the threshold, ends a run as diverged and is never the best.
    A metric that is not finite is never the best. Of equal epochs the first stays the best.

    Args:
        standing: where the runs stood before.
        epoch: the number of this epoch, from 0.
        metrics: the metrics of this epoch, a number or an array with an entry for each run; must hold
            `rules.metric`, unless all runs diverged.
        worst: the largest loss of an iteration of this epoch, in size; NaN if one was not finite.
        rules: what counts.

    >>> judge(Standing(), 0, {"val/loss": 0.5}, worst=1.0, rules=Rules()).best_epoch
    array(0)
    >>> judge(Standing(), 0, {"val/loss": np.array([0.5, 0.7])}, worst=np.array([np.nan, 1.0]), rules=Rules()).end
    array(['diverged', ''], dtype='<U8')
    """
    running = np.asarray(standing.end) == ""
    losses = (worst, metrics.get("val/loss", 0.0), metrics.get("train/loss", 0.0))
    lost = np.logical_not(np.logical_and.reduce(np.broadcast_arrays(*map(rules.within, losses))))
    value = metrics.get(rules.metric, math.nan)
    sign = 1 if rules.mode == "min" else -1
    counts = running & ~lost & np.isfinite(value)
    # what is asked is whether it is not worse, since nothing is better than the NaN that all begin with
    better = counts & ~(sign * value >= sign * standing.best)
    improved = counts & ~(sign * value >= sign * standing.reference - rules.min_delta)
    waited = np.where(improved, 0, standing.waited + (running & ~lost))
    stopped = running & ~lost & (rules.patience is not None and waited >= rules.patience)
    return Standing(
        best_epoch=np.where(better, epoch, standing.best_epoch),
        best=np.where(better, value, standing.best),
        reference=np.where(improved, value, standing.reference),
        waited=waited,
        end=np.where(running & lost, "diverged", np.where(stopped, "stopped", standing.end)),
    )


def worst(losses: Any) -> Any:
    """The largest of some losses, in size, along the first axis; not finite if one of them is not.

    >>> worst([1.0, -3.0]), worst([1.0, float("nan")])
    (np.float64(3.0), np.float64(nan))
    """
    return np.max(np.abs(np.asarray(losses, dtype=np.float64)), axis=0, initial=0.0)


def divergence(epoch: int, rules: Rules) -> str:
    """What is said of a run that diverged in an epoch."""
    return f"diverged in epoch {epoch}: a loss was not finite, or passed {rules.threshold:g}"


@dataclass(frozen=True)
class Epoch:
    """One pass over the training rows.

    Attributes:
        metrics: by name, as `val/loss`, `train/loss`, `lr`.
        iterations: updates of the parameters up to its end, over all epochs.
        ended: in seconds since 1970.
    """

    metrics: dict[str, float]
    iterations: int
    ended: float


@dataclass(frozen=True)
class Snapshot:
    """A Lightning checkpoint of one epoch, its tensors independent of the module they came from."""

    epoch: int
    checkpoint: dict[str, Any]


@dataclass(frozen=True)
class Reached:
    """How far a run was at the end of its last epoch, all of it of the same epoch.

    Attributes:
        epochs: how many.
        losses: how many.
        points: of the descent, how many.
        standing: where the run stands.
        best, last: the best and the last epoch; best is None while no epoch was finite.
    """

    epochs: int = 0
    losses: int = 0
    points: int = 0
    standing: Standing = field(default_factory=Standing)
    best: Snapshot | None = None
    last: Snapshot | None = None


@dataclass
class Trace:
    """All that an engine tells of a run.

    Attributes:
        losses: of every batch, in order.
        clock: numbers of losses, each with the time it was reached, in seconds since 1970.
        descent: of a model with two parameters, these before the first and after every `stride` iterations.
        begun: every epoch, in order; of the last there may be no more than this.
        reached: the end of the last epoch.
    """

    losses: list[float] = field(default_factory=list)
    clock: list[tuple[int, float]] = field(default_factory=list)
    descent: list[Tensor] = field(default_factory=list)
    begun: list[Epoch] = field(default_factory=list)
    reached: Reached = field(default_factory=Reached)

    @property
    def epochs(self) -> list[Epoch]:
        """Every epoch that ended, in order."""
        return self.begun[: self.reached.epochs]

    def end_epoch(self, epoch: Epoch, standing: Standing, last: Snapshot) -> None:
        """Add an epoch; one assignment makes it count, since a signal may stop the run between any two."""
        self.begun.append(epoch)
        best = last if standing.best_epoch == last.epoch else self.reached.best
        self.reached = Reached(last.epoch + 1, len(self.losses), len(self.descent), standing, best, last)


@dataclass
class Kept:
    """One epoch of many runs, not the same of each.

    Attributes:
        epoch: of each run, shape `(runs,)`; -1 while there is none.
        iterations: updates of the parameters up to its end, shape `(runs,)`.
        tensors: parameters and what the optimizer remembers, by name, each of shape `(parameters, runs)`.
    """

    epoch: NDArray[np.int64]
    iterations: NDArray[np.int64]
    tensors: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Traces:
    """All that the stacked engine tells of its runs: what `Trace` tells of one.

    Attributes:
        losses: of every iteration, shape `(iterations, runs)`; a run has as many as `counts` says.
        counts: shape `(runs,)`.
        clock: numbers of iterations, each with the time it was reached, in seconds since 1970.
        metrics: by name, shape `(epochs, runs)`; a run has as many as `epochs` says.
        epochs: shape `(runs,)`.
        ended: the time at which each epoch ended, shape `(epochs,)`.
        standing: where the runs stand.
        best, last: the best and the last epoch of each.
        seconds: what training them took, all together.
        descents: of models with two parameters the ways of these; None where nobody asked, or of other models.
    """

    losses: NDArray[Any]
    counts: NDArray[np.int64]
    clock: list[tuple[int, float]]
    metrics: dict[str, NDArray[np.float64]]
    epochs: NDArray[np.int64]
    ended: list[float]
    standing: Standing
    best: Kept
    last: Kept
    seconds: float
    descents: Descents | None = None
