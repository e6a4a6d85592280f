"""Which jobs can be trained as one program, and why the others are trained alone.

What is known to be right in a stack is listed here; what is not on the list runs alone. Models and data of the user's
own are tried besides, as `holdfast.train.trial` says.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from inspect import getattr_static
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from holdfast.data import DataModule, Rows
from holdfast.errors import in_a_line
from holdfast.model import Module
from holdfast.schema import Config
from holdfast.train.assemble import assemble, build_data, build_module, set_up
from holdfast.train.child import in_a_child
from holdfast.train.descent import MOST_POINTS
from holdfast.train.gradients import engine, on_device
from holdfast.train.isolation import GLOBAL_HOOKS, isolated
from holdfast.train.members import is_shipped
from holdfast.train.schedule import SCHEDULERS
from holdfast.train.state import read
from holdfast.train.trial import try_together
from holdfast.train.updates import RULES
from holdfast.train.watch import NoTrainer, UnstackableError, Watch, readable

_PLAIN: dict[str, Any] = {
    "strategy": "auto",
    "num_nodes": 1,
    "max_steps": -1,
    "max_time": None,
    "accumulate_grad_batches": 1,
    "limit_train_batches": None,
    "limit_val_batches": None,
    "detect_anomaly": False,
    "sync_batchnorm": False,
}
"""Keys of the trainer group that only a Trainer knows what to do with, and the values at which it does nothing."""

_FREE = frozenset({"loss", "statistics", "metrics", "forward", "draw", "digest", "stackable"})
"""What a subclass of our module or data module may define; whatever else it overrides, a Trainer would call."""

_CALLED = frozenset({"__call__", "__getattr__", "__getattribute__", "__setattr__", "__delattr__"})
"""Special methods by which a class can change what any other line of code means."""

_TWO_JOBS = np.arange(2)

_COPIES = 8  # of a job's parameters: they, gradient, the optimizer's memory, and the best and the last epoch


@dataclass(frozen=True)
class Share:
    """Jobs that are trained in the same way.

    Attributes:
        jobs: their indexes among the jobs that were asked about.
        reason: why they train alone; None where they are one program.
        most: how many of them fit into half of the free memory.
        note: why they are not together with others of the same structure; "" where they are.
    """

    jobs: tuple[int, ...]
    reason: str | None
    most: int = 0
    note: str = ""


def share(configs: Sequence[Config]) -> list[Share]:
    """Which of some jobs can be one program.

    Args:
        configs: of jobs that have the same structure, as `holdfast.sweep.plan.structure` tells.

    Returns:
        Every job in exactly one share.
    """
    everyone = tuple(range(len(configs)))
    with isolated():
        try:
            _check_settings(configs[0])
            if is_shipped(configs[0]):
                return [Share(everyone, None, _try_one(configs[0]))]
            return in_a_child(_share_users_code, configs)  # what their code leaves behind is not for the jobs
        except UnstackableError as error:
            return [Share(everyone, str(error))]
        except Exception as error:  # whatever it is, each job will report it in its own result
            return [Share(everyone, f"it could not be tried: {in_a_line(error)}")]


def _share_users_code(configs: Sequence[Config]) -> list[Share]:
    """Put jobs together whose modules differ in numbers only, and try them."""
    groups: dict[Hashable, list[int]] = {}
    refused: dict[str, list[int]] = {}
    known: dict[Hashable, tuple[str | None, Hashable]] = {}
    for index, config in enumerate(configs):
        parts = ((_look_at_module, (repr(config.model), config.seed)), (_look_at_data, repr(config.data)))
        looks = []
        for look, key in parts:
            if (look, key) not in known:
                known[look, key] = _safely(look, config)
            looks.append(known[look, key])
        reason = next((reason for reason, _ in looks if reason is not None), None)
        if reason is not None:
            refused.setdefault(reason, []).append(index)
        else:
            groups.setdefault(tuple(structure for _, structure in looks), []).append(index)
    alone = [Share(tuple(jobs), reason) for reason, jobs in refused.items()]
    note = "" if len(groups) < 2 else "jobs whose modules differ in more than numbers have stacks of their own"
    return [found for jobs in groups.values() for found in _divided(configs, jobs, _DIVISIONS, note)] + alone


def _safely(look: Callable[[Config], Hashable], config: Config) -> tuple[str | None, Hashable]:
    """Why a job cannot be stacked, or what it must have in common with the others of its stack."""
    with isolated():
        try:
            return None, look(config)
        except UnstackableError as error:
            return str(error), None
        except (Exception, SystemExit) as error:
            return f"it could not be built: {in_a_line(error)}", None


def _look_at_module(config: Config) -> Hashable:
    module = build_module(config)
    _check_class(module, Module, "holdfast.model.Module")
    assert isinstance(module, Module)
    if not module.automatic_optimization:
        raise UnstackableError(f"{type(module).__name__} optimizes by itself")
    _check_hooks(module)
    state = read(module)
    for path, kind in state.hidden.items():
        raise UnstackableError(f"{readable(path)} is a {kind}, whose state cannot be read")
    return state.structure()


def _look_at_data(config: Config) -> Hashable:
    data = build_data(config.data)
    _check_class(data, DataModule, "holdfast.data.DataModule")
    assert isinstance(data, DataModule)
    data.trainer = trainer = NoTrainer()  # type: ignore[assignment]
    try:
        set_up(data)
    finally:
        if trainer.reads:
            raise UnstackableError(f"{type(data).__name__} reads the Trainer (trainer.{trainer.reads[0]})")
    name = type(data).__name__
    for key in ("train", "val", "batch_size", "order_seed", "shuffle"):
        if key not in vars(data):
            raise UnstackableError(f"{name}.{key} is computed anew each time it is read")
    for rows in (data.train, data.val):
        if type(rows) is not Rows or any(type(part) is not Tensor for part in (rows.x, rows.y)):
            raise UnstackableError(f"{name} has rows of a class of its own, which a Trainer reads one batch at a time")
    # jobs of a stack take their batches from one tensor
    return data.batch_size, *((part.dtype, part.shape) for rows in (data.train, data.val) for part in (rows.x, rows.y))


_Division = Callable[[Config], Hashable]

_DIVISIONS: tuple[tuple[str, _Division], ...] = (
    ("arguments of model and data", lambda config: (repr(config.model), repr(config.data))),
    ("seed and arguments of model and data", lambda config: (repr(config.model), repr(config.data), config.seed)),
)
"""By what jobs are divided, coarse first, where a stack of all of them is not right."""


def _divided(
    configs: Sequence[Config], jobs: Sequence[int], divisions: Sequence[tuple[str, _Division]], note: str
) -> list[Share]:
    """Try jobs together; where that is not right, those with the same values."""
    try:
        with isolated():  # as if nothing had been built before
            most = _try_one(configs[jobs[0]])
        try_together([configs[job] for job in jobs])
        return [Share(tuple(jobs), None, most, note)]
    except UnstackableError as error:
        reason = str(error)
    for number, (what, key) in enumerate(divisions):
        parts: dict[Hashable, list[int]] = {}
        for job in jobs:
            parts.setdefault(key(configs[job]), []).append(job)
        if len(parts) == 1:
            continue
        rest, why = divisions[number + 1 :], f"a stack for each value of {what}: in one for all of them {reason}"
        first, *others = parts.values()
        found = _divided(configs, first, rest, why)
        if all(part.reason is not None for part in found):
            break  # it is not the values: the others would only be tried in vain
        return found + [part for some in others for part in _divided(configs, some, rest, why)]
    return [Share(tuple(jobs), reason)]


# ------------------------------------------------------------------------------------------- what is allowed


def _check_settings(config: Config) -> None:
    for group in ("callbacks", "logger"):
        for name in getattr(config, group).extras:
            raise UnstackableError(f"{group}.{name} is called by a Trainer")
    for key, plain in _PLAIN.items():
        if getattr(config.trainer, key) != plain:
            raise UnstackableError(f"trainer.{key} is the Trainer's")
    if config.precision == "16-mixed":
        raise UnstackableError("precision=16-mixed scales the gradient of each job by itself")
    if config.optimizer["_target_"] not in RULES:
        raise UnstackableError(f"{config.optimizer['_target_']} has no rule for many jobs at once")
    if config.scheduler["_target_"] not in SCHEDULERS:
        raise UnstackableError(f"{config.scheduler['_target_']} may look at more than the epoch")


def _check_class(thing: Any, base: type, what: str) -> None:
    """Refuse what does not derive from ours, or overrides more than it may, in its class or in the object itself."""
    name = type(thing).__name__
    if not isinstance(thing, base):
        raise UnstackableError(f"{name} does not derive from {what}")
    for attribute in dir(base):
        if attribute in _FREE or attribute == "_abc_impl" or (attribute.startswith("__") and attribute not in _CALLED):
            continue
        overridden = getattr_static(type(thing), attribute) is not getattr_static(base, attribute)
        if overridden or (attribute in vars(thing) and callable(getattr(base, attribute))):
            raise UnstackableError(f"{name}.{attribute} is called by a Trainer")
    if added := [attribute for attribute in _CALLED if _defines(type(thing), attribute, base)]:
        raise UnstackableError(f"{name}.{added[0]} changes what any line of its code means")


def _defines(cls: type, attribute: str, base: type) -> bool:
    """Whether a class, or one that it derives from before our base, defines an attribute."""
    return any(attribute in vars(each) for each in cls.__mro__ if not issubclass(base, each))


def _is_hooks(key: str) -> bool:
    return key.endswith("_hooks") and not key.startswith("_load_state_dict")


def _check_hooks(module: Module) -> None:
    """Refuse hooks on layers, parameters and gradients: a stack has other tensors and would not call them."""
    name = type(module).__name__
    for path, layer in module.named_modules():
        # hooks that are called while weights are loaded have no part in training
        hooks = [key for key, value in vars(layer).items() if _is_hooks(key) and value]
        if hooks:
            raise UnstackableError(f"{path or name} has hooks ({hooks[0].strip('_')})")
    for path, value in module.named_parameters():
        if value._backward_hooks or getattr(value, "_post_accumulate_grad_hooks", None):
            raise UnstackableError(f"{path} has a hook on its gradient")
        if type(value) is not nn.Parameter:
            raise UnstackableError(f"{path} is a {type(value).__name__}, not a plain parameter")
    if any(GLOBAL_HOOKS):
        raise UnstackableError("hooks are registered that are called for every module or optimizer")


# ---------------------------------------------------------------------------------------------- on one batch


def _try_one(config: Config) -> int:
    """Compute the loss of one job on one batch in both ways; returns how many such jobs memory has room for."""
    module, data = build_module(config), build_data(config.data)
    assert isinstance(module, Module)
    assert isinstance(data, DataModule)
    trainer = assemble(config, data, logger=False, enable_checkpointing=False)
    if trainer.world_size > 1:
        raise UnstackableError(f"devices={config.devices} trains it on several devices")
    set_up(data)
    size = len(data.train) if data.batch_size == "full" else data.batch_size
    trainer.precision_plugin.convert_module(module)
    module.to(trainer.strategy.root_device)
    rows = on_device(trainer, Rows(data.train.x[:size], data.train.y[:size]))
    parameters = [value for value in module.parameters() if value.requires_grad]
    if not parameters:
        raise UnstackableError(f"{type(module).__name__} has no parameters to train")
    _check_loss(module, trainer, rows, parameters)
    numbers = sum(value.numel() for value in parameters)
    iterations = config.epochs * -(-len(data.train) // size)
    # losses are kept as numbers, and become records one part of the jobs after the other
    width = size * (sum(part[0].numel() for part in rows) + _activations(module, rows))
    needed = parameters[0].element_size() * (_COPIES * numbers + 3 * width + 2 * MOST_POINTS) + 8 * iterations
    return max(1, _free_memory(trainer.strategy.root_device) // 2 // needed)


def _check_loss(module: Module, trainer: Any, rows: tuple[Tensor, ...], parameters: Sequence[Tensor]) -> None:
    """Compare the loss and the gradient of two copies with the module's own."""
    name, watch = type(module).__name__, Watch(module)
    try:
        with trainer.precision_plugin.forward_context():
            losses = [module.loss(rows) for _ in range(2)]
            gradients = torch.autograd.grad(losses[0], parameters, allow_unused=True)
    finally:
        watch.check()
    if not torch.equal(*losses):
        raise UnstackableError(f"{name}.loss is another one each time it is computed")
    if any(gradient is None for gradient in gradients):
        raise UnstackableError(f"{name}.loss leaves out a parameter, which torch.optim then leaves alone")
    alone = torch.cat([gradient.flatten() for gradient in gradients])
    gradient_of = engine(module, trainer)
    flat = torch.cat([value.detach().flatten() for value in parameters])
    stacked = flat[:, None, None].repeat(1, 1, 2)
    try:
        with torch.no_grad():
            (batch,) = gradient_of.batches(tuple(part[None, None] for part in gradient_of.prepare(rows)), 2)
            outcome, gradient = gradient_of(stacked, batch)
            mapped = gradient_of.losses([outcome])[0, 0]
            gradient_of.statistics(stacked[:, 0], gradient_of.prepare(rows), _TWO_JOBS)
    except Exception as error:
        watch.check()
        raise UnstackableError(f"{name}.loss cannot be mapped over jobs: {in_a_line(error)}") from error
    apart = (gradient[:, 0, 1] - alone).abs().max()
    if torch.isfinite(alone).all() and not (
        torch.allclose(mapped[1], losses[0].detach().to(mapped.dtype), rtol=1e-2, atol=1e-6)
        and apart <= 1e-2 * alone.abs().max() + 1e-6
    ):
        raise UnstackableError(f"{name}.loss is another one when mapped over jobs")


def _activations(module: Module, rows: tuple[Tensor, ...]) -> int:
    """Numbers that the layers of a module put out for one row."""
    counted: list[int] = []

    def note(layer: nn.Module, inputs: Any, output: Any) -> None:
        counted.extend(part.numel() for part in tree_leaves(output) if isinstance(part, Tensor))

    hooks = [layer.register_forward_hook(note) for layer in module.modules() if not list(layer.children())]
    with torch.no_grad():
        module.loss(rows)
    for hook in hooks:
        hook.remove()
    return sum(counted) // len(rows[0])


def _free_memory(device: torch.device) -> int:
    """Bytes that could be had now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo") as stream:
            found = dict(line.split(":") for line in stream)
        return int(found["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
