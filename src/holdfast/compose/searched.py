"""The jobs of a sweep: every combination of listed values, at every point that a search draws from intervals."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig

from holdfast.compose.loader import Loader
from holdfast.compose.overrides import Space, space
from holdfast.config.fold import FOLD, FOLD_KEY, Fold, fold_of
from holdfast.config.keys import as_override, key_of
from holdfast.config.schema import Config
from holdfast.errors import ConfigError, Problem
from holdfast.planning.plan import structure
from holdfast.search.samplers import SAMPLERS
from holdfast.search.space import Interval

MOST_SHAPES = 8
"""Values of a key that changes shapes, in a search: each of them is a stack."""

SEARCH_KEYS = frozenset({"sweep.trials", "sweep.sampler", "sweep.seed", "sweep.folds"})
"""Keys that say which jobs there are, and that no job has itself."""

_MIDDLE = 0.5


def jobs_of(loader: Loader, config: DictConfig, overrides: Sequence[str]) -> tuple[list[list[str]], bool]:
    """The overrides of every job of a sweep, in the order of their numbers; and whether a search has drawn them.

    Args:
        loader: composes jobs.
        config: the configuration of the sweep, without the overrides of single jobs.
        overrides: of the sweep.

    Raises:
        ConfigError: an override cannot be tried, or an interval has no number of trials.
    """
    asked = space(overrides, loader, loader.list_groups(""))
    _check_single(overrides, asked)
    if not asked.intervals:
        if typed := [item for item in overrides if key_of(item) == "sweep.trials"]:
            raise ConfigError([Problem(typed[0], "has no interval to draw from, such as lr=loginterval(1e-5,1)")])
        try:
            first = loader.job(config, asked.combinations[0]).config
        except ConfigError:
            return asked.combinations, False  # the problems of all jobs are reported together
        return _folded(asked.combinations, first), False
    first = _first(loader, config, asked)
    search = first.sweep
    if search.trials is None:
        (interval, *_) = asked.intervals.values()
        raise ConfigError([Problem(interval.override, "is an interval: add sweep.trials=N, the number of values to try")])
    problems = [
        Problem(interval.override, f"has {interval.count} values, each of which is a stack: at most {MOST_SHAPES}")
        for place, interval in asked.intervals.items()
        if interval.count > MOST_SHAPES and _changes_shapes(place, interval, loader, config, asked)
    ]
    if problems:
        raise ConfigError(problems)
    jobs = asked.jobs(SAMPLERS[search.sampler](len(asked.intervals), search.seed, 0, search.trials))
    return _folded(jobs, first), True


def _folded(jobs: Sequence[list[str]], first: Config) -> list[list[str]]:
    """Jobs without the keys of the search, each as often as there are folds.

    A job stays what it is where more of them are drawn, so that the number of trials is no part of it.

    Args:
        jobs: the overrides of each.
        first: the configuration of one of them.

    Raises:
        ConfigError: the data group has a `fold` already.
    """
    jobs = [[item for item in job if key_of(item) not in SEARCH_KEYS] for job in jobs]
    folds = first.sweep.folds
    if folds is None:
        return jobs
    if (given := first.data.get(FOLD)) is not None:
        lesson = f"is given by sweep.folds={folds}: leave one of both out"
        if fold_of(first.data) is None:
            lesson = f"is a key of your own: sweep it, with sweep.repeats=[seed,{FOLD_KEY}], instead of sweep.folds={folds}"
        raise ConfigError([Problem(as_override(FOLD_KEY, given), lesson)])
    return [[*job, f"{FOLD_KEY}={Fold(number, folds)}"] for job in jobs for number in range(folds)]


def _check_single(overrides: Sequence[str], asked: Space) -> None:
    """Refuse several values of a key that says which jobs there are."""
    for place, item in enumerate(overrides):
        if key_of(item) in SEARCH_KEYS and len({each[place] for each in asked.combinations}) > 1:
            raise ConfigError([Problem(item, "says which jobs there are: give it one value")])


def _first(loader: Loader, config: DictConfig, asked: Space) -> Config:
    """The configuration of the first combination at the middle of all intervals."""
    try:
        return loader.job(config, asked.combinations[0]).config
    except ConfigError as error:
        drawn = {f"{each.key}={each.value(_MIDDLE)}": each for each in asked.intervals.values()}
        raise ConfigError([_of_interval(problem, drawn.get(problem.override)) for problem in error.problems]) from None


def _of_interval(problem: Problem, interval: Interval | None) -> Problem:
    """A problem with a value, told of the interval from which the value was drawn."""
    if interval is None:
        return problem
    more = "; int(interval(...)) draws whole numbers" if "whole number" in problem.lesson else ""
    return Problem(interval.override, problem.lesson + more)


def _changes_shapes(place: int, interval: Interval, loader: Loader, config: DictConfig, asked: Space) -> bool:
    """Whether jobs with different values of an interval cannot share a stack."""
    ends = []
    for share in (0.0, 1.0):
        overrides = list(asked.combinations[0])
        overrides[place] = f"{interval.key}={interval.value(share)}"
        ends.append(structure(loader.job(config, overrides).config))
    return ends[0] != ends[1]
