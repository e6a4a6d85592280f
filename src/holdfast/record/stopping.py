"""When an epoch is the best, and when a run ends: the rules that both engines follow."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from holdfast.config.fold import fold_of
from holdfast.config.options import OPTIONS, TABLE
from holdfast.config.schema import Config

CHECK_EVERY = 1000
"""Iterations between two checks of the losses inside an epoch, so that a long epoch does not train on through NaN."""


@dataclass(frozen=True)
class StoppingRules:
    """When an epoch is the best, and when a run ends early.

    Attributes:
        metric: name of the metric that the best epoch is chosen by.
        mode: whether a lower ("min") or a higher ("max") metric is better.
        threshold: a loss whose absolute value is above this counts as diverged.
        has_units: whether the metrics are in the units of a table, and only the losses of batches are not: these alone
            are compared with the threshold.
        patience: epochs without improvement after which a run ends; None: never.
        min_delta: smallest change of the metric that counts as improvement for `patience`.
        has_units: whether the metric is in units of the target, where a large loss is no divergence.
        on_fold: whether the metric of every epoch is recorded, since settings are compared at one epoch of all folds.
        last_is_best: whether the best epoch is the last, since the validation rows are trained on.
    """

    metric: str = "val/loss"
    mode: Literal["min", "max"] = "min"
    threshold: float = 1e12
    patience: int | None = None
    min_delta: float = 0.0
    has_units: bool = False
    on_fold: bool = False
    last_is_best: bool = False

    @classmethod
    def from_config(cls, config: Config) -> StoppingRules:
        """The rules that a configuration sets."""
        stopping = config.callbacks.early_stopping
        threshold = config.callbacks.divergence.threshold
        has_units = config.data["_target_"] == TABLE and config.model["_target_"] in OPTIONS
        rules = cls(config.metric, config.mode, threshold, stopping.patience, stopping.min_delta, has_units)
        fold = fold_of(config.data)
        if fold is not None and fold.number is None:  # its validation rows are trained on: they cannot choose an epoch
            return replace(rules, patience=None, last_is_best=True)
        return replace(rules, on_fold=fold is not None)

    def by_epoch(self, values: Iterable[float]) -> list[float | None] | None:
        """The metric of every epoch, as a result records it: of jobs on a fold alone, which are compared by it.

        >>> StoppingRules(on_fold=True).by_epoch([1.5, math.nan])
        [1.5, None]
        """
        return [float(value) if math.isfinite(value) else None for value in values] if self.on_fold else None

    def within(self, loss: Any) -> Any:
        """Whether losses are finite and not above the threshold, elementwise.

        >>> StoppingRules(threshold=10.0).within([1.0, -11.0, math.nan]).tolist()
        [True, False, False]
        """
        return np.abs(loss) <= self.threshold  # False for NaN too

    def within_metric(self, loss: Any) -> Any:
        """The same for a loss that was measured.

        >>> StoppingRules(threshold=10.0, has_units=True).within_metric([11.0, math.inf]).tolist()
        [True, False]
        """
        return np.isfinite(loss) if self.has_units else self.within(loss)

    def better(self, metrics: Mapping[str, Any], best: Any, best_loss: Any) -> Any:
        """Whether metrics are better than the best so far, elementwise; of equal ones the lower `val/loss` is better.

        Args:
            metrics: by name.
            best, best_loss: `metric` and `val/loss` of the best so far; NaN while there is none.

        >>> StoppingRules("val/acc", "max").better({"val/acc": 0.9, "val/loss": 1.0}, best=0.9, best_loss=2.0)
        np.True_
        """
        value, loss = metrics.get(self.metric, math.nan), metrics.get("val/loss", math.nan)
        sign = 1 if self.mode == "min" else -1
        # "not worse" instead of "better": a comparison with the initial NaN is False, and the first value has to win
        wins = ~(np.asarray(sign * value) >= sign * np.asarray(best))
        if self.last_is_best:
            return np.isfinite(value)
        return np.isfinite(value) & (wins | ((value == best) & np.less(loss, best_loss)))


@dataclass(frozen=True)
class Standing:
    """The state of the stopping rules after some epochs: numbers for one run, arrays of shape `(runs,)` for many.

    Attributes:
        best_epoch: the best epoch so far; -1 while no epoch was finite.
        best: the metric of the best epoch.
        best_loss: its `val/loss`, which decides between epochs with the same metric.
        reference: the metric that the next improvement is measured from.
        waited: epochs since the last improvement.
        end: why a run is over, "diverged" or "stopped"; "" while it runs.
    """

    best_epoch: Any = -1
    best: Any = math.nan
    best_loss: Any = math.nan
    reference: Any = math.nan
    waited: Any = 0
    end: Any = ""

    @classmethod
    def of_many(cls, runs: int) -> Standing:
        """The initial standing of many runs.

        >>> Standing.of_many(2).best_epoch
        array([-1, -1])
        """
        return cls(
            best_epoch=np.full(runs, -1),
            best=np.full(runs, math.nan),
            best_loss=np.full(runs, math.nan),
            reference=np.full(runs, math.nan),
            waited=np.zeros(runs, dtype=np.int64),
            end=np.full(runs, "", dtype="<U8"),
        )


def judge(
    standing: Standing,
    epoch: int,
    metrics: Mapping[str, Any],
    largest: Any,
    rules: StoppingRules,
    *,
    may_stop: bool = True,
) -> Standing:
    """Update the standing of runs with the metrics of one more epoch; runs that are over do not change.

    An epoch in which a loss is not finite, or passes the threshold, ends a run as diverged and is never the best.
    A metric that is not finite is never the best. Of epochs with the same metric the one with the lowest `val/loss` is
    the best, of equal ones the first. An epoch in which the metric was not measured changes neither the best epoch nor
    the count of epochs without improvement.

    Args:
        standing: the standing before this epoch.
        epoch: the number of this epoch, from 0.
        metrics: the metrics of this epoch, numbers or arrays of shape `(runs,)`.
        largest: the largest absolute training loss of this epoch; NaN if one was not finite.
        rules: the stopping rules.
        may_stop: whether a run may end for want of improvement.

    >>> judge(Standing(), 0, {"val/loss": 0.5}, largest=1.0, rules=StoppingRules()).best_epoch
    array(0)
    >>> metrics, largest = {"val/loss": np.array([0.5, 0.7])}, np.array([np.nan, 1.0])
    >>> judge(Standing(), 0, metrics, largest, StoppingRules()).end
    array(['diverged', ''], dtype='<U8')
    """
    running = np.asarray(standing.end) == ""
    measured = (rules.within_metric(metrics.get(name, 0.0)) for name in ("val/loss", "train/loss"))
    diverged = np.logical_not(np.logical_and.reduce(np.broadcast_arrays(rules.within(largest), *measured)))
    value = metrics.get(rules.metric, math.nan)
    sign = 1 if rules.mode == "min" else -1
    eligible = running & ~diverged & np.isfinite(value)
    better = eligible & rules.better(metrics, standing.best, standing.best_loss)
    counted = running & ~diverged & (rules.metric in metrics)
    improved = eligible & np.logical_not(sign * value >= sign * standing.reference - rules.min_delta)
    waited = np.where(improved, 0, standing.waited + counted)
    stopped = may_stop & running & ~diverged & (rules.patience is not None and waited >= rules.patience)
    return Standing(
        best_epoch=np.where(better, epoch, standing.best_epoch),
        best=np.where(better, value, standing.best),
        best_loss=np.where(better, metrics.get("val/loss", math.nan), standing.best_loss),
        reference=np.where(improved, value, standing.reference),
        waited=waited,
        end=np.where(running & diverged, "diverged", np.where(stopped, "stopped", standing.end)),
    )


def largest_loss(losses: Any) -> Any:
    """The largest absolute value along the first axis; not finite if any loss is not finite.

    >>> largest_loss([1.0, -3.0]), largest_loss([1.0, float("nan")])
    (np.float64(3.0), np.float64(nan))
    """
    return np.max(np.abs(np.asarray(losses, dtype=np.float64)), axis=0, initial=0.0)


def divergence_message(epoch: int, rules: StoppingRules) -> str:
    """The error of a run that diverged in an epoch.

    >>> divergence_message(3, StoppingRules())
    'diverged in epoch 3: a loss was not finite, or passed 1e+12'
    """
    return f"diverged in epoch {epoch}: a loss was not finite, or passed {rules.threshold:g}"
