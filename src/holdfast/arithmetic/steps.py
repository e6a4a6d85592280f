"""The steps of a LightningModule as functions of tensors: parameters, buffers, metric states and rows of one job.

`functional_call` puts the tensors of a job in the place of those of the module that stands for all jobs; what the step
logs is collected, and returned with the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vjp

from holdfast.arithmetic.job_values import JobValues, replaced
from holdfast.arithmetic.mappable import Mappable
from holdfast.model import Module
from holdfast.model.module import loss_sums
from holdfast.usercode.collector import Collector, Logged
from holdfast.usercode.metric_states import StateName, mapped, metrics_of, states_of
from holdfast.usercode.stand_in import BatchIndex, StandInTrainer
from holdfast.usercode.watch import UnstackableError

Tensors = dict[str, Tensor]


class Call(NamedTuple):
    """A call of a step.

    Attributes:
        step: "training_step", "validation_step", or "sums" for the sums of the loss over rows.
        number: of the batch, `batch_idx`.
        loader: `dataloader_idx`, where there are several.
    """

    step: str
    number: int
    loader: int | None = None


class JobTensors(NamedTuple):
    """What a step of a job takes besides rows; for all jobs, the first dimension of each tensor is the job.

    Attributes:
        parameters: those that are trained, shape `(parameters,)`.
        others: buffers, and parameters that are not trained.
        states: of the metrics.
        values: in which the jobs differ besides, as `ModuleSteps.job_values`.
    """

    parameters: Tensor
    others: Tensors
    states: dict[StateName, Tensor]
    values: list[Tensor]


class Outcome(NamedTuple):
    """What a step of one job, or of all, returns.

    Attributes:
        loss: of a training step, a scalar; of another step zero.
        logs: values of the calls of `self.log` that are numbers, in order.
        buffers: after the step.
        states: of the metrics, after the step.
        sums: what `holdfast.model.Module` adds up in a validation step.
    """

    loss: Tensor
    logs: list[Tensor]
    buffers: Tensors
    states: dict[StateName, Tensor]
    sums: list[Tensor]


class ModuleSteps:
    """The steps of the module that stands for all jobs.

    Args:
        module: the module.
        stand_in: in the place of its Trainer.
        parameters: names of the trained parameters that have a gradient, in the order of their vector.

    Attributes:
        module: as given.
        job_values: values, beside parameters and buffers, in which the jobs differ.
        logged: the calls of `self.log` of the last call of each step.
        updated: paths of the metrics that the last call of each step updated.
        reads_number: whether a step has read its `batch_idx`.
    """

    def __init__(self, module: pl.LightningModule, stand_in: StandInTrainer, parameters: Sequence[str]) -> None:
        self.module, self._stand_in = module, stand_in
        named = dict(module.named_parameters())
        self._names = [_all_names(module, named[name]) for name in parameters]
        self._shapes = [named[name].shape for name in parameters]
        rest = [*module.named_buffers(), *((name, value) for name, value in named.items() if name not in parameters)]
        self._others = {name: _all_names(module, value) for name, value in rest}
        self._metrics = metrics_of(module)
        self._wrapper = _Wrapper(module)
        self.job_values: Sequence[JobValues] = ()
        self.logged: dict[str, list[Logged]] = {}
        self.updated: dict[str, set[str]] = {}
        self.reads_number = False

    def gradient(self, call: Call, job: JobTensors, batch: Any) -> tuple[Tensor, Outcome]:
        """The gradient of the training loss of one job, shape `(parameters,)`, and the outcome of its step."""

        def loss_of(parameters: Tensor) -> tuple[Tensor, Outcome]:
            outcome = self.call(call, job._replace(parameters=parameters), batch)
            return outcome.loss, outcome

        gradient, (_, outcome) = grad_and_value(loss_of, has_aux=True)(job.parameters)
        return gradient, outcome._replace(loss=outcome.loss.detach())

    def evaluate(self, call: Call, job: JobTensors, batch: Any) -> Outcome:
        """Call another step than a training step, in a way in which torch takes composite operations apart."""
        of_call: Any = vjp(
            lambda parameters: (parameters, self.call(call, job._replace(parameters=parameters), batch)),
            job.parameters,
            has_aux=True,
        )
        outcome: Outcome = of_call[2]
        return outcome

    def call(self, call: Call, job: JobTensors, batch: Any) -> Outcome:
        """Call a step of one job, whose tensors are not changed, on a batch as the loader would return it."""
        parts = torch.split(job.parameters, [shape.numel() for shape in self._shapes])
        tensors = {
            f"module.{name}": part.view(shape)
            for names, part, shape in zip(self._names, parts, self._shapes, strict=True)
            for name in names
        }
        for name, value in job.others.items():
            copied = value.clone()
            tensors |= {f"module.{other}": copied for other in self._others[name]}
        collector, number, updated = Collector(self._metrics), BatchIndex(call.number), set[str]()
        args = _arguments(self.module, call.step, batch, number, call.loader)
        self._stand_in.update(results=collector)
        states = {key: value.clone() for key, value in job.states.items()}
        try:
            with Mappable(), replaced(self.job_values, job.values), mapped(self._metrics, states, updated):
                outcome: Outcome = functional_call(self._wrapper, tensors, (call.step, args), tie_weights=False)
                outcome = outcome._replace(states=states_of(self._metrics), logs=collector.values)
        finally:
            self._stand_in.update(results=None)
            for layer in self.module.modules():
                if isinstance(layer, nn.RNNBase):  # it has a list of its weights, which now holds those of the job
                    layer._init_flat_weights()
        self.reads_number |= number.was_read
        self.logged[call.step], self.updated[call.step] = collector.logged, updated
        return outcome


def loss_alone(module: pl.LightningModule, stand_in: StandInTrainer, batch: Any) -> Tensor:
    """The training loss of a module by itself, with the graph behind it; what it logs is dropped."""
    before, module._current_fx_name = module._current_fx_name, "training_step"
    stand_in.update(results=Collector(metrics_of(module)))
    try:
        return _loss(module.training_step(*_arguments(module, "training_step", batch, 0, None)))
    finally:
        module._current_fx_name = before
        stand_in.update(results=None)


class _Wrapper(nn.Module):
    """The steps of a module as `forward`, which is what `functional_call` calls."""

    def __init__(self, module: pl.LightningModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, step: str, args: Sequence[Any]) -> Outcome:
        module = self.module
        if step == "sums":
            of_batch = module.statistics(args[0]) if isinstance(module, Module) else loss_sums(module, args[0])
            return Outcome(torch.zeros(()), [], {}, {}, [of_batch])
        if isinstance(module, Module):
            module._sums = []
        before, module._current_fx_name = module._current_fx_name, step
        try:
            result = getattr(module, step)(*args)
        finally:
            module._current_fx_name = before
        loss = _loss(result) if step == "training_step" else torch.zeros(())
        buffers = dict(module.named_buffers())
        sums: list[Tensor] = list(module._sums) if isinstance(module, Module) else []
        if isinstance(module, Module):
            module._sums = []
        return Outcome(loss, [], buffers, {}, sums)


def _loss(result: Any) -> Tensor:
    loss = result.get("loss") if isinstance(result, dict) else result
    if loss is None:
        raise UnstackableError("its training_step returns no loss for some batches")
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise UnstackableError("its training_step returns no single loss")
    return loss.reshape(())


def _arguments(module: pl.LightningModule, step: str, batch: Any, index: int, loader: int | None) -> list[Any]:
    """The arguments that a Trainer gives to a step."""
    args = [batch]
    if step == "sums":
        return args
    if is_param_in_hook_signature(getattr(module, step), "batch_idx", min_args=2):
        args.append(index)
    if loader is not None:
        args.append(loader)
    return args


def _all_names(module: nn.Module, tensor: Tensor) -> list[str]:
    """The names of a parameter or a buffer, one for each layer that holds it."""
    return [
        f"{layer}.{name}" if layer else name
        for layer, owner in module.named_modules()
        for name, value in (*owner.named_parameters(recurse=False), *owner.named_buffers(recurse=False))
        if value is tensor
    ]
