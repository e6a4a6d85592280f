"""One batch of one job: its loss in a stack of two copies against its own, and the memory that it takes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from holdfast.config.schema import Config
from holdfast.data import DataModule, Rows
from holdfast.errors import in_a_line
from holdfast.model import Module
from holdfast.record.parameter_path import MOST_POINTS
from holdfast.single.assemble import assemble, build_data, build_module, set_up
from holdfast.stacked.gradients import gradients_for, on_device
from holdfast.usercode.watch import UnstackableError, Watch

_TWO_JOBS = np.arange(2)

_COPIES = 8  # of a job's parameters: they, gradient, the optimizer's memory, and the best and the last epoch


def try_one(config: Config) -> int:
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
    gradient_of = gradients_for(module, trainer)
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
            sizes = dict(line.split(":") for line in stream)
        return int(sizes["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
