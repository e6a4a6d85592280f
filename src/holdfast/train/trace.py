"""What happened in a run, whichever engine trained it, and the one rule that judges it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from holdfast.schema import Config

CHECK_EVERY = 1000
"""Iterations after which losses are looked at inside an epoch, so that a long one does not train on through NaN."""


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

    def within(self, loss: float) -> bool:
        """Whether a loss is finite and below the threshold."""
        return abs(loss) <= self.threshold  # False for NaN too


@dataclass(frozen=True)
class Standing:
    """Where a run stands after some epochs.

    Attributes:
        best_epoch: the best epoch so far; None while no epoch was finite.
        best: its metric.
        reference: the metric that the next improvement is measured from.
        waited: epochs since the last improvement.
        end: why the run is over, or None.
    """

    best_epoch: int | None = None
    best: float = math.nan
    reference: float = math.nan
    waited: int = 0
    end: Literal["diverged", "stopped"] | None = None


def judge(standing: Standing, epoch: int, metrics: Mapping[str, float], worst: float, rules: Rules) -> Standing:
    """Where a run stands after one more epoch.

    An epoch in which a loss is not finite, or passes the threshold, ends the run as diverged and is never the best.
    A metric that is not finite is never the best. Of equal epochs the first stays the best.

    Args:
        standing: where the run stood before.
        epoch: the number of this epoch, from 0.
        metrics: the metrics of this epoch; must hold `rules.metric`.
        worst: the largest loss of an iteration of this epoch, in size; NaN if one was not finite.
        rules: what counts.

    >>> judge(Standing(), 0, {"val/loss": 0.5}, worst=1.0, rules=Rules()).best_epoch
    0
    >>> judge(Standing(), 0, {"val/loss": 0.5}, worst=float("nan"), rules=Rules()).end
    'diverged'
    """
    losses = (worst, metrics.get("val/loss", 0.0), metrics.get("train/loss", 0.0))
    if not all(map(rules.within, losses)):
        return replace(standing, end="diverged")
    value = metrics[rules.metric]
    sign = 1 if rules.mode == "min" else -1
    if math.isfinite(value) and not sign * value >= sign * standing.best:
        standing = replace(standing, best_epoch=epoch, best=value)
    if math.isfinite(value) and not sign * value >= sign * standing.reference - rules.min_delta:
        return replace(standing, reference=value, waited=0)
    waited = standing.waited + 1
    stopped = rules.patience is not None and waited >= rules.patience
    return replace(standing, waited=waited, end="stopped" if stopped else None)


def worst(losses: list[float]) -> float:
    """The largest of some losses, in size; NaN if one is not finite.

    >>> worst([1.0, -3.0]), worst([1.0, float("inf")])
    (3.0, nan)
    """
    return max(map(abs, losses), default=0.0) if all(map(math.isfinite, losses)) else math.nan


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


@dataclass
class Trace:
    """All that an engine tells of a run.

    Attributes:
        losses: of every batch, in order.
        clock: numbers of losses, each with the time it was reached, in seconds since 1970.
        epochs: every epoch, in order.
        standing: where the run stands.
        best, last: the best and the last epoch; best is None while no epoch was finite.
    """

    losses: list[float] = field(default_factory=list)
    clock: list[tuple[int, float]] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    standing: Standing = field(default_factory=Standing)
    best: Snapshot | None = None
    last: Snapshot | None = None
