"""`engine=lean`: training a single run by the loop of stacks, as a stack of one, without a Trainer around it."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from holdfast.config.job import JobSpec
from holdfast.config.schema import Config
from holdfast.errors import ConfigError, Problem, in_a_line
from holdfast.planning.plan import Share
from holdfast.store.files import digest, remove_partial, replacing
from holdfast.store.folders import RunFolder, StackFiles
from holdfast.store.result import Result
from holdfast.store.test_ledger import TestLedger
from holdfast.store.versions import versions
from holdfast.usercode.packages import place_of_users

if TYPE_CHECKING:
    from holdfast.record.history import StackHistory

LONG = 10.0
"""After a run by the Trainer that took longer, it is said that the lean loop would have been faster; in seconds."""

LONGEST_EPOCH = 1.0
"""Only if an epoch of the run took less than this, so that the estimate, which trains an epoch, does not take long."""


def check_lean(config: Config) -> Share:
    """How the lean loop trains a run: as stacks are tried before they are trained.

    Args:
        config: configuration of the run.

    Raises:
        ConfigError: the run has to be trained by the Trainer; the message says why.
    """
    part = _share(config)
    if part.reason is not None:
        raise ConfigError([Problem("engine=lean", f"cannot train this run: {part.reason}; leave it out")])
    return part


def train_lean(job: JobSpec, folder: RunFolder, *, by_steps: bool, progress: bool = False) -> Result:
    """Train one run by the lean loop, from its snapshot, if there is one; its folder is as the Trainer leaves it.

    Args:
        job: what to train.
        folder: the folder of the run.
        by_steps: as `check_lean` says.
        progress: whether to draw a progress bar.

    Raises:
        Stopped: a signal has arrived; the run can be resumed.
        Exception: the training failed; `result.json` says so.
    """
    from holdfast.single.trainer import tests_again, train_one

    if tests_again(job, folder):  # nothing is trained
        return train_one(job, folder)
    remove_partial(folder.path)
    folder.clear(midway=False)
    result = Result("failed", list(job.overrides), job.config_hash, job.config.metric, versions=versions())
    try:
        if job.config.test:
            _check_testable(job.config)
        history = _history(job, folder.lean, by_steps=by_steps, progress=progress)
        result = _written(job, folder, history)
        if job.config.test and result.status == "completed" and result.best:
            result = replace(result, test=_tested(job.config, folder))
    except Exception as error:  # what was trained is kept
        reason, opened = in_a_line(error) + place_of_users(error), TestLedger(folder.test_ledger).count()
        folder.commit(replace(result, status="failed", error=reason, test_opened=opened))
        raise
    result = folder.commit(replace(result, test_opened=TestLedger(folder.test_ledger).count()))
    for file in folder.lean:
        file.unlink(missing_ok=True)
    return result


def _check_testable(config: Config) -> None:
    from holdfast.runtime.isolation import isolated
    from holdfast.single.build import build, check_testable

    with isolated():
        check_testable(*build(config, initial=False))


def _history(job: JobSpec, files: StackFiles, *, by_steps: bool, progress: bool) -> StackHistory:
    """What happened in the stack of one: trained, or read where an earlier process was killed after the training."""
    from tqdm import tqdm

    from holdfast.record.archive import read_stack
    from holdfast.stacked.stack_trainer import train_stack

    stored = read_stack(files) if files.archive.exists() else None
    if stored is not None and stored[1] == [job.config_hash]:
        return stored[2]
    with tqdm(total=job.config.epochs, unit="epoch", mininterval=0.1, leave=False, disable=not progress) as bar:

        def advance(epoch: int, best: float) -> None:
            bar.update()

        return train_stack([job], files, advance, by_steps=by_steps)


def _written(job: JobSpec, folder: RunFolder, history: StackHistory) -> Result:
    """The result of the run, whose files are written; `result.json` is not."""
    from holdfast.stacked.outputs import Member, results_of, run_files

    (result,) = results_of([job], history, [0])
    for _, files in run_files([Member(job, result, 0)], history, lambda job: False, {}):
        for name, content in files.items():
            with replacing(folder.path / name) as stream:
                stream.write(content)
    return result


def _tested(config: Config, folder: RunFolder) -> dict[str, float] | None:
    """The metrics of the best weights on the test rows, which are opened."""
    from holdfast.single.trainer import test_best

    ledger = TestLedger(folder.test_ledger, again=config.test_again)
    ledger.check()
    return test_best(config, folder, lambda: ledger.open(digest(folder.best)))


def faster(config: Config, result: Result) -> str | None:
    """The line that names `engine=lean` after a long run by the Trainer that it would have fitted; None for others.

    Args:
        config: configuration of the run.
        result: how it ended.
    """
    if result.seconds <= LONG or not result.epochs or result.seconds / result.epochs > LONGEST_EPOCH:
        return None
    try:
        part = _share(config)
        if part.reason is not None:
            return None
        seconds = _estimate(config, result.epochs, by_steps=part.by_steps)
    except Exception:  # the run is over: what could have been faster must not end it with an error
        return None
    if seconds >= result.seconds / 2:
        return None
    return f"engine=lean would have taken about {max(1.0, seconds):.0f} s instead of {result.seconds:.0f} s"


def _estimate(config: Config, epochs: int, *, by_steps: bool) -> float:
    """Seconds that the lean loop takes for some epochs, from training the first two of them."""
    from holdfast.runtime.isolation import isolated
    from holdfast.stacked.loop import Stack
    from holdfast.stacked.stack_trainer import engine_of

    ended: list[float] = []
    began = time.perf_counter()
    with isolated():
        engine = engine_of([replace(config, epochs=2, report=False)], by_steps)
        Stack(engine).train(lambda epoch, best: ended.append(time.perf_counter()))
    return ended[0] - began + (epochs - 1) * (ended[-1] - ended[0]) / max(1, len(ended) - 1)


def _share(config: Config) -> Share:
    from holdfast.planning.share import share

    (part,) = share([replace(config, sweep=replace(config.sweep, stack="always"))])
    return part
