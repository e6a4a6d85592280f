"""Restores the global state of a process after a run, so that the next run starts from the same state."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch._tensor_str import PRINT_OPTS
from torch.backends import cudnn, mkldnn
from torch.nn.modules import module as hooks_of_modules
from torch.optim import optimizer as hooks_of_optimizers

from holdfast.data.seeding import generators_restored
from holdfast.usercode.variables import globals_restored


class GlobalSetting(NamedTuple):
    """A setting of torch, NumPy or Python that applies to the whole process.

    Attributes:
        read: returns the present value.
        write: takes a value that `read` returned.
    """

    read: Callable[[], Any]
    write: Callable[[Any], Any]


def _attribute(owner: Any, name: str) -> GlobalSetting:
    return GlobalSetting(lambda: getattr(owner, name), lambda value: setattr(owner, name, value))


def _precision(backend: str, operation: str) -> GlobalSetting:
    """How float32 is rounded in an operation of a backend."""
    return GlobalSetting(
        lambda: torch._C._get_fp32_precision_getter(backend, operation),
        lambda value: torch._C._set_fp32_precision_setter(backend, operation, value),
    )


def _autocast(device: str) -> tuple[GlobalSetting, GlobalSetting]:
    return (
        GlobalSetting(
            lambda: torch.is_autocast_enabled(device), lambda value: torch.set_autocast_enabled(device, value)
        ),
        GlobalSetting(lambda: torch.get_autocast_dtype(device), lambda value: torch.set_autocast_dtype(device, value)),
    )


def _default_device() -> torch.device | None:
    """The device given to `torch.set_default_device`; None if that was never called."""
    mode = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return None if mode is None else mode.device


GLOBAL_SETTINGS = (
    GlobalSetting(torch.get_default_dtype, torch.set_default_dtype),
    GlobalSetting(_default_device, torch.set_default_device),
    GlobalSetting(torch.get_num_threads, torch.set_num_threads),
    GlobalSetting(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    _precision("generic", "all"),
    *(_precision(name, kind) for name in ("cuda", "mkldnn") for kind in ("all", "matmul", "conv", "rnn")),
    GlobalSetting(
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        lambda state: torch.use_deterministic_algorithms(state[0], warn_only=state[1]),
    ),
    GlobalSetting(torch.is_grad_enabled, torch.set_grad_enabled),
    _attribute(hooks_of_modules, "_global_is_full_backward_hook"),
    GlobalSetting(
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda state: torch.autograd.set_detect_anomaly(*state),
    ),
    *_autocast("cpu"),
    *_autocast("cuda"),
    GlobalSetting(torch._C._is_multithreading_enabled, torch._C._set_multithreading_enabled),
    _attribute(torch.utils.deterministic, "fill_uninitialized_memory"),
    *(_attribute(cudnn, name) for name in ("enabled", "benchmark", "benchmark_limit", "deterministic")),
    _attribute(mkldnn, "enabled"),
    *(_attribute(torch.backends.cuda.matmul, f"allow_{kind}_reduced_precision_reduction") for kind in ("fp16", "bf16")),
    GlobalSetting(lambda: dict(vars(PRINT_OPTS)), lambda state: vars(PRINT_OPTS).update(state)),
    GlobalSetting(np.geterr, lambda state: np.seterr(**state)),
    GlobalSetting(np.get_printoptions, lambda state: np.set_printoptions(**state)),
    GlobalSetting(os.getcwd, os.chdir),
    GlobalSetting(sys.getrecursionlimit, sys.setrecursionlimit),
)
"""All settings that `global_settings_restored` restores."""

GLOBAL_HOOKS: tuple[dict[int, Any], ...] = tuple(
    value
    for owner in (hooks_of_modules, hooks_of_optimizers)
    for name, value in vars(owner).items()
    if name.startswith("_global_") and isinstance(value, dict)
)
"""torch's registries of the hooks that it calls for every module and every optimizer."""


@contextmanager
def global_settings_restored() -> Iterator[None]:
    """Restore `GLOBAL_SETTINGS` and `GLOBAL_HOOKS` at the end."""
    values = [setting.read() for setting in GLOBAL_SETTINGS]
    hooks = [dict(registry) for registry in GLOBAL_HOOKS]
    try:
        yield
    finally:
        for setting, value in zip(GLOBAL_SETTINGS, values, strict=True):
            setting.write(value)
        for registry, before in zip(GLOBAL_HOOKS, hooks, strict=True):
            registry.clear()
            registry.update(before)


@contextmanager
def isolated() -> Iterator[None]:
    """Restore at the end everything global that a run may change.

    That is: what `process_restored` restores, and the variables of the user's modules.
    """
    with process_restored(), globals_restored():
        yield


@contextmanager
def process_restored() -> Iterator[None]:
    """Restore at the end random number generators, warning filters, environment variables and global settings.

    Global hooks and the working folder too. Lightning's notices that do not apply here are filtered out.
    """
    environment = dict(os.environ)
    with global_settings_restored(), generators_restored(), warnings.catch_warnings():
        _filter_notices()
        try:
            yield
        finally:
            if dict(os.environ) != environment:
                os.environ.clear()
                os.environ.update(environment)
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()  # the next job may use another number of processes


LEVELS = {
    "lightning.pytorch": logging.WARNING,
    "lightning.fabric": logging.WARNING,
    # asked for by the user
    "lightning.pytorch.callbacks.model_summary": logging.INFO,
    "lightning.pytorch.profilers.profiler": logging.INFO,
}
"""Levels of Lightning's loggers."""


def _filter_notices() -> None:
    """Filter out Lightning's notices about choices that Holdfast makes on purpose."""
    for name, level in LEVELS.items():
        if logging.getLogger(name).level != level:  # to set it forgets what all loggers know of their levels
            logging.getLogger(name).setLevel(level)
    for message in (
        ".*isinstance.treespec, LeafSpec.*",  # Lightning itself uses a deprecated class of torch
        ".*your dataloader is not resumable.*",  # it is: by the numbers of the epoch and of the batch
        ".*does not have many workers.*",  # rows are in memory: workers cost more time than they save
        ".*smaller than the logging interval.*",  # losses are recorded at every iteration
        ".*sync_dist=True.*",  # `shared_metrics` combines what the processes measure
        ".*available but not used.*",  # the user chose the accelerator
        "The `srun` command is available on your system but is not used",  # the run has one process
        ".*directory .* exists and is not empty.*",  # the folder was claimed for this run
    ):
        warnings.filterwarnings("ignore", message)
