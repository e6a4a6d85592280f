"""The update rules of torch.optim for the parameters of many jobs at once, each job with numbers of its own.

torch.optim takes one learning rate for a tensor. Here the last dimensions of a tensor are the jobs, and every number
of a rule is either one for all of them or an array with an entry each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Number = float | Tensor
"""One number for all jobs, or one each, shape `(streams, jobs)`."""


class Update:
    """One step of an optimizer, in place, on the parameters of many jobs.

    Args:
        settings: the optimizer's configuration of every job. Numbers may differ; what is no number may not.

    Attributes:
        state: what the optimizer remembers, by torch's names, each of the shape of the parameters.
        steps: how many steps were taken.
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

    def place(self, jobs: NDArray[np.int64], like: Tensor) -> None:
        """Say where each job lies.

        Args:
            jobs: their numbers, shape `(streams, jobs)`.
            like: a tensor of the device and the type that numbers are to have.
        """
        self._numbers = {key: _number(values[jobs], like) for key, values in self._values.items()}
        # looked up at every step: None where it is zero for all jobs
        self._decay, self._momentum = (self._used(key) for key in ("weight_decay", "momentum"))

    def step(self, parameters: Tensor, gradient: Tensor, rate: Tensor) -> None:
        """Move the parameters.

        Args:
            parameters: shape `(parameters, streams, jobs)`; changed.
            gradient: of the same shape; may be changed.
            rate: the learning rates, negative, shape `(streams, jobs)`.
        """
        raise NotImplementedError

    def _used(self, key: str) -> Number | None:
        """A number, or None where it is zero for all jobs."""
        number: Number | None = self._numbers.get(key)
        return None if isinstance(number, float) and number == 0 else number

    def _decayed(self, parameters: Tensor, gradient: Tensor) -> Tensor:
        """The gradient with the L2 penalty: `g + weight_decay * p`."""
        return gradient if self._decay is None else _add(gradient, parameters, self._decay)

    def _remembered(self, name: str, like: Tensor) -> Tensor:
        if name not in self.state:
            self.state[name] = torch.zeros_like(like, memory_format=torch.contiguous_format)
        return self.state[name]


class SGD(Update):
    """`b = momentum * b + (1 - dampening) * g`, `p = p - lr * b`, as torch.optim.SGD.

    With Nesterov's momentum it is `p = p - lr * (g + momentum * b)`; the first `b` is the gradient itself.

    >>> rule = SGD([{"lr": 0.1, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False}])
    >>> p = torch.ones(1, 1, 1)
    >>> rule.place(np.array([[0]]), p)
    >>> rule.step(p, gradient=torch.full((1, 1, 1), 2.0), rate=torch.tensor([[-0.1]]))
    >>> p.item()
    0.800000011920929
    """

    def __init__(self, settings: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(settings)
        # without momentum torch leaves dampening aside
        self._values["kept"] = 1 - np.where(self._values["momentum"] == 0, 0, self._values["dampening"])

    def step(self, parameters: Tensor, gradient: Tensor, rate: Tensor) -> None:
        """Move the parameters."""
        gradient = self._decayed(parameters, gradient)
        if (momentum := self._momentum) is not None:
            if not self.steps:
                buffer = self.state["momentum_buffer"] = gradient.clone(memory_format=torch.contiguous_format)
            else:
                buffer = self.state["momentum_buffer"].mul_(momentum)
                buffer = _add(buffer, gradient, self._numbers["kept"], out=buffer)
            gradient = _add(gradient, buffer, momentum) if self._flags["nesterov"] else buffer
        parameters.addcmul_(gradient, rate)
        self.steps += 1


class Adam(Update):
    """`m = lerp(m, g, 1 - beta1)`, `v = lerp(v, g^2, 1 - beta2)`, `p = p - lr * m' / (sqrt(v') + eps)`.

    `m' = m / (1 - beta1^t)` and `v' = v / (1 - beta2^t)` undo the start from zero (Kingma and Ba 2015, algorithm 1),
    as torch.optim.Adam; with AMSGrad `v'` is the largest so far.
    """

    def step(self, parameters: Tensor, gradient: Tensor, rate: Tensor) -> None:
        """Move the parameters."""
        self.steps += 1
        gradient = self._penalised(parameters, gradient, rate)
        beta1, beta2 = self._numbers["betas"]
        mean = self._remembered("exp_avg", parameters)
        square = self._remembered("exp_avg_sq", parameters)
        mean.lerp_(gradient, _rest(beta1, mean))
        square.mul_(beta2).add_(gradient.square().mul_(_rest(beta2, square)))
        if self._flags["amsgrad"]:
            square = torch.maximum(self._remembered("max_exp_avg_sq", parameters), square)
            self.state["max_exp_avg_sq"] = square
        correction = _rest(_power(beta2, self.steps), square)
        root = correction**0.5
        parameters.addcmul_(
            mean / square.sqrt().div_(root).add_(self._numbers["eps"]),
            rate / _rest(_power(beta1, self.steps), rate),
        )

    def _penalised(self, parameters: Tensor, gradient: Tensor, rate: Tensor) -> Tensor:
        return self._decayed(parameters, gradient)


class AdamW(Adam):
    """Adam with weights that decay by themselves: `p = (1 - lr * weight_decay) * p` (Loshchilov and Hutter 2019)."""

    def _penalised(self, parameters: Tensor, gradient: Tensor, rate: Tensor) -> Tensor:
        if self._decay is not None:
            parameters.mul_(1 + rate * self._decay)
        return gradient


class RMSprop(Update):
    """`v = alpha * v + (1 - alpha) * g^2`, `p = p - lr * g / (sqrt(v) + eps)`, as torch.optim.RMSprop.

    Centred, `v` is less the square of the running mean of the gradient. With momentum `b = momentum * b + g / (sqrt(v)
    + eps)` takes the place of the fraction.
    """

    def step(self, parameters: Tensor, gradient: Tensor, rate: Tensor) -> None:
        """Move the parameters."""
        self.steps += 1
        gradient = self._decayed(parameters, gradient)
        alpha = self._numbers["alpha"]
        square = self._remembered("square_avg", parameters)
        square.mul_(alpha).add_(gradient.square().mul_(_rest(alpha, square)))
        if self._flags["centered"]:
            mean = self._remembered("grad_avg", parameters)
            mean.lerp_(gradient, _rest(alpha, mean))
            square = square.addcmul(mean, mean, value=-1)
        moved = gradient / square.sqrt().add_(self._numbers["eps"])
        if (momentum := self._momentum) is not None:
            moved = self._remembered("momentum_buffer", parameters).mul_(momentum).add_(moved)
        parameters.addcmul_(moved, rate)


RULES: dict[str, type[Update]] = {
    "torch.optim.SGD": SGD,
    "torch.optim.Adam": Adam,
    "torch.optim.AdamW": AdamW,
    "torch.optim.RMSprop": RMSprop,
}
"""The rule of each optimizer, by its `_target_`."""


def clip(gradient: Tensor, largest: float, algorithm: str) -> Tensor:
    """Bound the gradient of each job, as torch.nn.utils.clip_grad_norm_ and clip_grad_value_.

    Args:
        gradient: shape `(parameters, streams, jobs)`.
        largest: the largest norm, or the largest entry in size.
        algorithm: "norm" or "value".
    """
    if algorithm == "value":
        return gradient.clamp(-largest, largest)
    norm = torch.linalg.vector_norm(gradient, dim=0)
    clipped: Tensor = gradient * (largest / (norm + 1e-6)).clamp(max=1.0)
    return clipped


def _number(values: NDArray[np.float64], like: Tensor) -> Any:
    """One number where all jobs have the same; entries of a list by themselves."""
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


def _rest(share: Number, like: Tensor) -> Number:
    """`1 - share`, in the type of what it is used with."""
    return (1 - share.double()).to(like.dtype) if isinstance(share, Tensor) else 1 - share
