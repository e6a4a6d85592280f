"""The torchmetrics of a module: their states are tensors of each job, like buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MaxMetric, Metric, MetricCollection, MinMetric
from torchmetrics.aggregation import BaseAggregator

from holdfast.usercode.watch import UnstackableError

StateName = tuple[str, str]
"""The path of a metric in its module, and the name of a state."""


def metrics_of(module: nn.Module) -> dict[str, Metric]:
    """The metrics in a module, by their paths.

    Raises:
        UnstackableError: a metric has states that cannot be mapped over jobs.
    """
    metrics = {}
    for path, each in module.named_modules():
        if isinstance(each, MetricCollection) and each._enable_compute_groups:
            raise UnstackableError(f"{path} is a MetricCollection whose metrics share states (compute_groups=True)")
        if not isinstance(each, Metric):
            continue
        if any(isinstance(child, Metric) for child in each.children()):
            raise UnstackableError(f"{path} is a metric around another metric")
        if any(not isinstance(default, Tensor) for default in each._defaults.values()):
            raise UnstackableError(f"{path} ({type(each).__name__}) keeps every value in a list")
        if any(each._persistent.values()):
            raise UnstackableError(f"{path} ({type(each).__name__}) has persistent states")
        if each.dist_sync_on_step or each.compute_on_cpu:
            raise UnstackableError(f"{path} ({type(each).__name__}) moves its states while it is updated")
        metrics[path] = each
    return metrics


def states_of(metrics: Mapping[str, Metric]) -> dict[StateName, Tensor]:
    """The present states of metrics."""
    return {(path, name): getattr(metric, name) for path, metric in metrics.items() for name in metric._defaults}


def set_states(metrics: Mapping[str, Metric], states: Mapping[StateName, Tensor]) -> None:
    """Give the metrics of one job its states."""
    for (path, name), value in states.items():
        setattr(metrics[path], name, value)
    for metric in metrics.values():
        metric._computed = None


@contextmanager
def mapped(metrics: Mapping[str, Metric], states: Mapping[StateName, Tensor], updated: set[str]) -> Iterator[None]:
    """Let metrics work on the states of one job of many, as functions of tensors.

    Args:
        metrics: the metrics of the module that stands for all jobs.
        states: the states of the job; those after the block are the attributes of the metrics.
        updated: is filled with the paths of the metrics that were updated.
    """
    before = {path: dict(vars(metric)) for path, metric in metrics.items()}
    try:
        for path, metric in metrics.items():
            of_metric = {name: states[path, name] for name in metric._defaults}
            vars(metric).update(of_metric, **_methods(metric, path, updated))
        yield
    finally:
        for path, metric in metrics.items():
            vars(metric).clear()
            vars(metric).update(before[path])


def _methods(metric: Metric, path: str, updated: set[str]) -> dict[str, Any]:
    """The methods of a metric without what is kept in Python: counts and cached values."""

    def update(*args: Any, **kwargs: Any) -> None:
        updated.add(path)
        with torch.no_grad():
            type(metric).update(metric, *args, **kwargs)

    def forward(*args: Any, **kwargs: Any) -> Any:
        kwargs = metric._filter_kwargs(**kwargs)
        total = {name: vars(metric)[name] for name in metric._defaults}
        # copies of the job's states, since what belongs to all jobs cannot be changed in place by one
        vars(metric).update({name: total[name].clone().copy_(value) for name, value in metric._defaults.items()})
        update(*args, **kwargs)
        try:
            with torch.no_grad():
                of_batch: Any = type(metric).compute(metric)
        except Exception as error:  # in most cases nobody reads it
            of_batch = _Unknown(path, error)
        vars(metric).update(total)
        update(*args, **kwargs)
        vars(metric)["_forward_cache"] = of_batch
        return of_batch

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise UnstackableError(f"{path} is computed or reset inside a step")

    methods: dict[str, Any] = {"update": update, "forward": forward, "compute": refuse, "reset": refuse}
    if getattr(metric, "validate_args", False):
        methods["validate_args"] = False  # it looks for labels that are not there, by conditions on values
    if isinstance(metric, BaseAggregator):
        methods["_cast_and_nan_check_input"] = _without_branches(metric, path)
    return methods


def _without_branches(metric: BaseAggregator, path: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """What torchmetrics does about NaN, where that depends on no condition on values."""
    neutral = -torch.inf if isinstance(metric, MaxMetric) else torch.inf if isinstance(metric, MinMetric) else 0.0

    def cast(x: Any, weight: Any = None) -> tuple[Tensor, Tensor]:
        x = torch.as_tensor(x, dtype=None if isinstance(x, Tensor) else metric.dtype)
        weight = torch.ones_like(x) if weight is None else torch.as_tensor(weight)
        if metric.nan_strategy == "disable":
            return x.to(metric.dtype), torch.ones_like(x).to(metric.dtype)
        if metric.nan_strategy not in ("warn", "ignore"):
            raise UnstackableError(f"{path} has nan_strategy={metric.nan_strategy}")
        is_nan = torch.isnan(x) | torch.isnan(
            weight
        )  # removed: without weight in a sum, beyond the others in an extreme
        x = torch.where(is_nan, torch.full_like(x, neutral), x)
        return x.to(metric.dtype), torch.where(is_nan, torch.zeros_like(weight), weight).to(metric.dtype)

    return cast


class _Unknown:
    """The value of a metric on one batch, which could not be computed for many jobs at once."""

    def __init__(self, path: str, error: Exception) -> None:
        self._lesson = f"the value of {path} on one batch cannot be mapped over jobs: {error}"

    def __getattr__(self, name: str) -> Any:
        raise UnstackableError(self._lesson)
