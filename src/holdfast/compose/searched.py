"""The jobs of a sweep: every combination of listed values, at every point that a search draws, on every fold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

from omegaconf import DictConfig

from holdfast.compose.loader import Loader
from holdfast.compose.overrides import Space, space
from holdfast.config.fold import FOLD, FOLD_KEY, Fold, fold_of
from holdfast.config.job import JobSpec
from holdfast.config.keys import as_override, key_of
from holdfast.config.schema import Config
from holdfast.errors import ConfigError, FolderError, Problem
from holdfast.planning.plan import structure
from holdfast.search.rounds import ROUNDS, Trial
from holdfast.search.samplers import SAMPLERS, Points, sobol
from holdfast.search.space import Interval

MOST_SHAPES = 8
"""Values of a key that changes shapes, in a search: each of them is a stack."""

SEARCH_KEYS = frozenset({"sweep.trials", "sweep.sampler", "sweep.seed", "sweep.folds"})
"""Keys that say which jobs there are, and that no job has itself."""

_MIDDLE = 0.5


class Asked(NamedTuple):
    """What a sweep begins with.

    Attributes:
        jobs: the overrides of each job, in the order of their numbers.
        searched: the keys whose values are drawn.
        rounds: draws further rounds, where the sampler looks at earlier ones.
    """

    jobs: list[list[str]]
    searched: tuple[str, ...] = ()
    rounds: SearchRounds | None = None


def jobs_of(loader: Loader, config: DictConfig, overrides: Sequence[str]) -> Asked:
    """What a sweep begins with.

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
            return Asked(asked.combinations)  # the problems of all jobs are reported together
        return Asked(_folded([_own(each) for each in asked.combinations], _folds(first)))
    first = _first(loader, config, asked)
    if first.sweep.trials is None:
        (interval, *_) = asked.intervals.values()
        raise ConfigError(
            [Problem(interval.override, "is an interval: add sweep.trials=N, the number of values to try")]
        )
    _check_sampler(first)
    if problems := [
        Problem(interval.override, f"has {interval.count} values, each of which is a stack: at most {MOST_SHAPES}")
        for place, interval in asked.intervals.items()
        if interval.count > MOST_SHAPES and _changes_shapes(place, interval, loader, config, asked)
    ]:
        raise ConfigError(problems)
    rounds = SearchRounds(loader, config, asked, first)
    keys = tuple(key_of(interval.override) for interval in asked.intervals.values())
    return Asked(rounds.first_jobs(), keys, rounds if first.sweep.sampler in ROUNDS else None)


class SearchRounds:
    """The rounds of a search: which jobs each of them adds.

    In the order of their numbers, jobs differ first in the fold, then in the listed values, then in the trial. Listed
    values that are no repeats of each other, such as two models, are searched apart: each has points of its own.

    Args:
        loader: composes jobs.
        config: the configuration of the sweep.
        asked: the listed values, and the intervals.
        first: the configuration of one of the jobs.
    """

    def __init__(self, loader: Loader, config: DictConfig, asked: Space, first: Config) -> None:
        self._loader, self._config, self._asked = loader, config, asked
        self._search, self._mode, self._fold_count = first.sweep, first.mode, _folds(first)
        self._trials = first.sweep.trials or 0
        apart: dict[tuple[str, ...], int] = {}  # each number is that of a search
        repeats = first.sweep.repeats
        settings = [tuple(item for item in each if key_of(item) not in repeats) for each in asked.combinations]
        self._search_of = [apart.setdefault(each, len(apart)) for each in settings]

    def first_jobs(self) -> list[list[str]]:
        """The overrides of the jobs of the first round."""
        sampler, seed, keys = self._search.sampler, self._search.seed, len(self._asked.intervals)
        if sampler not in ROUNDS:
            points = SAMPLERS[sampler](keys, seed, 0, self._trials)
        else:
            points = sobol(keys, seed, 0, ROUNDS[sampler].size(self._trials, 0))
        return self._jobs([points] * len(self._asked.combinations))

    def recorded(self, entries: Sequence[Mapping[str, Any]]) -> list[JobSpec]:
        """The jobs that a folder records, of all rounds.

        Args:
            entries: of its jobs, in `sweep.json`.

        Raises:
            FolderError: one of them is no job of this search.
        """
        per_trial = self._jobs_of_a_trial
        if len(entries) % per_trial or len(entries) > self._trials * per_trial:
            raise FolderError(f"it has {len(entries)} jobs, and this search has {self._trials} trials of {per_trial}")
        jobs = []
        for number, entry in enumerate(entries):
            overrides = self._jobs_at(number, [self._point(number, entry["overrides"])])
            if overrides != entry["overrides"]:
                raise FolderError(f"its job {number} is {' '.join(entry['overrides'])}, which this search did not draw")
            jobs.append(self._loader.job_spec(self._config, number, overrides))
        return jobs

    def is_complete(self, jobs: int) -> bool:
        """Whether so many jobs are all trials."""
        return jobs >= self._trials * self._jobs_of_a_trial

    def more(self, jobs: Sequence[JobSpec], values: Sequence[float | None]) -> list[JobSpec]:
        """The jobs of the next round, where not all trials are drawn.

        Args:
            jobs: those so far.
            values: the best metric of each; None where it has none.
        """
        count = ROUNDS[self._search.sampler].size(self._trials, len(jobs) // self._jobs_of_a_trial)
        drawn = [
            ROUNDS[self._search.sampler].ask(self._ended(search, jobs, values), self._search.seed, count)
            for search in range(max(self._search_of) + 1)
        ]
        overrides = self._jobs([drawn[search] for search in self._search_of])
        return [self._loader.job_spec(self._config, len(jobs) + index, each) for index, each in enumerate(overrides)]

    @property
    def _folds_of_a_job(self) -> int:
        return self._fold_count or 1

    @property
    def _jobs_of_a_trial(self) -> int:
        return len(self._asked.combinations) * self._folds_of_a_job

    def _ended(self, search: int, jobs: Sequence[JobSpec], values: Sequence[float | None]) -> list[Trial]:
        """The trials of a search, each with the mean over repeats and folds."""
        sign, per_trial = (1 if self._mode == "min" else -1), self._jobs_of_a_trial
        trials = []
        for first in range(0, len(jobs), per_trial):
            own = [
                number
                for number in range(first, first + per_trial)
                if self._search_of[self._combination(number)] == search
            ]
            found = [value for number in own if (value := values[number]) is not None]
            mean = sign * math.fsum(found) / len(found) if len(found) == len(own) else math.inf
            trials.append(Trial(self._point(own[0], jobs[own[0]].overrides), mean))
        return trials

    def _combination(self, number: int) -> int:
        """The index of the listed values of a job."""
        return number // self._folds_of_a_job % len(self._asked.combinations)

    def _point(self, number: int, overrides: Sequence[str]) -> list[float]:
        """Where a job lies in the intervals."""
        texts = {key_of(item): item.partition("=")[2] for item in overrides}
        try:
            return [each.share(float(texts[each.key.lstrip("+")])) for each in self._asked.intervals.values()]
        except (KeyError, ValueError):
            raise FolderError(f"its job {number} is {' '.join(overrides)}, which this search did not draw") from None

    def _jobs(self, points: Sequence[Points]) -> list[list[str]]:
        """The overrides of the jobs of a round, from the points of each combination of listed values."""
        own = [
            _own(self._asked.job(combination, point))
            for at_once in zip(*points, strict=True)
            for combination, point in enumerate(at_once)
        ]
        return _folded(own, self._fold_count)

    def _jobs_at(self, number: int, points: Points) -> list[str]:
        """The overrides of one job."""
        fold = number % self._folds_of_a_job
        (point,) = points
        return _folded([_own(self._asked.job(self._combination(number), point))], self._fold_count)[fold]


def _own(overrides: Sequence[str]) -> list[str]:
    """The overrides of a job without the keys of the search: it stays what it is where more trials are drawn."""
    return [item for item in overrides if key_of(item) not in SEARCH_KEYS]


def _folded(jobs: Sequence[list[str]], folds: int | None) -> list[list[str]]:
    """Every job once for each fold."""
    if folds is None:
        return list(jobs)
    return [[*job, f"{FOLD_KEY}={Fold(number, folds)}"] for job in jobs for number in range(folds)]


def _folds(first: Config) -> int | None:
    """The number of folds.

    Args:
        first: the configuration of a job.

    Raises:
        ConfigError: the data group has a `fold` already.
    """
    folds, given = first.sweep.folds, first.data.get(FOLD)
    if folds is None and fold_of(first.data) is not None:
        lesson = "is one fold: leave -m out to train on it alone, or train on all of them by sweep.folds=K"
        raise ConfigError([Problem(as_override(FOLD_KEY, given), lesson)])
    if folds is not None and given is not None:
        lesson = f"is given by sweep.folds={folds}: leave one of both out"
        if fold_of(first.data) is None:
            lesson = (
                f"is a key of your own: sweep it, with sweep.repeats=[seed,{FOLD_KEY}], instead of sweep.folds={folds}"
            )
        raise ConfigError([Problem(as_override(FOLD_KEY, given), lesson)])
    return folds


def _check_single(overrides: Sequence[str], asked: Space) -> None:
    """Refuse several values of a key that says which jobs there are."""
    for place, item in enumerate(overrides):
        if key_of(item) in SEARCH_KEYS and len({each[place] for each in asked.combinations}) > 1:
            raise ConfigError([Problem(item, "says which jobs there are: give it one value")])


def _check_sampler(first: Config) -> None:
    if first.sweep.sampler == "tpe" and find_spec("optuna") is None:
        lesson = 'needs Optuna: pip install "holdfast[search]"; sobol and zoom need nothing'
        raise ConfigError([Problem("sweep.sampler=tpe", lesson)])


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
