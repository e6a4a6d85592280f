"""What a run changes outside of itself, put back."""

from __future__ import annotations

import logging
import os
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def isolated() -> Iterator[None]:
    """Leave what a run changes outside of itself as it was: random numbers, warnings, environment, torch's switches."""
    environment = dict(os.environ)
    python, arrays = random.getstate(), np.random.get_state()
    deterministic, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    # looking at the generators of GPUs that nobody has used yet would start every one of them
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=gpus), warnings.catch_warnings():
        _quiet()
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)
            torch.use_deterministic_algorithms(deterministic)
            torch.backends.cudnn.benchmark = benchmark
            os.environ.clear()
            os.environ.update(environment)
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()  # the next job may use another number of processes


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
        ".*directory .* exists and is not empty.*",  # the folder was claimed for this run
    ):
        warnings.filterwarnings("ignore", message)
