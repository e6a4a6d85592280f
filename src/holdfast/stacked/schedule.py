"""The learning rates of many jobs in every epoch, as torch's schedulers say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from holdfast.config.options import OPTIONS
from holdfast.config.schema import Config
from holdfast.single.targets import instantiate

SCHEDULERS = frozenset({None, *(target for target in OPTIONS if target.startswith("torch.optim.lr_scheduler."))})
"""Schedulers that depend on the epoch alone, by their `_target_`."""

_AT_ONCE = 200  # torch compares each new group of parameters with all others


def rates(configs: Sequence[Config]) -> tuple[NDArray[np.float64], list[list[dict[str, Any]]]]:
    """Step each job's scheduler through all epochs, with an optimizer that has nothing to move.

    Args:
        configs: of jobs with the same number of epochs.

    Returns:
        The rate in every epoch, and the one after the last, shape `(epochs + 1, jobs)`; and for each job what its
        scheduler remembers after every epoch, without learning rates. That is empty without a scheduler.

    >>> from types import SimpleNamespace
    >>> config = SimpleNamespace(epochs=2, optimizer={"lr": 0.1}, scheduler={"_target_": None})
    >>> rates([config])[0].ravel().tolist()
    [0.1, 0.1, 0.1]
    """
    epochs = configs[0].epochs
    table = np.empty((epochs + 1, len(configs)))
    remembered: list[list[dict[str, Any]]] = [[] for _ in configs]
    alike: dict[str, dict[float, list[int]]] = {}
    for job, config in enumerate(configs):
        alike.setdefault(repr(config.scheduler), {}).setdefault(config.optimizer["lr"], []).append(job)
    for by_rate in alike.values():
        scheduler = configs[next(iter(by_rate.values()))[0]].scheduler
        if scheduler["_target_"] is None:
            for rate, jobs in by_rate.items():
                table[:, jobs] = rate
            continue
        found = list(by_rate)
        for first in range(0, len(found), _AT_ONCE):
            some = found[first : first + _AT_ONCE]
            values, states = _stepped(scheduler, some, epochs)
            for column, rate in enumerate(some):
                table[:, by_rate[rate]] = values[:, column : column + 1]
                for job in by_rate[rate]:
                    remembered[job] = states
    return table, remembered


def _stepped(
    scheduler: dict[str, Any], rates: Sequence[float], epochs: int
) -> tuple[NDArray[np.float64], list[dict[str, Any]]]:
    optimizer = torch.optim.SGD([{"params": [torch.zeros(())], "lr": rate} for rate in rates], lr=0.0)
    made = instantiate(scheduler, optimizer)
    values, states = [], []
    for _ in range(epochs):
        values.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        made.step()
        states.append(
            {key: value for key, value in made.state_dict().items() if not key.endswith("_lr") and "lrs" not in key}
        )
    values.append([group["lr"] for group in optimizer.param_groups])
    return np.array(values), states
