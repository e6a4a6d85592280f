"""Metrics of rows that several processes share: the same as of one process that measures all of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import distributed

from holdfast.data.split import Split
from holdfast.model import Module
from holdfast.single.shared_rows import Rows, RowShares
from holdfast.single.train_metrics import added

log = logging.getLogger(__name__)


def share_evaluation(trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule) -> None:
    """Let the processes of a Trainer share the rows of validation and test, and combine what they measure.

    The statistics of Holdfast's own modules are added up. Of what other modules log over an epoch, with or without
    `sync_dist=True`, means are weighted by rows, and sums, minima and maxima are those of all processes. Does nothing
    where there is one process.
    """
    if trainer.world_size == 1:
        return
    shares = RowShares(trainer, module, data)
    if isinstance(module, Module):
        add = added(trainer)
        module.share_rows(lambda split, total: add(total) if shares.of(split) is Rows.SHARED else total)
    combiner = _Combiner(trainer, shares)
    connector: Any = trainer._logger_connector
    for name in ("epoch_end_reached", "on_epoch_end"):  # before, and after the hooks at the end of an epoch
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
    """Combines what the module has logged, before Lightning computes the metrics of an epoch from it.

    Lightning's own reduction, for what is logged with `sync_dist=True`, is replaced: it rounds the mean number of rows
    to a whole number.
    """

    def __init__(self, trainer: pl.Trainer, shares: RowShares) -> None:
        self._trainer, self._shares = trainer, shares
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
        mode = Rows.SHARED if results.training else self._shares.of(split)
        metrics: dict[str, Any] = {key: each for key, each in results.items() if _is_number_of_epoch(each)}
        here = {key: _logged(each, self._shares.counts.get(split, 1)) for key, each in metrics.items()}
        gathered: list[Any] = [here]
        if mode is not Rows.ALL:
            gathered = [None] * distributed.get_world_size()
            distributed.all_gather_object(gathered, here)
        names = {}
        for key, metric in metrics.items():
            logged, asked = [each[key] for each in gathered if key in each], metric.meta.sync.should
            if mode is Rows.UNKNOWN and logged[0].kind == "sum" and not asked:
                logged = [here[key]]  # the processes may have measured the same rows
            metric._computed = torch.full_like(metric.value, _combined(logged))
            if not asked and metric._computed != _combined([here[key]]):
                names[metric.meta.name] = True
        if names and not (results.training or self._said) and self._trainer.is_global_zero:
            self._said = True
            log.info(
                "logged without sync_dist=True, and combined over %d processes: %s", len(gathered), ", ".join(names)
            )


def _is_number_of_epoch(metric: Any) -> bool:
    """Whether a metric is a number over an epoch that is not computed yet."""
    meta = metric.meta
    is_new = metric.is_tensor and metric.update_called and metric._computed is None
    return bool(is_new and meta.on_epoch and not meta.sync.rank_zero_only)


def _logged(metric: Any, rows: int) -> _Logged:
    kind = metric.meta.reduce_fx.__name__
    if kind != "mean":
        return _Logged(float(metric.value), 1.0, kind)
    weight = float(metric.cumulated_batch_size)
    # a mean that is logged once, at the end of the epoch, is one of all rows of the process
    factor = rows if metric.meta.fx.endswith("_epoch_end") else 1
    return _Logged(float(metric.value) * factor, weight * factor, kind)


def _combined(logged: Sequence[_Logged]) -> float:
    """The number of all processes that have logged it."""
    kind = logged[0].kind
    values = torch.tensor([each.value for each in logged], dtype=torch.float64)
    if kind in ("min", "max"):
        return float(values.min() if kind == "min" else values.max())
    weights = sum(each.weight for each in logged)
    return float(values.sum() / (weights if kind == "mean" else 1.0))
