"""The learning rates of many jobs in every epoch, from torch's own schedulers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from holdfast.config.options import OPTIONS
from holdfast.config.schema import Config
from holdfast.runtime.targets import instantiate

SCHEDULERS = frozenset({None, *(target for target in OPTIONS if target.startswith("torch.optim.lr_scheduler."))})
"""Schedulers that depend on the epoch alone, by their `_target_`."""

_GROUPS_AT_ONCE = 200  # torch compares each new parameter group with all others

States = list[dict[str, Any]]
"""The `state_dict` of a scheduler after every epoch, without learning rates."""


def learning_rates(configs: Sequence[Config]) -> tuple[NDArray[np.float64], list[States]]:
    """Step the scheduler of each job through all epochs, with an optimizer that has nothing to update.

    Args:
        configs: the configuration of each job; all have the same number of epochs.

    Returns:
        The rate of every epoch and of the one after the last, shape `(epochs + 1, jobs)`; and the scheduler states of
        each job, empty without a scheduler.

    >>> from types import SimpleNamespace
    >>> config = SimpleNamespace(epochs=2, optimizer={"lr": 0.1}, scheduler={"_target_": None})
    >>> learning_rates([config])[0].ravel().tolist()
    [0.1, 0.1, 0.1]
    """
    epochs = configs[0].epochs
    table = np.empty((epochs + 1, len(configs)))
    states: list[States] = [[] for _ in configs]
    jobs_by_scheduler: dict[str, dict[float, list[int]]] = {}
    for job, config in enumerate(configs):
        jobs_by_scheduler.setdefault(repr(config.scheduler), {}).setdefault(config.optimizer["lr"], []).append(job)
    for jobs_by_rate in jobs_by_scheduler.values():
        scheduler = configs[next(iter(jobs_by_rate.values()))[0]].scheduler
        if scheduler["_target_"] is None:
            for rate, jobs in jobs_by_rate.items():
                table[:, jobs] = rate
            continue
        initial_rates = list(jobs_by_rate)
        for start in range(0, len(initial_rates), _GROUPS_AT_ONCE):
            some = initial_rates[start : start + _GROUPS_AT_ONCE]
            values, states_of_some = _stepped(scheduler, some, epochs)
            for column, rate in enumerate(some):
                table[:, jobs_by_rate[rate]] = values[:, column : column + 1]
                for job in jobs_by_rate[rate]:
                    states[job] = states_of_some
    return table, states


def _stepped(
    settings: dict[str, Any], initial_rates: Sequence[float], epochs: int
) -> tuple[NDArray[np.float64], States]:
    """The learning rates of one scheduler, shape `(epochs + 1, rates)`, and its states."""
    optimizer = torch.optim.SGD([{"params": [torch.zeros(())], "lr": rate} for rate in initial_rates], lr=0.0)
    scheduler = instantiate(settings, optimizer)
    values, states = [], []
    for _ in range(epochs):
        values.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
        state = scheduler.state_dict()
        states.append({key: value for key, value in state.items() if not key.endswith("_lr") and "lrs" not in key})
    values.append([group["lr"] for group in optimizer.param_groups])
    return np.array(values), states
