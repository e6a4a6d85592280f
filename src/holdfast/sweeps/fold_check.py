"""Rows that cannot be divided into folds are refused before a sweep begins."""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.config.fold import FOLD, FOLD_KEY, fold_of, without_fold
from holdfast.config.job import JobSpec
from holdfast.config.options import source
from holdfast.errors import ConfigError, DataError, Problem
from holdfast.runtime.isolation import isolated
from holdfast.runtime.targets import takes
from holdfast.single.build import build_data, set_up


def check_folds(jobs: Iterable[JobSpec]) -> None:
    """Divide the rows of each different data group once.

    Args:
        jobs: those of a sweep.

    Raises:
        ConfigError: the rows cannot be divided; the message names the class, or says how many rows there are.
    """
    problems, seen = list[Problem](), set[str]()
    for job in jobs:
        fold = fold_of(job.config.data)
        if fold is None or (key := source(without_fold(job.config.data))) in seen:
            continue
        seen.add(key)
        with isolated():
            try:
                if takes(job.config.data, FOLD):
                    lesson = f"{FOLD_KEY} is an argument of your own: sweep it, with sweep.repeats=[seed,{FOLD_KEY}]"
                    raise DataError(lesson)
                data = build_data(job.config.data)
                set_up(data)
                for loader in (data.train_dataloader, data.val_dataloader):
                    loader()
            except DataError as error:
                problems.append(Problem(f"sweep.folds={fold.folds}", str(error)))
            except Exception:  # its job will report it
                continue
    if problems:
        raise ConfigError(problems)
