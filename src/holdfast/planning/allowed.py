"""What a job may have to be trained in a stack; all else is a reason to train it alone."""

from __future__ import annotations

from inspect import getattr_static
from typing import Any

from torch import nn

from holdfast.config.schema import Config
from holdfast.model import Module
from holdfast.single.isolation import GLOBAL_HOOKS
from holdfast.stacked.optimizers import OPTIMIZERS
from holdfast.stacked.schedule import SCHEDULERS
from holdfast.usercode.watch import UnstackableError

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


def check_settings(config: Config) -> None:
    """Refuse a job whose settings only a Trainer understands."""
    for group in ("callbacks", "logger"):
        for name in getattr(config, group).extras:
            raise UnstackableError(f"{group}.{name} is called by a Trainer")
    for key, plain in _PLAIN.items():
        if getattr(config.trainer, key) != plain:
            raise UnstackableError(f"trainer.{key} is the Trainer's")
    if config.precision == "16-mixed":
        raise UnstackableError("precision=16-mixed scales the gradient of each job by itself")
    if config.optimizer["_target_"] not in OPTIMIZERS:
        raise UnstackableError(f"{config.optimizer['_target_']} has no rule for many jobs at once")
    if config.scheduler["_target_"] not in SCHEDULERS:
        raise UnstackableError(f"{config.scheduler['_target_']} may look at more than the epoch")


def check_class(thing: Any, base: type, what: str) -> None:
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


def check_hooks(module: Module) -> None:
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
