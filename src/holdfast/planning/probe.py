"""One batch of one job: whether its loss can be mapped over jobs, and what such a job costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from holdfast.arithmetic.gradients import gradients_for, on_device
from holdfast.config.schema import Config
from holdfast.data import BufferedRows, DataModule, Rows
from holdfast.data.order import batch_rows
from holdfast.errors import in_a_line
from holdfast.model import Module
from holdfast.planning.agreement import in_a_stack
from holdfast.planning.width import Cost, multiplications
from holdfast.record.parameter_path import MOST_POINTS
from holdfast.single.build import build_data, build_module, build_trainer, set_up
from holdfast.stacked.inputs import is_shipped
from holdfast.usercode.watch import UnstackableError, Watch

_COPIES = 8
"""Tensors of the size of a job's parameters: parameters, gradient, optimizer state, best epoch and last epoch."""


def probe(configs: Sequence[Config]) -> Cost:
    """Compute the loss of a job on one batch, by its module and in a stack of two copies, and compare.

    Args:
        configs: configurations of jobs with the same structure; the first is tried.

    Returns:
        What such a job costs.

    Raises:
        UnstackableError: the loss cannot be mapped over jobs, or has other effects than computing a loss.
    """
    config = configs[0]
    module, data = build_module(config), build_data(config.data)
    assert isinstance(module, Module)
    assert isinstance(data, DataModule)
    trainer = build_trainer(config, data, logger=False, enable_checkpointing=False)
    if trainer.world_size > 1:
        raise UnstackableError(f"devices={config.devices} trains it on several devices")
    set_up(data)
    size = batch_rows(data.train, data.batch_size)
    trainer.precision_plugin.convert_module(module)
    module.to(trainer.strategy.root_device)
    batch = on_device(trainer, Rows(*data.train[:size]))
    parameters = [value for value in module.parameters() if value.requires_grad]
    if not parameters:
        raise UnstackableError(f"{type(module).__name__} has no parameters to train")
    _check_loss(module, trainer, batch, parameters)
    width = size * (sum(part[0].numel() for part in batch) + _activations(module, batch))
    numbers = _COPIES * sum(value.numel() for value in parameters) + 3 * width + 2 * MOST_POINTS
    # losses are kept as arrays of 8 bytes an iteration, and converted to records for a part of the jobs at a time
    iterations = config.epochs * -(-len(data.train) // size)
    orders = 0
    if isinstance(data.train, BufferedRows):  # the order of a buffer, in 8 bytes a row, for each stream of jobs
        streams = len({repr(each.data) for each in configs})
        orders = 8 * data.train.buffer_rows * streams // len(configs)
    device, total = trainer.strategy.root_device, parameters[0].element_size() * numbers + 8 * iterations + orders
    # stacks of models that ship with Holdfast compute the products of their jobs together
    count = 0 if is_shipped(config) else multiplications(lambda: module.loss(batch), parameters)
    return Cost(total, device, count, iterations)


def _check_loss(module: Module, trainer: pl.Trainer, batch: tuple[Tensor, ...], parameters: Sequence[Tensor]) -> None:
    """Compare the loss and the gradient of two copies in a stack with those of the module."""
    name, watch = type(module).__name__, Watch(module)
    try:
        with trainer.precision_plugin.forward_context():
            losses = [module.loss(batch) for _ in range(2)]
            gradients = torch.autograd.grad(losses[0], parameters, allow_unused=True)
    finally:
        watch.check()
    if not torch.equal(*losses):
        raise UnstackableError(f"{name}.loss differs each time it is computed")
    if any(gradient is None for gradient in gradients):
        raise UnstackableError(f"{name}.loss leaves out a parameter, which torch.optim then does not update")
    expected = torch.cat([gradient.flatten() for gradient in gradients])
    try:
        copies = torch.cat([value.detach().flatten() for value in parameters])[:, None].repeat(1, 2)
        stacked = in_a_stack(gradients_for(module, trainer), copies, batch, batch, np.arange(2))
    except Exception as error:
        watch.check()
        raise UnstackableError(f"{name}.loss cannot be mapped over jobs: {in_a_line(error)}") from error
    loss, gradient = stacked["the loss"][1], stacked["the gradient"][1]
    difference = (gradient - expected).abs().max()
    if torch.isfinite(expected).all() and not (
        torch.allclose(loss, losses[0].detach().to(loss.dtype), rtol=1e-2, atol=1e-6)
        and difference <= 1e-2 * expected.abs().max() + 1e-6
    ):
        raise UnstackableError(f"{name}.loss has another value or gradient when mapped over jobs")


def _activations(module: Module, batch: tuple[Tensor, ...]) -> int:
    """Numbers that the layers of a module output for one row."""
    sizes: list[int] = []

    def count(layer: nn.Module, inputs: Any, output: Any) -> None:
        sizes.extend(part.numel() for part in tree_leaves(output) if isinstance(part, Tensor))

    hooks = [layer.register_forward_hook(count) for layer in module.modules() if not list(layer.children())]
    with torch.no_grad():
        module.loss(batch)
    for hook in hooks:
        hook.remove()
    return sum(sizes) // len(batch[0])
