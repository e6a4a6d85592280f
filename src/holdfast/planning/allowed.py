"""The settings, classes and hooks that jobs of a stack may have; a job with any other is trained alone."""

from __future__ import annotations

from dataclasses import fields
from inspect import getattr_static
from typing import Any

from torch import nn

from holdfast.arithmetic.optimizers import OPTIMIZERS
from holdfast.config.job import FOLDER
from holdfast.config.schema import Config
from holdfast.config.trainer_arguments import TrainerArguments
from holdfast.model import Module
from holdfast.runtime.isolation import GLOBAL_HOOKS
from holdfast.stacked.schedule import SCHEDULERS
from holdfast.usercode.watch import UnstackableError

_IMPLEMENTED = frozenset({"gradient_clip_val", "gradient_clip_algorithm", "deterministic", "benchmark"})
"""Keys of the group `trainer` that a stack implements."""

_NEUTRAL: dict[str, Any] = {field.name: field.default for field in fields(TrainerArguments)}
"""The other keys of the group `trainer` have to have these values, which are Lightning's defaults."""

_CHOOSES_CODE = frozenset({"maximize", "foreach", "fused", "capturable", "differentiable"})
"""Keys of the group `optimizer` that choose another implementation of torch's."""

_OVERRIDABLE = frozenset(
    {"bare", "lr", "loss", "statistics", "metrics", "forward", "draw", "digest", "stackable", "_abc_impl"}
)
"""Attributes that a subclass of `Module` or `DataModule` may override; the others are called by a Trainer only."""

_SPECIAL = ("__call__", "__getattr__", "__getattribute__", "__setattr__", "__delattr__")
"""Special methods with which a class can change the meaning of any other line of code."""


def check_settings(config: Config) -> None:
    """Refuse a job whose settings a stack does not implement.

    Raises:
        UnstackableError: such a setting; the message names its key.
    """
    for group in ("callbacks", "logger"):
        for name in getattr(config, group).extras:
            raise UnstackableError(f"{group}.{name} needs a Trainer")
    for group in ("data", "model", "optimizer", "scheduler"):
        if FOLDER in repr(getattr(config, group)):
            raise UnstackableError(f"{group} names the folder of its run")
    for key in sorted(_NEUTRAL.keys() - _IMPLEMENTED):
        if getattr(config.trainer, key) != _NEUTRAL[key]:
            raise UnstackableError(f"trainer.{key} is the Trainer's")
    for key in sorted(_CHOOSES_CODE & config.optimizer.keys()):
        if config.optimizer[key]:
            raise UnstackableError(f"optimizer.{key} chooses code of torch's that trains one job")
    if config.precision == "16-mixed":
        raise UnstackableError("precision=16-mixed scales the gradient of each job separately")
    if config.optimizer["_target_"] not in OPTIMIZERS:
        raise UnstackableError(f"{config.optimizer['_target_']} has no rule for many jobs at once")
    if config.scheduler["_target_"] not in SCHEDULERS:
        raise UnstackableError(f"{config.scheduler['_target_']} may look at more than the epoch")


def check_class(instance: Any, base: type) -> None:
    """Refuse a module or data module that overrides methods that a stack would not call.

    Args:
        instance: an object of the user's class; methods that are replaced in the object itself count too.
        base: `holdfast.model.Module` or `holdfast.data.DataModule`.

    Raises:
        UnstackableError: the class does not derive from the base, or overrides such a method; the message names it.
    """
    name = type(instance).__name__
    if not isinstance(instance, base):
        raise UnstackableError(f"{name} does not derive from {base.__module__.rpartition('.')[0]}.{base.__name__}")
    for attribute in dir(base):
        if attribute in _OVERRIDABLE or (attribute.startswith("__") and attribute not in _SPECIAL):
            continue
        overridden = getattr_static(type(instance), attribute) is not getattr_static(base, attribute)
        if overridden or (attribute in vars(instance) and callable(getattr(base, attribute))):
            raise UnstackableError(f"{name}.{attribute} needs a Trainer")
    for attribute in _SPECIAL:
        if any(attribute in vars(cls) for cls in type(instance).__mro__ if not issubclass(base, cls)):
            raise UnstackableError(f"{name}.{attribute} can change the meaning of any line of its code")


def check_hooks(module: Module) -> None:
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
