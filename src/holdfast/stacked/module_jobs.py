"""The jobs of a stack of ordinary LightningModules: each has its own module, optimizer, schedulers and generator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.core.optimizer import _configure_optimizers, _configure_schedulers_automatic_opt
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.optim import Optimizer

from holdfast.config.schema import Config
from holdfast.data.seeding import derive, reseed
from holdfast.single.build import build_module
from holdfast.usercode.metric_states import StateName, metrics_of, states_of
from holdfast.usercode.stand_in import StandInTrainer
from holdfast.usercode.watch import UnstackableError

HOOKS = (
    "on_fit_start",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_epoch_end",
    "on_validation_epoch_start",
    "on_validation_epoch_end",
)
"""Hooks that are called for each job, on the job's own module."""


class ModuleJob:
    """One job.

    Args:
        config: its configuration.
        trainer: knows the device and the precision.
        iterations: of an epoch.
        module: as `build_module` has just built it; None if it is still to be built.

    Raises:
        UnstackableError: its optimizer or scheduler has no place in a stack.

    Attributes:
        module: the job's own module.
        stand_in: in the place of its Trainer.
        optimizer, schedulers: as `configure_optimizers` made them.
        metrics: the torchmetrics of the module, by path.
        train_log, val_log: what the module has logged in hooks, and the metrics that it has logged as objects.
        generator: in the place of torch's global generator.
    """

    def __init__(
        self, config: Config, trainer: pl.Trainer, iterations: int, module: pl.LightningModule | None = None
    ) -> None:
        self.config = config
        self.stand_in = StandInTrainer(config.epochs)
        self.module = build_module(config) if module is None else module
        trainer.precision_plugin.convert_module(self.module)
        self.stand_in.attach(self.module)
        reseed(derive(config.seed, "setup"))
        self.module.setup("fit")
        self.module.to(trainer.strategy.root_device)
        self.optimizer, self.schedulers = self._optimizers(iterations)
        self.generator = torch.Generator()
        self.generator.set_state(torch.get_rng_state())
        self.metrics = metrics_of(self.module)
        self.train_log, self.val_log = _ResultCollection(training=True), _ResultCollection(training=False)
        self.hooks = frozenset(name for name in HOOKS if is_overridden(name, self.module))

    def _optimizers(self, iterations: int) -> tuple[Optimizer, list[Any]]:
        name, known = type(self.module).__name__, self.stand_in.known
        only_here = {
            "estimated_stepping_batches": iterations * self.config.epochs,
            "num_training_batches": iterations,
            "model": self.module,
        }
        known |= only_here
        returned = self.module.configure_optimizers()
        for key in only_here:
            del known[key]
        optimizers, schedulers, monitor = _configure_optimizers(returned)  # type: ignore[arg-type]
        if len(optimizers) != 1:
            raise UnstackableError(f"{name} has {len(optimizers)} optimizers")
        configs = _configure_schedulers_automatic_opt(schedulers, monitor)
        for each in configs:
            kind = type(each.scheduler)
            if not kind.__module__.startswith("torch.optim.") or each.scheduler.optimizer is not optimizers[0]:
                raise UnstackableError(f"{name} has a scheduler that is not torch's ({kind.__name__})")
            if each.interval not in ("epoch", "step"):
                raise UnstackableError(f"{name} has a scheduler with interval={each.interval}")
            if each.reduce_on_plateau and each.interval == "step":
                raise UnstackableError(f"{name} has a ReduceLROnPlateau that looks at every step")
        optimizers[0]._opt_called = True
        return optimizers[0], configs

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Let torch's global generator be the job's."""
        before = torch.get_rng_state()
        torch.set_rng_state(self.generator.get_state())
        try:
            yield
        finally:
            self.generator.set_state(torch.get_rng_state())
            torch.set_rng_state(before)

    def begin_epoch(self, epoch: int) -> None:
        """Make everything random in an epoch a function of seed and epoch, as for a job alone."""
        self.generator.manual_seed(derive(self.config.seed, "epoch", epoch))

    def call(self, hook: str, log: _ResultCollection | None) -> None:
        """Call a hook of the module."""
        if hook not in self.hooks:
            return
        self.stand_in.update(results=log)
        before, self.module._current_fx_name = self.module._current_fx_name, hook
        try:
            with self.drawing():
                getattr(self.module, hook)()
        finally:
            self.module._current_fx_name = before
            self.stand_in.update(results=None)
        self.stand_in.check()

    def states(self) -> dict[StateName, Tensor]:
        """The states of the metrics after a hook."""
        return states_of(self.metrics)

    def step_schedulers(self, interval: str, count: int) -> None:
        """Step the schedulers that look at no metric, as Lightning does after an iteration or an epoch.

        Args:
            interval: "step" or "epoch".
            count: iterations of this epoch, or epochs, that are over.
        """
        for each in self.schedulers:
            if each.interval == interval and not each.reduce_on_plateau and count % each.frequency == 0:
                each.scheduler.step()

    def step_plateau(self, epochs: int, metrics: Mapping[str, Tensor], row: int) -> None:
        """Step the schedulers that look at a metric, after some epochs.

        Args:
            epochs: number of epochs that are over.
            metrics: as a Trainer's `callback_metrics`, each of shape `(jobs,)`.
            row: of this job.
        """
        for each in self.schedulers:
            if each.reduce_on_plateau and epochs % each.frequency == 0:
                if each.monitor not in metrics:
                    raise UnstackableError(f"its scheduler needs {each.monitor}, which is not logged")
                each.scheduler.step(metrics[each.monitor][row])

    def plain(self) -> dict[str, Any]:
        """The hyperparameters of the optimizer, and the states of the schedulers, for a checkpoint."""
        groups = [
            {key: value for key, value in group.items() if key != "params"} for group in self.optimizer.param_groups
        ]
        return {
            "param_groups": groups,
            "lr_schedulers": [each.scheduler.state_dict() for each in self.schedulers],
            "schedules": [[each.interval, each.frequency, each.reduce_on_plateau] for each in self.schedulers],
        }

    def restore(self, plain: Mapping[str, Any]) -> None:
        """Go on with what `plain` returned."""
        for each, state in zip(self.schedulers, plain["lr_schedulers"], strict=True):
            each.scheduler.load_state_dict(state)
        for group, settings in zip(self.optimizer.param_groups, plain["param_groups"], strict=True):
            group.update(settings)
