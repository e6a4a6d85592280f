"""What the jobs of a stack log through Lightning: its own collections of results, with one value for each job."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection
from numpy.typing import NDArray
from torch import Tensor

from holdfast.arithmetic.layout import Indexes
from holdfast.usercode.collector import Logged
from holdfast.usercode.watch import UnstackableError

Values = dict[str, Tensor]
"""Metrics by name, each of shape `(jobs,)`."""


class StackLog:
    """What is logged while the jobs train, or while they are validated.

    Lightning's collection reduces numbers by sums and products of tensors, so that it works on many jobs as on one.

    Args:
        training: whether it is that of the training.

    Attributes:
        objects: the metrics that were logged as objects in this epoch, by their key; each job has its own.
        order: the names, in the order in which they were first logged.
    """

    def __init__(self, *, training: bool) -> None:
        self._results = _ResultCollection(training)
        self._frozen: list[tuple[Indexes, _ResultCollection]] = []
        self._loaders: dict[str, Values] = {"callback": {}, "log": {}}
        self.objects: dict[str, Logged] = {}
        self.order: dict[str, int] = {}

    def add(self, logged: Sequence[Logged], values: Sequence[Tensor], batch: Any, loader: int | None = None) -> None:
        """Add what one step has logged.

        Args:
            logged: the calls of `self.log`.
            values: of those that log numbers, in order, each of shape `(jobs,)`.
            batch: of one job, of which Lightning can tell the number of rows.
            loader: `dataloader_idx`, where there are several.
        """
        numbers = iter(values)
        self._results.batch, self._results.batch_size, self._results.dataloader_idx = batch, None, loader
        for each in logged:
            self.order.setdefault(each.name, len(self.order))
            if each.name == "step":
                raise UnstackableError('it logs "step", by which a Trainer numbers what else is logged')
            if each.options["on_step"] and not self._results.training:
                raise UnstackableError(f"it logs {each.name} at every step of the validation")
            if each.metric is None:
                self._add(each, next(numbers))
            elif loader is not None:
                raise UnstackableError("it logs a metric object for several validation loaders")
            else:
                self.objects[f"{each.options['fx']}.{each.name}"] = each
        self._results.batch = self._results.dataloader_idx = None

    def _add(self, logged: Logged, value: Tensor) -> None:
        """Add the values of all jobs; the sum is made one of each job, since its type would be lost beside theirs."""
        before = set(self._results)
        self._results.log(name=logged.name, value=value, **logged.options)
        for key in self._results.keys() - before:
            metric = self._results[key]
            metric._defaults["value"] = metric._defaults["value"].expand(len(value)).clone()
            metric.reset()
            self._results.log(name=logged.name, value=value, **logged.options)

    def end_loader(self, loader: int) -> None:
        """Keep what one of several validation loaders has logged."""
        self._results.dataloader_idx = loader
        metrics = self._results.metrics(on_step=False)
        for kind in self._loaders:
            self._loaders[kind] |= metrics[kind]  # type: ignore[literal-required]
        self._results.dataloader_idx = None

    def freeze(self, columns: Indexes) -> None:
        """Keep what some jobs have logged so far: their epoch ends here."""
        self._frozen.append((columns, copy.deepcopy(self._results)))

    @property
    def frozen(self) -> Indexes:
        """The columns of the jobs whose epoch has ended early."""
        return np.concatenate([columns for columns, _ in self._frozen] or [np.array([], dtype=np.int64)])

    def values(self, *, on_step: bool, jobs: int) -> dict[str, Values]:
        """What was logged, for callbacks ("callback") and loggers ("log")."""
        now, logged = self._results.metrics(on_step), dict[str, Values]()
        for kind, before in self._loaders.items():
            logged[kind] = dict(before)
            for name, value in now[kind].items():  # type: ignore[literal-required]
                logged[kind][name] = value.expand(jobs).clone()
        for columns, results in self._frozen:
            for kind, values in results.metrics(on_step).items():
                for name, value in values.items() if kind in logged else ():  # type: ignore[attr-defined]
                    logged[kind][name][columns] = value.expand(jobs)[columns]
        return logged

    def reset(self) -> None:
        """Begin another epoch."""
        self._results.reset()
        self._frozen.clear()
        self._loaders = {"callback": {}, "log": {}}
        self.objects.clear()


def merged(found: dict[str, Values], of_jobs: Sequence[dict[str, Any]], order: Mapping[str, int]) -> dict[str, Values]:
    """What was logged by steps and, job by job, by hooks, in the order in which it was first logged.

    Args:
        found: what steps have logged.
        of_jobs: what hooks have logged.
        order: of the names; those that are missing come last.

    Raises:
        UnstackableError: the jobs have logged different names.
    """
    for kind, values in found.items():
        names = of_jobs[0][kind].keys()
        if any(each[kind].keys() != names for each in of_jobs):
            raise UnstackableError("its hooks log other names for some jobs than for others")
        for name in names:
            values[name] = torch.stack([each[kind][name].reshape(()) for each in of_jobs])
    return {
        kind: dict(sorted(values.items(), key=lambda item: _place(item[0], order))) for kind, values in found.items()
    }


def _place(name: str, order: Mapping[str, int]) -> int:
    """Where a name comes; `loss_epoch` is what Lightning makes of `loss`."""
    return order.get(name, order.get(re.sub("_(step|epoch)$", "", name), len(order)))


def as_arrays(values: Values) -> dict[str, NDArray[np.float64]]:
    """The values of all jobs on the CPU."""
    return {name: value.double().cpu().numpy() for name, value in values.items()}
