"""Points of a search: trial i depends on the seed and on i alone, so that more trials leave earlier ones alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Points = list[list[float]]
"""A point for each trial: a number from 0 to 1, without 1, for each key."""


def sobol(keys: int, seed: int, first: int, count: int) -> Points:
    """Points of a scrambled Sobol sequence, which fill the space more evenly than random ones.

    Args:
        keys: number of keys that are searched.
        seed: of the scrambling.
        first: number of the first point, from 0.
        count: number of points.

    >>> sobol(2, 0, 0, 8)[5:] == sobol(2, 0, 5, 3)
    True
    """
    import torch

    engine: Any = torch.quasirandom.SobolEngine(keys, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
    engine.fast_forward(first)
    below_one = 1 - 2**-32  # a point may be rounded to 1
    points: Points = engine.draw(count, dtype=torch.float64).clamp(max=below_one).tolist()
    return points


def random(keys: int, seed: int, first: int, count: int) -> Points:
    """Points that are drawn evenly, each by itself; arguments as for `sobol`.

    >>> random(2, 0, 0, 8)[5:] == random(2, 0, 5, 3)
    True
    """
    import numpy as np

    return [np.random.default_rng((seed, number)).random(keys).tolist() for number in range(first, first + count)]


SAMPLERS: dict[str, Callable[[int, int, int, int], Points]] = {"sobol": sobol, "random": random}
"""The functions behind `sweep.sampler`."""
