"""What one iteration of a stack of ordinary LightningModules passes on to the next: the tensors of all jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from holdfast.arithmetic.layout import Indexes
from holdfast.arithmetic.mapped_optimizer import MappedOptimizer
from holdfast.arithmetic.steps import JobTensors
from holdfast.stacked.engine import Tensors


class ModuleState:
    """Tensors of the jobs, a row of each for each job.

    Args:
        tensors: parameters, buffers, states of metrics, and the values in which the jobs differ.
        optimizer: holds the state of the optimizer.

    Attributes:
        tensors, optimizer: as given.
    """

    def __init__(self, tensors: JobTensors, optimizer: MappedOptimizer) -> None:
        self.tensors, self.optimizer = tensors, optimizer

    def update(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Let the optimizer update the parameters, given by group, each of shape `(jobs, parameters)`."""
        self.tensors = self.tensors._replace(parameters=torch.cat(self.optimizer.step(parameters, gradients), 1))

    def named(self) -> Tensors:
        """Parameters, buffers, states of metrics, and the state of the optimizer, by name; views of what is trained."""
        some, states = self.tensors, enumerate(self.optimizer.state)
        return {
            "parameters": some.parameters,
            **{f"buffer/{name}": value for name, value in some.others.items()},
            **{f"metric/{path}/{name}": value for (path, name), value in some.states.items()},
            **{f"optimizer/{group}/{name}": value for group, state in states for name, value in state.items()},
        }

    def keep(self, rows: Sequence[int]) -> None:
        """Keep some rows."""
        index = torch.as_tensor(rows, device=self.tensors.parameters.device)
        self._change(lambda _, value: value[index])
        self.tensors = self.tensors._replace(values=[value[index] for value in self.tensors.values])

    def put(self, rows: Indexes, tensors: Mapping[str, Tensor]) -> None:
        """Put tensors of earlier back, in some rows, each of shape `(numbers, rows)`."""

        def restored(name: str, value: Tensor) -> Tensor:
            flat = value.reshape(len(value), -1).clone()
            flat[torch.as_tensor(rows)] = tensors[name].T.to(flat.dtype)
            return flat.view(value.shape)

        self._change(restored)

    def snapshot(self) -> dict[str, Any]:
        """All of this but the values in which the jobs differ, in plain containers and tensors."""
        optimizer = self.optimizer
        return {"named": self.named(), "as_tensors": [sorted(keys) for keys in optimizer.as_tensors]}

    def restore(self, snapshot: Mapping[str, Any], steps: int) -> None:
        """Go on from a snapshot of the same rows, after a number of iterations."""
        named, device = snapshot["named"], self.tensors.parameters.device
        self.optimizer.steps, self.optimizer.as_tensors = steps, [set(keys) for keys in snapshot["as_tensors"]]
        for group, state in enumerate(self.optimizer.state):
            first = f"optimizer/{group}/"
            state |= {name.removeprefix(first): value for name, value in named.items() if name.startswith(first)}
        self._change(lambda name, _: named[name].to(device))

    def _change(self, change: Callable[[str, Tensor], Tensor]) -> None:
        """Change each of `named`, given its name and its value."""
        some = self.tensors
        self.tensors = some._replace(
            parameters=change("parameters", some.parameters),
            others={name: change(f"buffer/{name}", value) for name, value in some.others.items()},
            states={key: change(f"metric/{'/'.join(key)}", value) for key, value in some.states.items()},
        )
        self.optimizer.state = [
            {name: change(f"optimizer/{group}/{name}", value) for name, value in state.items()}
            for group, state in enumerate(self.optimizer.state)
        ]
