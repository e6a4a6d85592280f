"""Samplers that look at earlier trials: they draw one round after another, each of which is enough for a stack."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from holdfast.search.samplers import Points, sobol

TPE_ROUND = 64
"""Trials of a round of `tpe`."""

_BEST = 16
"""`zoom` looks at the best of so many trials."""


class Trial(NamedTuple):
    """A trial that has ended.

    Attributes:
        point: a number from 0 to 1 for each key.
        value: what it led to, the lower the better; infinite where it diverged or failed.
    """

    point: Sequence[float]
    value: float


Ask = Callable[[Sequence[Trial], int, int], Points]
"""Draws the points of a round: from the trials so far, the seed, and the number of points."""


class Rounds(NamedTuple):
    """A sampler of several rounds, of which the first is a Sobol sequence.

    Attributes:
        size: the number of trials of the next round, from the number of all trials, and of those so far.
        ask: draws the points of a further round.
    """

    size: Callable[[int, int], int]
    ask: Ask


def zoom(trials: Sequence[Trial], seed: int, count: int) -> Points:
    """A Sobol sequence in the smallest box that holds the best sixteenth of the trials.

    >>> trials = [Trial([0.5, 0.2], 1.0), Trial([0.6, 0.4], 2.0), *[Trial([0.0, 0.9], 3.0)] * 30]
    >>> [min(column) >= 0.2 and max(column) <= 0.6 for column in zip(*zoom(trials, 0, 8))]
    [True, True]
    """
    best = sorted((trial for trial in trials if math.isfinite(trial.value)), key=lambda trial: trial.value)
    box = [(0.0, 1.0)] * len(trials[0].point)
    if len(best) > 1:
        columns = zip(*(trial.point for trial in best[: max(2, -(-len(trials) // _BEST))]), strict=True)
        box = [(min(column), max(column)) for column in columns]
    points = sobol(len(box), seed, len(trials), count)
    return [[low + share * (high - low) for share, (low, high) in zip(point, box, strict=True)] for point in points]


def tpe(trials: Sequence[Trial], seed: int, count: int) -> Points:
    """Points by Optuna's tree-structured Parzen estimator, from a study that is made anew from the trials each round.

    So the points follow from the trials and the seed alone: a search that was stopped goes on as if it had not been.
    """
    import optuna

    from holdfast.data.seeding import derive

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = [str(place) for place in range(len(trials[0].point))]
    unit: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in names
    }
    # each of the points that are asked for together counts as a bad one for the next: they would be alike
    sampler = optuna.samplers.TPESampler(seed=derive(seed, "tpe", len(trials)) % 2**32, constant_liar=True)
    study = optuna.create_study(sampler=sampler)
    study.add_trials(
        [
            optuna.trial.create_trial(
                params=dict(zip(names, trial.point, strict=True)), distributions=unit, value=trial.value
            )
            for trial in trials
        ]
    )
    asked = [study.ask(unit) for _ in range(count)]
    return [[trial.params[name] for name in names] for trial in asked]


ROUNDS: dict[str, Rounds] = {
    "zoom": Rounds(lambda trials, done: trials - done if done else trials - trials // 2, zoom),
    "tpe": Rounds(lambda trials, done: min(TPE_ROUND, trials - done), tpe),
}
"""The samplers of several rounds among those of `sweep.sampler`."""
