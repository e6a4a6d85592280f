"""Seeds derived from one seed: independent streams for initial weights, row order and noise."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive(seed: int, *stream: int | str) -> int:
    """Derive the seed of one stream of random numbers from the run's seed and the name of the stream.

    Hashing keeps streams apart where arithmetic would not: with `seed + epoch`, epoch 1 of seed 0 would
    visit the rows in the order of epoch 0 of seed 1.

    Args:
        seed: the run's seed.
        stream: name of the stream, such as `"order", epoch`.

    Returns:
        An integer in [0, 2**63), which every generator accepts.

    >>> derive(0, "order", 1) == derive(0, "order", 1)
    True
    >>> derive(0, "order", 1) == derive(1, "order", 0)
    False
    """
    text = "/".join(map(str, (seed, *stream)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def reseed(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch, and those of torch on the accelerators that are present.

    It does not call `torch.manual_seed`, which also queues a call, with a stack trace, for each kind of accelerator
    that is absent: 1 ms.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators, and restore their states at the end.

    Code that draws from a global generator then gives the same numbers each time, and does not change the numbers that
    other code draws.

    >>> with seeded(0):
    ...     first = torch.rand(2)
    >>> with seeded(0):
    ...     print(torch.equal(first, torch.rand(2)))
    True
    """
    with generators_restored():
        reseed(seed)
        yield


@contextmanager
def generators_restored() -> Iterator[None]:
    """Restore the states of the global generators of Python, NumPy and torch at the end."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    # reading the state of a GPU's generator would initialize CUDA
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=gpus):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
