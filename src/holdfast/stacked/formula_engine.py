"""The engine of modules that are defined by a loss: gradients by formula or by torch.func, updates by formula."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holdfast.arithmetic.gradients import gradients_for
from holdfast.arithmetic.layout import Batch, Indexes, Layout
from holdfast.arithmetic.optimizers import OPTIMIZERS, clip
from holdfast.arithmetic.tracing import TRACED_AFTER
from holdfast.stacked.batches import StackBatches
from holdfast.stacked.engine import Logged, Metrics, Tensors
from holdfast.stacked.evaluation import evaluate
from holdfast.stacked.inputs import StackInputs
from holdfast.usercode.watch import Watch


class FormulaEngine:
    """Trains jobs of `holdfast.model.Module` on rows of `holdfast.data.DataModule`: an implementation of `Engine`.

    Args:
        inputs: the jobs.
    """

    splits_epochs = True

    def __init__(self, inputs: StackInputs) -> None:
        self.config = inputs.first
        self._inputs, self.jobs, self.iterations = inputs, len(inputs.configs), inputs.rows.iterations
        self.batch_size = inputs.rows.batch_size
        self.stream_of, self.parameters = inputs.rows.stream_of, inputs.initial_parameters
        traced_after = 3 if inputs.short else TRACED_AFTER  # a trial has to call each function untraced and traced
        self._gradients = gradients_for(inputs.module, inputs.trainer, inputs.job_values, traced_after)
        self._watch = None if inputs.shipped else Watch(inputs.module)
        self._batches = StackBatches(inputs.rows, self._gradients, inputs.trainer)
        self._optimizer = OPTIMIZERS[inputs.first.optimizer["_target_"]](
            [config.optimizer for config in inputs.configs]
        )
        self._layout = Layout.of(np.arange(self.jobs), self.stream_of)
        self.logged: list[Logged] = []
        self._rate = torch.empty(0)

    def begin_epoch(self, epoch: int) -> None:
        """Begin the epoch of the rows, and look up the learning rates."""
        self._batches.begin_epoch(self._layout.streams, epoch)
        dtype = torch.float64 if self.parameters.dtype == torch.float64 else torch.float32
        rates = self._inputs.learning_rates[epoch][self._layout.jobs]  # (streams, width)
        self._rate = -torch.as_tensor(rates, dtype=dtype, device=self.parameters.device)

    def train(self, done: int, after_step: Callable[[Tensor], None] | None) -> list[Tensor]:
        """Some more iterations."""
        batches = self._batches.next(done, self._layout.jobs.shape[1])
        return [self._step(batch, after_step) for batch in batches]

    def _step(self, batch: Batch, after_step: Callable[[Tensor], None] | None) -> Tensor:
        """One iteration; returns what its losses are computed from."""
        settings = self._inputs.first.trainer
        outcome, gradient = self._gradients(self.parameters, batch)
        if settings.gradient_clip_val is not None:
            gradient = clip(gradient, settings.gradient_clip_val, settings.gradient_clip_algorithm)
        self._optimizer.step(self.parameters, gradient, self._rate)
        if after_step:
            after_step(self.parameters)
        return outcome

    def losses(self, outcomes: list[Tensor]) -> Tensor:
        """The losses of some iterations."""
        return self._gradients.losses(outcomes)

    def validate(self, epoch: int) -> Metrics:
        """The metrics over all validation rows."""
        return self._measured(self._batches.val, "val")

    def measure_train(self) -> Metrics:
        """The metrics over all training rows."""
        return self._measured(self._batches.train, "train")

    def _measured(self, batches: Sequence[Iterable[Batch]], split: str) -> Metrics:
        # of all columns, jobs that are over included: a matrix product of another width rounds differently
        flat, jobs = self.parameters.flatten(1), self._layout.jobs.flatten()
        return evaluate(self._gradients, self._inputs, flat, jobs, split=split, batches=batches)

    def rates(self, epoch: int) -> NDArray[np.float64]:
        """The learning rate of each job in an epoch."""
        rates: NDArray[np.float64] = self._inputs.learning_rates[epoch]
        return rates

    def tensors(self) -> Tensors:
        """The parameters, and the state of the optimizer."""
        return {"parameters": self.parameters, **self._optimizer.state}

    def plain(self, jobs: Indexes) -> list[Any] | None:
        """None: schedulers follow from the epoch."""
        return None

    def set_tensors(self, tensors: Mapping[str, Tensor], layout: Layout, steps: int) -> None:
        """Go on with other tensors, in another layout."""
        state = {name: tensor.to(self.parameters.device) for name, tensor in tensors.items()}
        self.parameters, self._layout = state.pop("parameters"), layout
        self._optimizer.state, self._optimizer.steps = state, steps
        self._optimizer.set_layout(layout.jobs, self.parameters)
        self._gradients.set_layout(layout.jobs)

    def freeze(self, columns: Indexes) -> None:
        """Nothing to do: a loss logs nothing."""

    def put(self, columns: Indexes, tensors: Mapping[str, Tensor]) -> None:
        """Put tensors of earlier back, of some jobs."""
        for name, tensor in self.tensors().items():
            tensor.flatten(1)[:, columns] = tensors[name]

    def snapshot(self) -> dict[str, Any]:
        """The tensors."""
        return {"tensors": self.tensors()}

    def restore(self, snapshot: Mapping[str, Any], layout: Layout, steps: int) -> None:
        """Go on from a snapshot."""
        self.set_tensors(snapshot["tensors"], layout, steps)

    def check(self) -> None:
        """Check that the user's loss has done nothing but compute a loss."""
        if self._watch:
            self._watch.check()
