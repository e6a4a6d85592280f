"""One seed, many independent streams: initial weights, row order, noise."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager


def derive(seed: int, *stream: int | str) -> int:
    """A seed for one stream of random numbers, as a pure function of the run's seed and the stream's name.

    Hashing keeps streams apart where arithmetic would not: with `seed + epoch`, epoch 1 of seed 0 would
    visit the rows in the order of epoch 0 of seed 1.

    Args:
        seed: the run's seed.
        stream: what the numbers are for, such as `"order", epoch`.

    Returns:
        A whole number in [0, 2**63), which every generator takes.

    >>> derive(0, "order", 1) == derive(0, "order", 1)
    True
    >>> derive(0, "order", 1) == derive(1, "order", 0)
    False
    """
    text = "/".join(map(str, (seed, *stream)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def reseed(seed: int) -> None:
    """Seed the global generators: Python's, NumPy's, and torch's on the accelerators this machine has.

    `torch.manual_seed` also leaves word for accelerators that are not there, with a stack trace each: 1 ms a call.
    """
    import numpy as np
    import torch

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

    Code that draws from a global generator gives the same numbers whenever it runs under the same seed, and does not
    shift the numbers of anybody else.
    """
    with generators_restored():
        reseed(seed)
        yield


@contextmanager
def generators_restored() -> Iterator[None]:
    """Restore the states of the global generators at the end: Python's, NumPy's and torch's."""
    import numpy as np
    import torch

    python, arrays = random.getstate(), np.random.get_state()
    # looking at the generators of GPUs that nobody has used yet would start every one of them
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=gpus):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)
