"""The hooks of an epoch, called for each job of a stack on the job's own module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torchmetrics import Metric

from holdfast.arithmetic.job_values import JobValues
from holdfast.arithmetic.steps import JobTensors, ModuleSteps
from holdfast.stacked.module_jobs import ModuleJob
from holdfast.stacked.replay import Replay
from holdfast.usercode.collector import Logged
from holdfast.usercode.metric_states import set_states
from holdfast.usercode.state import read
from holdfast.usercode.watch import UnstackableError, readable


class Hooks:
    """Calls hooks, with the tensors of the stack in the module of each job.

    Args:
        steps: of the module that stands for all jobs; they are given the numbers that hooks change.
        replay: traces the steps.
        names: of the trained parameters, in the order of their vector.
    """

    def __init__(self, steps: ModuleSteps, replay: Replay, names: Sequence[str]) -> None:
        self._steps, self._replay, self._names = steps, replay, names
        self._updates: dict[str, int] = {}
        self._numbers: list[str] = []  # attributes of the module that a hook has changed

    def count(self, updated: set[str]) -> None:
        """Count the updates of metrics in a step."""
        for path in updated:
            self._updates[path] = self._updates.get(path, 0) + 1

    def call(
        self, hook: str, jobs: Sequence[ModuleJob], tensors: JobTensors, log: str, objects: Sequence[Logged] = ()
    ) -> tuple[JobTensors, list[dict[str, Any]] | None]:
        """Call a hook of each job.

        Args:
            hook: its name.
            jobs: the job in each row of the tensors.
            tensors: of all jobs.
            log: "train_log" or "val_log", to which the hook may write.
            objects: metrics that steps have logged as objects in this epoch, which ends with this hook.

        Returns:
            The tensors after the hook; and, at the end of an epoch, what each job has logged, if there is anything.

        Raises:
            UnstackableError: a hook changes something that would not be the job's alone.
        """
        ends = hook.endswith("_end")
        if not objects and not any(hook in job.hooks for job in jobs):
            return tensors, None
        found, states, numbers = [], [], []
        for row, job in enumerate(jobs):
            self._load(job, row, tensors)
            is_read = row in (0, len(jobs) - 1)
            before, numbers_before = read(job.module) if is_read else None, _numbers(job.module)
            plain_before = _plain(job.module)
            collection = getattr(job, log)
            for each in objects:
                assert each.metric is not None
                collection.log(name=each.name, value=job.metrics[each.metric], **each.options)
            job.call(hook, collection)
            self._check(job, row, tensors)
            if ends:
                found.append(collection.metrics(on_step=False))
                collection.reset()
            numbers.append(_numbers(job.module))
            self._note(numbers_before, numbers[-1])
            for name, value in _plain(job.module).items():
                if name not in self._numbers and value != plain_before.get(name):
                    raise UnstackableError(f"a hook changes {name}")
            if before is not None:
                self._check_state(job, before.changes(read(job.module)))
            states.append(job.states())
        self._updates.clear()
        together = {
            key: torch.stack([each[key].to(value.device) for each in states]) for key, value in tensors.states.items()
        }
        return self._with_numbers(tensors._replace(states=together), numbers), found if ends else None

    def snapshot(self, jobs: Sequence[ModuleJob]) -> dict[str, Any]:
        """The numbers that hooks have changed, and the updates of metrics, of each job."""
        return {
            "numbers": [{name: vars(job.module)[name] for name in self._numbers} for job in jobs],
            "counts": [{path: metric._update_count for path, metric in job.metrics.items()} for job in jobs],
            "updates": dict(self._updates),
        }

    def restore(self, snapshot: Mapping[str, Any], jobs: Sequence[ModuleJob], tensors: JobTensors) -> JobTensors:
        """Go on from a snapshot; the tensors with the numbers that hooks have changed."""
        numbers, self._updates = snapshot["numbers"], dict(snapshot["updates"])
        self._numbers = list(numbers[0])
        for job, values, counts in zip(jobs, numbers, snapshot["counts"], strict=True):
            vars(job.module).update(values)
            for path, count in counts.items():
                job.metrics[path]._update_count = count
        return self._with_numbers(tensors, numbers)

    def _load(self, job: ModuleJob, row: int, tensors: JobTensors) -> None:
        """Give a module the parameters, buffers and metric states of its job."""
        with torch.no_grad():
            for value, present in self._pairs(job.module, row, tensors):
                value.copy_(present)
        for path, metric in job.metrics.items():
            metric._update_count += self._updates.get(path, 0)
        set_states(job.metrics, {key: value[row].clone() for key, value in tensors.states.items()})

    def _pairs(self, module: pl.LightningModule, row: int, tensors: JobTensors) -> list[tuple[Tensor, Tensor]]:
        """The parameters and buffers of a module, each with its present value."""
        parameters, buffers = dict(module.named_parameters()), dict(module.named_buffers())
        trained = [parameters[name] for name in self._names]
        parts = torch.split(tensors.parameters[row], [value.numel() for value in trained])
        pairs = [(value, part.view(value.shape)) for value, part in zip(trained, parts, strict=True)]
        others = {**parameters, **buffers}
        return pairs + [(others[name], value[row]) for name, value in tensors.others.items()]

    def _check(self, job: ModuleJob, row: int, tensors: JobTensors) -> None:
        for value, present in self._pairs(job.module, row, tensors):
            is_same = (value == present) | (value.isnan() & present.isnan())
            if not (torch.equal(value.detach(), present) or bool(is_same.all())):
                raise UnstackableError("a hook changes parameters or buffers")

    def _note(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        """Note the numbers that a hook has changed."""
        for name in before.keys() | now.keys():
            if before.get(name) != now.get(name) and name not in self._numbers:
                if name not in vars(self._steps.module):
                    raise UnstackableError(f"a hook makes the attribute {name}")
                self._numbers.append(name)

    def _check_state(self, job: ModuleJob, changed: Iterable[str]) -> None:
        metrics = ["_modules.['" + path.replace(".", "']._modules.['") + "']" for path in job.metrics]
        for path in changed:
            if path not in self._numbers and not path.startswith(tuple(metrics)):
                raise UnstackableError(f"a hook changes {readable(path)}")

    def _with_numbers(self, tensors: JobTensors, numbers: Sequence[dict[str, Any]]) -> JobTensors:
        """The tensors with the numbers that hooks have changed."""
        if not self._numbers:
            return tensors
        attributes, module = list(self._steps.job_values), self._steps.module
        values = list(tensors.values)
        for name in self._numbers:
            new = torch.tensor([each[name] for each in numbers], dtype=torch.float64, device=tensors.parameters.device)
            places = [
                index for index, each in enumerate(attributes) if each.container is vars(module) and each.key == name
            ]
            if places:
                values[places[0]] = new
            else:
                attributes.append(JobValues(vars(module), name, new))
                values.append(new)
        if len(attributes) > len(self._steps.job_values):
            self._steps.job_values = attributes
            self._replay.forget()
        return tensors._replace(values=values)


def _numbers(module: pl.LightningModule) -> dict[str, Any]:
    """The numbers among the attributes of a module."""
    return {
        name: value for name, value in vars(module).items() if type(value) in (int, float) and not name.startswith("_")
    }


def _plain(module: pl.LightningModule) -> dict[str, Any]:
    """What can be compared fast of the attributes of all layers: scalars, and the scalars in containers."""
    attributes = {}
    for path, layer in module.named_modules():
        if isinstance(layer, Metric):
            continue
        for name, value in vars(layer).items():
            if name in _OF_THE_CALL:
                continue
            full = f"{path}.{name}" if path else name
            if type(value) in _SCALARS:
                attributes[full] = value
            elif isinstance(value, (dict, list, tuple, set)):
                entries = value.items() if isinstance(value, dict) else value
                attributes[full] = [
                    len(value),
                    *(each if type(each) in _SCALARS else _scalars(each) for each in entries),
                ]
    return attributes


def _scalars(entry: Any) -> Any:
    return [each for each in entry if type(each) in _SCALARS] if isinstance(entry, (tuple, list)) else None


_OF_THE_CALL = frozenset({"_parameters", "_buffers", "_modules", "_sums", "_metric_attributes", "_current_fx_name"})
"""Attributes that are compared elsewhere, or that Lightning and `holdfast.model.Module` set while a hook is called."""

_SCALARS = frozenset({bool, int, float, str, type(None)})
