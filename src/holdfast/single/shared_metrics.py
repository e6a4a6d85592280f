"""Metrics of rows that several processes share: the same as of one process that measures all of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor, distributed

from holdfast.data.split import Split
from holdfast.model import Module
from holdfast.single.shared_rows import Rows, RowShares
from holdfast.single.train_metrics import added

log = logging.getLogger(__name__)


def share_evaluation(trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule) -> None:
    """Let the processes of a Trainer share the rows of validation and test, and combine what they measure.

    The statistics of Holdfast's own modules are added up. Of what other modules log over an epoch without
    `sync_dist=True`, which would be that of each process alone, means are weighted by rows, and sums, minima and maxima
    are those of all processes. Does nothing where there is one process.
    """
    if trainer.world_size == 1:
        return
    shares = RowShares(trainer, module, data)
    if isinstance(module, Module):
        add = added(trainer)
        module.share_rows(lambda split, total: add(total) if shares.of(split) is Rows.SHARED else total)
    combiner = _Combiner(trainer, shares)
    connector: Any = trainer._logger_connector
    for name in ("epoch_end_reached", "update_eval_epoch_metrics"):
        setattr(connector, name, combiner.before(getattr(connector, name)))


class _Logged(NamedTuple):
    """What one process has logged under one name over an epoch.

    Attributes:
        value: the sum over its batches, weighted by their rows where the mean is asked for; or the extreme.
        weight: the sum of the weights.
        kind: `mean`, `sum`, `min` or `max`.
    """

    value: float
    weight: float
    kind: str


class _Combiner:
    """Combines what the module has logged, before Lightning computes the metrics of an epoch from it."""

    def __init__(self, trainer: pl.Trainer, shares: RowShares) -> None:
        self._trainer, self._shares = trainer, shares
        self._written: dict[str, Tensor] = {}  # values that are combined already, by key
        self._said = False

    def before(self, compute: Callable[[], Any]) -> Callable[[], Any]:
        """The function `compute` of Lightning, with all processes' values combined before it is called."""

        def combined() -> Any:
            self._combine()
            return compute()

        return combined

    def _combine(self) -> None:
        results = self._trainer._results
        split: Split = "test" if self._trainer.testing else "val"
        if results is None or not distributed.is_initialized():
            return
        is_evaluation = not results.training
        mode = self._shares.of(split) if is_evaluation else Rows.SHARED
        metrics: dict[str, Any] = {key: each for key, each in results.items() if self._is_of_one_process(key, each)}
        if mode is Rows.ALL:
            for metric in results.values():
                metric.meta.sync.should = False  # every process has the value of all rows
            return
        here = {key: _logged(each, self._shares.counts.get(split, 1)) for key, each in metrics.items()}
        gathered: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(gathered, here)
        changed = []
        for key, metric in metrics.items():
            logged = [each[key] for each in gathered if key in each]
            if mode is Rows.UNKNOWN and logged[0].kind == "sum":
                continue  # the processes may have measured the same rows
            if len({each.value / (each.weight or 1) for each in logged}) > 1 or logged[0].kind == "sum":
                changed.append(metric.meta.name)
                _write(metric, logged)
            self._written[key] = metric.value
        if changed and is_evaluation and not self._said and self._trainer.is_global_zero:
            self._said = True
            names = ", ".join(dict.fromkeys(changed))
            log.info("logged without sync_dist=True, and combined over %d processes: %s", len(gathered), names)

    def _is_of_one_process(self, key: str, metric: Any) -> bool:
        """Whether a metric is a number of this process alone, over an epoch."""
        meta = metric.meta
        is_new = metric.is_tensor and metric.update_called and metric.value is not self._written.get(key)
        return bool(is_new and meta.on_epoch and not meta.sync.should and not meta.sync.rank_zero_only)


def _logged(metric: Any, rows: int) -> _Logged:
    kind = metric.meta.reduce_fx.__name__
    if kind != "mean":
        return _Logged(float(metric.value), 1.0, kind)
    weight = float(metric.cumulated_batch_size)
    # a mean that is logged once, at the end of the epoch, is one of all rows of the process
    factor = rows if metric.meta.fx.endswith("_epoch_end") else 1
    return _Logged(float(metric.value) * factor, weight * factor, kind)


def _write(metric: Any, logged: Sequence[_Logged]) -> None:
    """Put the value of all processes in the place of that of this one."""
    values, kind = torch.tensor([each.value for each in logged], dtype=torch.float64), logged[0].kind
    combined = values.sum() if kind in ("mean", "sum") else values.min() if kind == "min" else values.max()
    metric.value = torch.full_like(metric.value, float(combined))
    if kind == "mean":
        total = sum(each.weight for each in logged)
        metric.cumulated_batch_size = torch.full_like(metric.cumulated_batch_size, total)
    metric._computed = None
