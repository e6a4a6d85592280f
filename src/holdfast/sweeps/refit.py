"""The winner of a sweep with folds is trained once more, on the training and validation rows together.

No rows are left to choose its best epoch by: it is trained until the epoch at which the mean over its folds was best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import NamedTuple

from holdfast.config.commands import resume_command
from holdfast.config.fold import FOLD_KEY, fold_of
from holdfast.config.job import JobSpec, differences, in_folder
from holdfast.config.keys import as_override, key_of
from holdfast.config.schema import Config
from holdfast.errors import HoldfastError, in_a_line
from holdfast.execute.work import Outcome
from holdfast.store.folders import RunFolder
from holdfast.store.result import Result
from holdfast.sweeps.repeats import Settings


class Final(NamedTuple):
    """The run whose weights are tested and exported.

    Attributes:
        run: its folder.
        config: its configuration.
        refitted: how it was trained once more; None where it is the job that won.
    """

    run: RunFolder
    config: Config
    refitted: Result | None = None


def refit_job(winner: JobSpec, settings: Settings, compose: Callable[[int, Sequence[str]], JobSpec]) -> JobSpec:
    """The job that trains a winner on all rows but the test rows.

    Args:
        winner: the first job of the best settings.
        settings: these.
        compose: composes a job from overrides.
    """
    fold = fold_of(winner.config.data)
    assert fold is not None
    assert settings.epoch is not None
    epochs = settings.epoch + 1
    changed = {"epochs": f"epochs={epochs}", FOLD_KEY: f"{FOLD_KEY}={fold._replace(number=None)}"}
    kept = [item for item in winner.overrides if key_of(item) not in changed]
    job = compose(winner.number, [*kept, *changed.values()])
    # what follows from the number of epochs, such as the length of a schedule, is what the winner was chosen with
    follows = [
        as_override(key, before)
        for key, before, _ in differences(asdict(winner.config), asdict(job.config))
        if key not in (*changed, "data.buffer_rows")
    ]
    if follows:
        job = compose(winner.number, [*kept, *follows, *changed.values()])
    if "buffer_rows" in winner.config.data:
        job.config.data["buffer_rows"] = winner.config.data["buffer_rows"]
    return job


def refit(job: JobSpec, run: RunFolder, train: Callable[[JobSpec, RunFolder], Outcome]) -> Final:
    """Train a job of `refit_job`, unless it is finished.

    Args:
        job: the job.
        run: its folder, in that of the sweep.
        train: trains a job in a folder.

    Raises:
        HoldfastError: it did not complete; no test rows were opened for it.
    """
    outcome: Outcome | None = run.finished(job.config_hash)
    if not (isinstance(outcome, Result) and outcome.status == "completed"):
        print(f"the winner is trained once more, on the rows of all folds: {' '.join(job.overrides)}", flush=True)
        outcome = train(job, run)
    if isinstance(outcome, Result) and outcome.status == "completed":
        return Final(run, in_folder(job.config, run.path), outcome)
    reason = outcome.error if isinstance(outcome, Result) else in_a_line(outcome)
    raise HoldfastError(
        f"job {job.number} won, but could not be trained once more on the rows of all folds: {reason}\n"
        f"No test rows were opened. To try again: {resume_command(run.path.parent, sweep=True)}"
    )
