"""Whether a job can share a program with others, and if not, why it has the Trainer to itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import getattr_static
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from holdfast.data import DataModule
from holdfast.errors import in_a_line
from holdfast.model import Module
from holdfast.schema import Config
from holdfast.train.assemble import assemble, build_module, make
from holdfast.train.descent import MOST_POINTS
from holdfast.train.gradients import Gradients, LeastSquares, Mapped
from holdfast.train.isolation import isolated
from holdfast.train.schedule import SCHEDULERS
from holdfast.train.updates import RULES

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
"""What a subclass may define without giving the Trainer more to do than the stack knows of."""

_COPIES = 8  # of a job's parameters: they, gradient, the optimizer's memory, and the best and the last epoch


class UnstackableError(Exception):
    """A job needs the Trainer to itself; the message says what for."""


@dataclass(frozen=True)
class Fit:
    """What a job tells about those of its structure.

    Attributes:
        reason: why they train alone, or None.
        most: how many of them fit into half of the free memory.
    """

    reason: str | None
    most: int = 0


def fit(config: Config) -> Fit:
    """Try whether a job can be stacked, on one batch."""
    with isolated():
        try:
            _check_settings(config)
            return Fit(None, _try(config))
        except UnstackableError as error:
            return Fit(str(error))
        except Exception as error:  # whatever it is, alone it will be told in the job's own result
            return Fit(f"it could not be tried: {in_a_line(error)}")


def engine(module: Module, trainer: pl.Trainer) -> Gradients:
    """The quickest way to the gradient of a module."""
    precision = trainer.precision_plugin
    fits = LeastSquares.fits(module, str(precision.precision))
    return LeastSquares() if fits else Mapped(module, precision.forward_context)


def on_device(trainer: pl.Trainer, rows: Any) -> tuple[Tensor, ...]:
    """Rows where the Trainer computes, in the type that its precision asks for."""
    batch = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input((rows.x, rows.y)))
    return tuple(batch)


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
    """Refuse what does not derive from ours, or has a hook of its own that a Trainer would call."""
    name = type(thing).__name__
    if not isinstance(thing, base):
        raise UnstackableError(f"{name} does not derive from {what}")
    for attribute in dir(base):
        own = getattr_static(type(thing), attribute) is not getattr_static(base, attribute)
        if own and not attribute.startswith("__") and attribute not in _FREE and callable(getattr(base, attribute)):
            raise UnstackableError(f"{name}.{attribute} is called by a Trainer")


def _try(config: Config) -> int:
    """Train two copies of a job for one batch; returns how many of them memory has room for."""
    module, data = build_module(config), make(config.data)
    _check_class(module, Module, "holdfast.model.Module")
    _check_class(data, DataModule, "holdfast.data.DataModule")
    assert isinstance(module, Module)
    if not module.automatic_optimization:
        raise UnstackableError(f"{type(module).__name__} optimizes by itself")
    trainer = assemble(config, data, logger=False, enable_checkpointing=False)
    if trainer.world_size > 1:
        raise UnstackableError(f"devices={config.devices} trains it on several devices")
    data.setup("fit")
    size = len(data.train) if data.batch_size == "full" else data.batch_size
    trainer.precision_plugin.convert_module(module)
    module.to(trainer.strategy.root_device)
    rows = on_device(trainer, type(data.train)(*data.train[:size]))
    parameters = [value for value in module.parameters() if value.requires_grad]
    _check_loss(module, trainer, rows, parameters)
    numbers = sum(value.numel() for value in parameters)
    iterations = config.epochs * -(-len(data.train) // size)
    # losses are kept as numbers, and become records one part of the jobs after the other
    width = size * (sum(part[0].numel() for part in rows) + _activations(module, rows))
    needed = parameters[0].element_size() * (_COPIES * numbers + 3 * width + 2 * MOST_POINTS) + 8 * iterations
    return max(1, _free_memory(trainer.strategy.root_device) // 2 // needed)


def _check_loss(module: Module, trainer: pl.Trainer, rows: tuple[Tensor, ...], parameters: Sequence[Tensor]) -> None:
    """Hold the loss and the gradient of two copies against the module's own."""
    name = type(module).__name__
    before = torch.random.get_rng_state(), {key: value.clone() for key, value in module.named_buffers()}
    with trainer.precision_plugin.forward_context():
        losses = [module.loss(rows) for _ in range(2)]
        gradients = torch.autograd.grad(losses[0], parameters, allow_unused=True)
    if not torch.equal(torch.random.get_rng_state(), before[0]):
        raise UnstackableError(f"{name}.loss draws random numbers")
    same = all(torch.equal(value, before[1][key]) for key, value in module.named_buffers())
    if not same or not torch.equal(*losses):
        raise UnstackableError(f"{name}.loss changes what it is called on")
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
            found = gradient_of.losses([outcome])[0, 0]
            gradient_of.statistics(stacked[:, 0], gradient_of.prepare(rows))
    except Exception as error:
        raise UnstackableError(f"{name}.loss cannot be mapped over jobs: {in_a_line(error)}") from error
    apart = (gradient[:, 0, 1] - alone).abs().max()
    if torch.isfinite(alone).all() and not (
        torch.allclose(found[1], losses[0].detach().to(found.dtype), rtol=1e-2, atol=1e-6)
        and apart <= 1e-2 * alone.abs().max() + 1e-6
    ):
        raise UnstackableError(f"{name}.loss is another one when mapped over jobs")


def _activations(module: Module, rows: tuple[Tensor, ...]) -> int:
    """Numbers that the layers of a module put out for one row."""
    counted: list[int] = []
    hooks = [
        layer.register_forward_hook(lambda _layer, _inputs, output: counted.append(output.numel()))
        for layer in module.modules()
        if not list(layer.children())
    ]
    with torch.no_grad():
        module.loss(tuple(part[:1] for part in rows))
    for hook in hooks:
        hook.remove()
    return sum(counted)


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
