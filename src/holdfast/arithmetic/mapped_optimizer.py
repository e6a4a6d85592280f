"""Any elementwise optimizer of torch.optim for many jobs: its own `step`, mapped over them and traced.

The parameters of a group are one vector of each job. Hyperparameters in which jobs differ, and those that a scheduler
changes, are tensors without dimensions, one number of each job.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from holdfast.arithmetic.tracing import traced
from holdfast.usercode.watch import UnstackableError

ELEMENTWISE = frozenset({"SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam", "RAdam", "Adadelta", "Adamax", "ASGD"})
"""Optimizers of torch.optim that update each number by its own gradient and state alone."""

_UNTRACED = 7
"""Steps before a trace: the state is complete, and RAdam has taken the branch that it takes from then on."""

Group = dict[str, Any]
State = list[dict[str, Tensor]]


def check_optimizer(optimizer: Optimizer) -> None:
    """Refuse an optimizer that cannot be mapped over jobs.

    Raises:
        UnstackableError: it is not elementwise, or has options or hooks that are for one job.
    """
    name = type(optimizer).__name__
    if name not in ELEMENTWISE or getattr(torch.optim, name) is not type(optimizer):
        raise UnstackableError(f"{name} is not one of the optimizers of torch that update each number alone")
    for key in ("fused", "capturable", "differentiable"):
        if any(group.get(key) for group in optimizer.param_groups):
            raise UnstackableError(f"optimizer.{key} chooses code of torch's that trains one job")
    if any(hooks for key, hooks in vars(optimizer).items() if key.endswith("_hooks")):
        raise UnstackableError(f"{name} has hooks")


class MappedOptimizer:
    """Updates the parameters of many jobs by the optimizer of the first.

    Args:
        optimizers: the optimizer of each job, as `configure_optimizers` made it; only numbers may differ.
        sizes: number of trained parameters in each group.

    Raises:
        UnstackableError: the optimizer is not elementwise, or the jobs differ in more than numbers.

    Attributes:
        state: of each group by torch's names, each of shape `(jobs, ...)`.
        steps: number of steps taken.
        as_tensors: of each group the hyperparameters that are tensors: those in which jobs differ, or that change.
    """

    def __init__(self, optimizers: Sequence[Optimizer], sizes: Sequence[int]) -> None:
        first = optimizers[0]
        check_optimizer(first)
        self._first, self._sizes = first, sizes
        self.state: State = [{} for _ in sizes]
        self.steps = 0
        self.as_tensors: list[set[str]] = [{"lr"} for _ in sizes]
        self._fixed: list[Group] = []
        self._numbers: list[Group] = []
        self._traces: dict[str, Callable[..., Any]] = {}
        self._seen: dict[str, int] = defaultdict(int)

    def set_groups(self, groups: Sequence[Sequence[Group]]) -> None:
        """Set the hyperparameters.

        Args:
            groups: the parameter groups of each job, as the schedulers have left them.
        """
        fixed, numbers = [], []
        for index, as_tensors in enumerate(self.as_tensors):
            of_jobs = [job[index] for job in groups]
            before = self._fixed[index] if self._fixed else {}
            for key, value in of_jobs[0].items():
                if key == "params" or not _may_be_a_tensor(value):
                    continue
                differs = any(each[key] != value for each in of_jobs)
                if differs or (key in before and before[key] != value):
                    as_tensors.add(key)
            fixed.append({key: value for key, value in of_jobs[0].items() if key != "params" and key not in as_tensors})
            if any(each.get(key) != value for key, value in fixed[-1].items() for each in of_jobs):
                raise UnstackableError(f"the options of {type(self._first).__name__} differ in more than numbers")
            numbers.append({key: _tensor([each[key] for each in of_jobs]) for key in sorted(as_tensors)})
        self._fixed, self._numbers = fixed, numbers

    def step(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
        """The parameters after one step, of each group, shape `(jobs, parameters)`."""
        self.steps += 1
        key = repr((self._fixed, [sorted(group) for group in self._numbers], self.steps >= _UNTRACED))
        shapes = [tuple(each.shape) for each in parameters]
        key, args = f"{key} {shapes}", (list(parameters), list(gradients), self.state, self._numbers)
        if key not in self._traces:
            mapped = self._mapped()
            self._seen[key] += 1
            if self.steps < _UNTRACED or self._seen[key] < 2:  # a key that does not come again is not worth a trace
                new, self.state = mapped(*args)
                return list(new)
            self._traces[key] = traced(mapped, *args)
        new, self.state = self._traces[key](*args)
        return list(new)

    def _mapped(self) -> Callable[..., Any]:
        """The step as a function of tensors of all jobs."""
        fixed = copy.copy(self._fixed)

        def of_all(parameters: Any, gradients: Any, state: Any, numbers: Any) -> Any:
            parameters = [each.clone() for each in parameters]
            state = [{name: value.clone() for name, value in each.items()} for each in state]
            with torch.no_grad(), _NumbersOfJobs() as mode:

                def of_one(zero: Tensor, *args: Any) -> Any:
                    mode.zero = zero
                    return self._of_one(fixed, *args)

                zero = parameters[0].new_zeros(len(parameters[0]), dtype=torch.float64)
                return vmap(of_one)(zero, parameters, gradients, state, numbers)

        return of_all

    def _of_one(
        self, fixed: Sequence[Group], parameters: Any, gradients: Any, state: Any, numbers: Any
    ) -> tuple[Any, Any]:
        optimizer = copy.copy(self._first)
        optimizer.state, optimizer.param_groups = defaultdict(dict), []
        for group, parameter, gradient, number, each in zip(fixed, parameters, gradients, numbers, state, strict=True):
            plain = {"foreach": False} if "foreach" in group else {}
            optimizer.param_groups.append({**group, **number, **plain, "params": [parameter]})
            parameter.grad = gradient
            if each:
                optimizer.state[parameter] = dict(each)
            elif type(optimizer) is torch.optim.Adagrad:  # makes its state when it is built
                total = torch.full_like(parameter, group["initial_accumulator_value"])
                optimizer.state[parameter] = {"step": torch.zeros(()), "sum": total}
        step: Any = type(optimizer).step
        step.__wrapped__(optimizer)
        tensors = [
            {name: value for name, value in optimizer.state[each].items() if isinstance(value, Tensor)}
            for each in parameters
        ]
        return parameters, tensors


def _may_be_a_tensor(value: Any) -> bool:
    values = value if isinstance(value, (tuple, list)) else [value]
    return bool(values) and all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in values)


def _tensor(values: Sequence[Any]) -> Any:
    if isinstance(values[0], (tuple, list)):
        return tuple(torch.tensor(each, dtype=torch.float64) for each in zip(*values, strict=True))
    return torch.tensor([float(value) for value in values], dtype=torch.float64)


class _NumbersOfJobs(TorchFunctionMode):
    """Lets torch's optimizers take a tensor where they take a number: `alpha`, `value`, `weight`, and conditions.

    vmap has no rule for some operations in place, and would loop over the jobs: these are written out, in the order of
    torch's kernels.
    """

    zero: Tensor

    def __torch_function__(  # noqa: PLR0911 (one rule after the other)
        self, function: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given, name = dict(kwargs or {}), getattr(function, "__name__", "")
        if function is Tensor.__bool__:
            return _same_for_all(args[0])
        if function is Tensor.item:  # one number of each job stays a tensor, as exact as Python's numbers are
            return args[0].double() if args[0].is_floating_point() else args[0]
        if name in ("zeros", "ones", "tensor", "as_tensor", "full", "zeros_like"):
            tensor = function(*args, **given)
            if tensor.dim() > 0 or _is_mapped(tensor):
                return tensor
            # from now on one of each job; counts of steps, which start at zero, are read as Python's numbers
            counts = name == "zeros" or (name == "tensor" and args[0] == 0)
            return tensor.double() + self.zero if counts else tensor + self.zero.to(tensor.dtype)
        if given.get("out") is not None:
            out = given.pop("out")
            return out.copy_(function(*args, **given))
        in_place = name.startswith("__i") or (name.endswith("_") and not name.startswith("__"))
        base = name.rstrip("_")
        if base in ("add", "sub") and isinstance(given.get("alpha"), Tensor):
            return getattr(args[0], name)(args[1] * given["alpha"].to(args[0].dtype))
        if base in ("addcmul", "addcdiv"):
            target, one, other = args
            value = given.get("value", 1)
            value = value.to(target.dtype) if isinstance(value, Tensor) else value
            one, other = (each.to(target.dtype) if each.dim() == 0 else each for each in (one, other))
            one = one if isinstance(value, (int, float)) and value == 1 else value * one
            change = one * other if base == "addcmul" else one / other
            return target.add_(change) if in_place else target.add(change)
        if base == "lerp":
            target, end = args[:2]
            weight = args[2] if len(args) > 2 else given["weight"]
            weight = weight.to(target.dtype) if isinstance(weight, Tensor) else torch.full_like(end[..., :1], weight)
            moved = torch.lerp(target, end, weight)
            return target.copy_(moved) if in_place else moved
        if name in _ARITHMETIC and len(args) == 2 and all(isinstance(each, Tensor) for each in args):
            one, other = args  # a number beside a tensor has no say in its type
            if one.dtype != other.dtype and other.dim() == 0 and (one.dim() > 0 or in_place):
                return function(one, other.to(one.dtype), **given)
            if one.dtype != other.dtype and one.dim() == 0 < other.dim():
                return function(one.to(other.dtype), other, **given)
        return function(*args, **given)


_ARITHMETIC = frozenset(
    {"mul", "mul_", "div", "div_", "add", "add_", "sub", "sub_"}
    | {"__iadd__", "__isub__", "__imul__", "__itruediv__"}
    | {"__add__", "__sub__", "__mul__", "__truediv__", "__radd__", "__rsub__", "__rmul__", "__rtruediv__"}
)


def _is_mapped(tensor: Tensor) -> bool:
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def _same_for_all(condition: Tensor) -> bool:
    """The value of a condition, which has to be the same for all jobs.

    Raises:
        UnstackableError: it is not.
    """
    with disable_proxy_modes_tracing():
        while _is_mapped(condition):
            condition = torch._C._functorch.get_unwrapped(condition)
        values = condition.flatten().tolist()
    if any(value != values[0] for value in values):
        raise UnstackableError("an option of the optimizer is zero for some jobs only, and so another rule")
    return bool(values[0])
