"""Isolation of runs in one process: everything global that a run changes is restored after it."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pkgutil import resolve_name
from typing import Any, NamedTuple

import numpy as np
import torch
from torch._tensor_str import PRINT_OPTS
from torch.backends import cudnn, mkldnn
from torch.nn.modules import module as hooks_of_modules
from torch.optim import optimizer as hooks_of_optimizers

from holdfast.data.seeding import generators_restored
from holdfast.usercode.variables import globals_restored, note_module


class Switch(NamedTuple):
    """A global setting: how it is read, and how it is set to what was read."""

    get: Callable[[], Any]
    set: Callable[[Any], Any]


def _attribute(owner: Any, name: str) -> Switch:
    return Switch(lambda: getattr(owner, name), lambda value: setattr(owner, name, value))


_PRECISIONS = (
    ("generic", "all"),
    *((backend, operation) for backend in ("cuda", "mkldnn") for operation in ("all", "matmul", "conv", "rnn")),
)
"""Where torch lets one say how float32 may be rounded in matrix products and convolutions."""


def _precision(backend: str, operation: str) -> Switch:
    return Switch(
        lambda: torch._C._get_fp32_precision_getter(backend, operation),
        lambda value: torch._C._set_fp32_precision_setter(backend, operation, value),
    )


def _autocast(device: str) -> tuple[Switch, Switch]:
    return (
        Switch(lambda: torch.is_autocast_enabled(device), lambda value: torch.set_autocast_enabled(device, value)),
        Switch(lambda: torch.get_autocast_dtype(device), lambda value: torch.set_autocast_dtype(device, value)),
    )


def _default_device() -> torch.device | None:
    """The device that `torch.set_default_device` asked for; None where nobody called it."""
    mode = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return None if mode is None else mode.device


SWITCHES = (
    Switch(torch.get_default_dtype, torch.set_default_dtype),
    Switch(_default_device, torch.set_default_device),
    Switch(torch.get_num_threads, torch.set_num_threads),
    Switch(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    *(_precision(backend, operation) for backend, operation in _PRECISIONS),
    Switch(
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        lambda state: torch.use_deterministic_algorithms(state[0], warn_only=state[1]),
    ),
    Switch(torch.is_grad_enabled, torch.set_grad_enabled),
    _attribute(hooks_of_modules, "_global_is_full_backward_hook"),
    Switch(
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda state: torch.autograd.set_detect_anomaly(*state),
    ),
    *_autocast("cpu"),
    *_autocast("cuda"),
    Switch(torch._C._is_multithreading_enabled, torch._C._set_multithreading_enabled),
    _attribute(torch.utils.deterministic, "fill_uninitialized_memory"),
    *(_attribute(cudnn, name) for name in ("enabled", "benchmark", "benchmark_limit", "deterministic")),
    _attribute(mkldnn, "enabled"),
    *(_attribute(torch.backends.cuda.matmul, f"allow_{kind}_reduced_precision_reduction") for kind in ("fp16", "bf16")),
    Switch(lambda: dict(vars(PRINT_OPTS)), lambda state: vars(PRINT_OPTS).update(state)),
    Switch(np.geterr, lambda state: np.seterr(**state)),
    Switch(np.get_printoptions, lambda state: np.set_printoptions(**state)),
    Switch(os.getcwd, os.chdir),
    Switch(sys.getrecursionlimit, sys.setrecursionlimit),
)
"""What torch, NumPy and Python let one read and restore, beside generators, warnings and the environment."""

GLOBAL_HOOKS: tuple[dict[int, Any], ...] = tuple(
    value
    for owner in (hooks_of_modules, hooks_of_optimizers)
    for name, value in vars(owner).items()
    if name.startswith("_global_") and isinstance(value, dict)
)
"""The hooks that torch calls for every module and every optimizer, in its own registries."""


@contextmanager
def switches_restored() -> Iterator[None]:
    """Restore torch's and NumPy's switches at the end, and the hooks that are called for every module."""
    switches = [switch.get() for switch in SWITCHES]
    hooks = [dict(registry) for registry in GLOBAL_HOOKS]
    try:
        yield
    finally:
        for switch, value in zip(SWITCHES, switches, strict=True):
            switch.set(value)
        for registry, before in zip(GLOBAL_HOOKS, hooks, strict=True):
            registry.clear()
            registry.update(before)


@contextmanager
def isolated() -> Iterator[None]:
    """Restore at the end whatever a run may change outside of itself.

    That is: generators of random numbers, warnings, the environment, torch's and NumPy's switches, hooks that are
    called for every module, the working folder, and the variables of the modules that a configuration names.
    """
    environment = dict(os.environ)
    with switches_restored(), generators_restored(), globals_restored(), warnings.catch_warnings():
        _quiet()
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(environment)
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()  # the next job may use another number of processes


_effects: dict[str, list[tuple[Switch, Any]]] = {}  # what importing a module has switched, by its name


def load(target: str) -> Any:
    """The class or function that a `_target_` names.

    A module that sets a switch while it is imported, such as `torch.set_default_dtype`, means it for the jobs that use
    it. It is imported once in a process; so the switch is set again for each of these jobs, and for no other.
    """
    name = target.rpartition(".")[0]
    if name not in _effects:
        before = [switch.get() for switch in SWITCHES]
        resolve_name(target)
        changed = [(switch, switch.get()) for switch in SWITCHES]
        _effects[name] = [pair for pair, value in zip(changed, before, strict=True) if pair[1] != value]
        note_module(name)
    for switch, value in _effects[name]:
        switch.set(value)
    return resolve_name(target)


def _quiet() -> None:
    """Leave out what Lightning says about matters that are decided here."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*isinstance.treespec, LeafSpec.*",  # Lightning's own use of torch
        ".*does not have many workers.*",  # rows lie in memory: workers cost more than they bring
        ".*smaller than the logging interval.*",  # losses are recorded at every iteration
        ".*sync_dist=True.*",  # every process measures all rows: there is nothing to add up
        ".*available but not used.*",  # the accelerator was chosen
        "The `srun` command is available on your system but is not used",  # one process is a run of its own
        ".*directory .* exists and is not empty.*",  # the folder was claimed for this run
    ):
        warnings.filterwarnings("ignore", message)
