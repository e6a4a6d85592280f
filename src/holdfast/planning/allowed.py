"""The settings, classes and hooks that jobs of a stack may have; a job with any other is trained alone."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from inspect import getattr_static
from typing import Any

import lightning.pytorch as pl
from torch import nn

from holdfast.arithmetic.optimizers import OPTIMIZERS
from holdfast.config.job import FOLDER
from holdfast.config.schema import Config
from holdfast.config.trainer_arguments import TrainerArguments
from holdfast.data import DataModule
from holdfast.model import Module
from holdfast.runtime.isolation import GLOBAL_HOOKS
from holdfast.stacked.module_jobs import HOOKS
from holdfast.stacked.schedule import SCHEDULERS
from holdfast.usercode.watch import UnstackableError

_IMPLEMENTED = frozenset(
    {"gradient_clip_val", "gradient_clip_algorithm", "deterministic", "benchmark", "log_every_n_steps"}
    | {"enable_progress_bar", "enable_model_summary"}
)
"""Keys of the group `trainer` that a stack implements, or that only show something."""

_NEUTRAL: dict[str, Any] = {field.name: field.default for field in fields(TrainerArguments)}
"""The other keys of the group `trainer` have to have these values, which are Lightning's defaults."""

_ONLY_SHOW = frozenset({"TQDMProgressBar", "RichProgressBar", "ModelSummary", "RichModelSummary"})
"""Callbacks of Lightning that print, and change nothing: a stack shows its own progress instead."""

_INSTEAD = {
    "EarlyStopping": "callbacks.early_stopping.patience stops the jobs of a stack too, each by the key metric",
    "ModelCheckpoint": "best.ckpt, by the key metric, and last.ckpt are kept without it",
    "LearningRateMonitor": "train/lr is recorded without it",
}
"""What Holdfast has in the place of some callbacks of Lightning."""

_CHOOSES_CODE = frozenset({"maximize", "foreach", "fused", "capturable", "differentiable"})
"""Keys of the group `optimizer` that choose another implementation of torch's."""

_OVERRIDABLE = frozenset(
    {"bare", "lr", "loss", "statistics", "metrics", "forward", "draw", "draw_clean", "digest", "_abc_impl"}
)
"""Attributes that a subclass of `Module` or `DataModule` may override; the others are called by a Trainer only."""

STEP_METHODS = frozenset(
    {"training_step", "validation_step", "test_step", "predict_step", "forward", "configure_optimizers", "setup"}
    | {"on_test_start", "on_test_epoch_start", "on_test_epoch_end", "on_test_end", "teardown", "_abc_impl"}
    | {"example_input_array", *HOOKS}
    | {f"{split}_dataloader" for split in ("train", "val", "test", "predict")}  # those of the data module are used
)
"""Attributes of a LightningModule that a class may override whose steps are called in a stack."""

LOADER_METHODS = frozenset(
    {"prepare_data", "setup", "teardown", "_abc_impl"}
    | {f"{split}_dataloader" for split in ("train", "val", "test", "predict")}
)
"""Attributes of a LightningDataModule that a class may override whose loaders are read by a stack."""

_SPECIAL = ("__call__", "__getattr__", "__getattribute__", "__setattr__", "__delattr__")
"""Special methods with which a class can change the meaning of any other line of code."""


def check_settings(config: Config) -> None:
    """Refuse a job whose settings a stack does not implement.

    Raises:
        UnstackableError: such a setting; the message names its key.
    """
    for name, callback in config.callbacks.extras.items():
        module, _, kind = callback["_target_"].rpartition(".")
        lightnings = module.startswith("lightning.pytorch.callbacks")
        if not (lightnings and kind in _ONLY_SHOW):
            instead = _INSTEAD.get(kind) if lightnings else None
            raise UnstackableError(f"callbacks.{name} needs a Trainer" + (f"; {instead}" if instead else ""))
    for name in config.logger.extras:
        raise UnstackableError(f"logger.{name} needs a Trainer")
    for group in ("data", "model", "optimizer", "scheduler"):
        if FOLDER in repr(getattr(config, group)):
            raise UnstackableError(f"{group} names the folder of its run")
    for key in sorted(_NEUTRAL.keys() - _IMPLEMENTED):
        if getattr(config.trainer, key) != _NEUTRAL[key]:
            raise UnstackableError(f"trainer.{key} is the Trainer's")
    if config.precision == "16-mixed":
        raise UnstackableError("precision=16-mixed scales the gradient of each job separately")


def check_rules(config: Config) -> None:
    """Refuse a job whose optimizer or scheduler has no formula for many jobs.

    Raises:
        UnstackableError: such a setting; the message names its key.
    """
    for key in sorted(_CHOOSES_CODE & config.optimizer.keys()):
        if config.optimizer[key]:
            raise UnstackableError(f"optimizer.{key} chooses code of torch's that trains one job")
    if config.optimizer["_target_"] not in OPTIMIZERS:
        raise UnstackableError(f"{config.optimizer['_target_']} has no rule for many jobs at once")
    if config.scheduler["_target_"] not in SCHEDULERS:
        raise UnstackableError(f"{config.scheduler['_target_']} may look at more than the epoch")


def has_rules(config: Config) -> bool:
    """Whether a job has an optimizer and a scheduler with formulas for many jobs."""
    try:
        check_rules(config)
    except UnstackableError:
        return False
    return True


def check_class(instance: Any, base: type, overridable: frozenset[str] = _OVERRIDABLE) -> None:
    """Refuse a module or data module that overrides methods that a stack would not call.

    Args:
        instance: an object of the user's class; methods that are replaced in the object itself count too.
        base: the class that it has to derive from, such as `holdfast.model.Module`.
        overridable: attributes of the base that it may override.

    Raises:
        UnstackableError: the class does not derive from the base, or overrides such a method; the message names it.
    """
    name = type(instance).__name__
    check_base(type(instance), base)
    # by the order of the classes: a protocol may say of the base, too, that it derives from it
    theirs = {attribute for cls in type(instance).__mro__ if cls not in base.__mro__ for attribute in vars(cls)}
    for attribute in _of_a_trainer(base, overridable) & (theirs | vars(instance).keys()):
        present = getattr_static(type(instance), attribute)
        overridden = all(present is not getattr_static(each, attribute, None) for each in (base, Module, DataModule))
        if overridden or (attribute in vars(instance) and callable(getattr(base, attribute))):
            raise UnstackableError(f"{name}.{attribute} needs a Trainer")
    for attribute in _SPECIAL:
        classes = (cls for cls in type(instance).__mro__ if cls not in base.__mro__ and cls is not Module)
        if any(attribute in vars(cls) for cls in classes):
            raise UnstackableError(f"{name}.{attribute} can change the meaning of any line of its code")


def check_base(cls: type, base: type) -> None:
    """Refuse a class that does not derive from the base.

    Raises:
        UnstackableError: it does not.
    """
    if not issubclass(cls, base):
        base_name = f"{base.__module__.rpartition('.')[0]}.{base.__name__}"
        raise UnstackableError(f"{cls.__name__} does not derive from {base_name}")


@cache
def _of_a_trainer(base: type, overridable: frozenset[str]) -> frozenset[str]:
    """Attributes of a base that no class may override, since only a Trainer calls them."""
    return frozenset(
        name for name in dir(base) if name not in overridable and (name in _SPECIAL or not name.startswith("__"))
    )


def check_hooks(module: pl.LightningModule) -> None:
    """Refuse hooks on layers, parameters and gradients: a stack has tensors of its own and would not call them.

    Raises:
        UnstackableError: a hook is registered, or a parameter is an instance of a subclass of `nn.Parameter`.
    """
    name = type(module).__name__
    for path, layer in module.named_modules():
        # hooks that are called while weights are loaded do not affect training
        for key, hooks in vars(layer).items():
            if key.endswith("_hooks") and not key.startswith("_load_state_dict") and hooks:
                raise UnstackableError(f"{path or name} has hooks ({key.strip('_')})")
    for path, value in module.named_parameters():
        if value._backward_hooks or getattr(value, "_post_accumulate_grad_hooks", None):
            raise UnstackableError(f"{path} has a hook on its gradient")
        if type(value) is not nn.Parameter:
            raise UnstackableError(f"{path} is a {type(value).__name__}, not an nn.Parameter")
    if any(GLOBAL_HOOKS):
        raise UnstackableError("hooks are registered that are called for every module or optimizer")
