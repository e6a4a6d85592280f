"""The optimizers of torch.optim for the parameters of many jobs at once, with hyperparameters that may differ by job.

torch.optim takes one learning rate for a tensor. Here the last dimensions of a tensor are the jobs, and every
hyperparameter is either one number for all jobs or a tensor with a number for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Number = float | Tensor
"""One number for all jobs, or one for each, shape `(streams, width)`."""


class StackOptimizer:
    """An optimizer that updates the parameters of many jobs in place.

    Args:
        settings: the optimizer's configuration of each job; only numbers may differ.

    Attributes:
        state: the state of the optimizer by torch's names, each of shape `(parameters, streams, width)`.
        steps: number of steps taken.
    """

    def __init__(self, settings: Sequence[Mapping[str, Any]]) -> None:
        self._flags = {key: value for key, value in settings[0].items() if isinstance(value, bool)}
        self._values: dict[str, NDArray[np.float64]] = {}
        for key, value in settings[0].items():
            if isinstance(value, (float, list)):
                self._values[key] = np.array([item[key] for item in settings], dtype=np.float64)  # (jobs[, entries])
        self.state: dict[str, Tensor] = {}
        self.steps = 0
        self._numbers: dict[str, Any] = {}
        self._decay: Number | None = None
        self._momentum: Number | None = None

    def set_layout(self, jobs: NDArray[np.int64], like: Tensor) -> None:
        """Set which job is updated in which cell.

        Args:
            jobs: the index of the job in each cell, shape `(streams, width)`.
            like: a tensor with the device and the type of the hyperparameters.
        """
        self._numbers = {key: _number(values[jobs], like) for key, values in self._values.items()}
        # None where it is zero for all jobs
        self._decay, self._momentum = self._nonzero("weight_decay"), self._nonzero("momentum")

    def step(self, parameters: Tensor, gradient: Tensor, rate: Tensor) -> None:
        """Update the parameters.

        Args:
            parameters: shape `(parameters, streams, width)`; updated in place.
            gradient: of the same shape; may be overwritten.
            rate: the negative learning rates, shape `(streams, width)`.
        """
        raise NotImplementedError

    def _nonzero(self, key: str) -> Number | None:
        """A hyperparameter, or None where it is zero for all jobs."""
        number: Number | None = self._numbers.get(key)
        return None if isinstance(number, float) and number == 0 else number

    def _decayed(self, parameters: Tensor, gradient: Tensor) -> Tensor:
        """The gradient with the L2 penalty: `g + weight_decay * p`."""
        return gradient if self._decay is None else _add(gradient, parameters, self._decay)

    def _state(self, name: str, like: Tensor) -> Tensor:
        """A tensor of the state, zero at first."""
        if name not in self.state:
            self.state[name] = torch.zeros_like(like, memory_format=torch.contiguous_format)
        return self.state[name]


class SGD(StackOptimizer):
    """`b = momentum * b + (1 - dampening) * g`, `p = p - lr * b`, as torch.optim.SGD.

    With Nesterov's momentum it is `p = p - lr * (g + momentum * b)`; the first `b` is the gradient itself.

    >>> optimizer = SGD([{"lr": 0.1, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False}])
    >>> p = torch.ones(1, 1, 1)
    >>> optimizer.set_layout(np.array([[0]]), p)
    >>> optimizer.step(p, gradient=torch.full((1, 1, 1), 2.0), rate=torch.tensor([[-0.1]]))
    >>> p.item()
    0.800000011920929
    """

    def __init__(self, settings: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(settings)
        # without momentum torch ignores dampening
        self._values["share"] = 1 - np.where(self._values["momentum"] == 0, 0, self._values["dampening"])

    def step(self, parameters: Tensor, gradient: Tensor, rate: Tensor) -> None:
        """Update the parameters in place."""
        gradient = self._decayed(parameters, gradient)
        if (momentum := self._momentum) is not None:
            if not self.steps:
                buffer = self.state["momentum_buffer"] = gradient.clone(memory_format=torch.contiguous_format)
            else:
                buffer = self.state["momentum_buffer"].mul_(momentum)
                buffer = _add(buffer, gradient, self._numbers["share"], out=buffer)
            gradient = _add(gradient, buffer, momentum) if self._flags["nesterov"] else buffer
        parameters.addcmul_(gradient, rate)
        self.steps += 1


class Adam(StackOptimizer):
    """`m = lerp(m, g, 1 - beta1)`, `v = lerp(v, g^2, 1 - beta2)`, `p = p - lr * m' / (sqrt(v') + eps)`.

    `m' = m / (1 - beta1^t)` and `v' = v / (1 - beta2^t)` correct the bias towards the initial zeros (Kingma and Ba
    2015, algorithm 1), as torch.optim.Adam; with AMSGrad `v'` is the largest so far.
    """

    def step(self, parameters: Tensor, gradient: Tensor, rate: Tensor) -> None:
        """Update the parameters in place."""
        self.steps += 1
        gradient = self._penalised(parameters, gradient, rate)
        beta1, beta2 = self._numbers["betas"]
        mean = self._state("exp_avg", parameters)
        square = self._state("exp_avg_sq", parameters)
        mean.lerp_(gradient, _complement(beta1, mean))
        square.mul_(beta2).add_(gradient.square().mul_(_complement(beta2, square)))
        if self._flags["amsgrad"]:
            square = torch.maximum(self._state("max_exp_avg_sq", parameters), square)
            self.state["max_exp_avg_sq"] = square
        correction = _complement(_power(beta2, self.steps), square)
        root = correction**0.5
        parameters.addcmul_(
            mean / square.sqrt().div_(root).add_(self._numbers["eps"]),
            rate / _complement(_power(beta1, self.steps), rate),
        )

    def _penalised(self, parameters: Tensor, gradient: Tensor, rate: Tensor) -> Tensor:
        """Apply the weight decay, and return the gradient to use."""
        return self._decayed(parameters, gradient)


class AdamW(Adam):
    """Adam with decoupled weight decay, `p = (1 - lr * weight_decay) * p` (Loshchilov and Hutter 2019)."""

    def _penalised(self, parameters: Tensor, gradient: Tensor, rate: Tensor) -> Tensor:
        if self._decay is not None:
            parameters.mul_(1 + rate * self._decay)
        return gradient


class RMSprop(StackOptimizer):
    """`v = alpha * v + (1 - alpha) * g^2`, `p = p - lr * g / (sqrt(v) + eps)`, as torch.optim.RMSprop.

    If centered, the square of the running mean of the gradient is subtracted from `v`. With momentum, the fraction is
    replaced by `b = momentum * b + g / (sqrt(v) + eps)`.
    """

    def step(self, parameters: Tensor, gradient: Tensor, rate: Tensor) -> None:
        """Update the parameters in place."""
        self.steps += 1
        gradient = self._decayed(parameters, gradient)
        alpha = self._numbers["alpha"]
        square = self._state("square_avg", parameters)
        square.mul_(alpha).add_(gradient.square().mul_(_complement(alpha, square)))
        if self._flags["centered"]:
            mean = self._state("grad_avg", parameters)
            mean.lerp_(gradient, _complement(alpha, mean))
            square = square.addcmul(mean, mean, value=-1)
        moved = gradient / square.sqrt().add_(self._numbers["eps"])
        if (momentum := self._momentum) is not None:
            moved = self._state("momentum_buffer", parameters).mul_(momentum).add_(moved)
        parameters.addcmul_(moved, rate)


OPTIMIZERS: dict[str, type[StackOptimizer]] = {
    "torch.optim.SGD": SGD,
    "torch.optim.Adam": Adam,
    "torch.optim.AdamW": AdamW,
    "torch.optim.RMSprop": RMSprop,
}
"""The optimizers that a stack has, by their `_target_`."""


def clip(gradient: Tensor, largest: float, algorithm: str) -> Tensor:
    """Clip the gradient of each job, as torch.nn.utils.clip_grad_norm_ and clip_grad_value_.

    Args:
        gradient: shape `(parameters, streams, width)`.
        largest: the largest norm, or the largest absolute value of an entry.
        algorithm: "norm" or "value".
    """
    if algorithm == "value":
        return gradient.clamp(-largest, largest)
    norm = torch.linalg.vector_norm(gradient, dim=0)
    clipped: Tensor = gradient * (largest / (norm + 1e-6)).clamp(max=1.0)
    return clipped


def _number(values: NDArray[np.float64], like: Tensor) -> Any:
    """One number where it is the same for all jobs, otherwise a tensor; for a list, one of these for each entry."""
    if values.ndim > 2:
        return [_number(values[..., entry], like) for entry in range(values.shape[-1])]
    if (values == values.flat[0]).all():
        return float(values.flat[0])
    exact = like.dtype if like.dtype in (torch.float32, torch.float64) else torch.float32
    return torch.as_tensor(values, dtype=exact, device=like.device)


def _add(tensor: Tensor, other: Tensor, factor: Number, out: Tensor | None = None) -> Tensor:
    """`tensor + factor * other`."""
    if isinstance(factor, Tensor):
        return torch.addcmul(tensor, other, factor, out=out)
    return torch.add(tensor, other, alpha=factor, out=out)


def _power(base: Number, exponent: int) -> Number:
    # in double precision: 1 - 0.999**t loses half of its digits in single
    return base.double() ** exponent if isinstance(base, Tensor) else base**exponent


def _complement(share: Number, like: Tensor) -> Number:
    """`1 - share`, in the type of the tensor that it is applied to."""
    return (1 - share.double()).to(like.dtype) if isinstance(share, Tensor) else 1 - share
