"""The results and the files of the jobs of a stack, from its history."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from holdfast.config.job import JobSpec
from holdfast.record import events
from holdfast.record.curves import Block
from holdfast.record.history import SavedEpochs, StackHistory
from holdfast.record.parameter_path import points_after, to_npy
from holdfast.record.stopping import StoppingRules, divergence_message
from holdfast.record.writer import best_scalars, epoch_entry, hparams
from holdfast.runtime.isolation import isolated
from holdfast.stacked.checkpoints import StackCheckpoints
from holdfast.stacked.inputs import StackInputs
from holdfast.stacked.module_checkpoints import ModuleCheckpoints
from holdfast.store.folders import RunFolder
from holdfast.store.result import Result
from holdfast.store.versions import versions

_BYTES_AT_ONCE = 1 << 26  # of event files that are held in memory
_RECORD_BYTES = 60  # of a scalar, roughly


def _curves(history: StackHistory, indexes: Sequence[int], metric: str) -> NDArray[np.float64]:
    """A metric of some jobs at the end of every epoch, NaN where it was not measured, shape `(epochs, jobs)`."""
    metrics, names = history.curves.of_jobs(indexes).metrics, list(history.curves.names)
    if metric not in names:
        return np.full((len(metrics), len(indexes)), np.nan)
    found: NDArray[np.float64] = metrics[:, names.index(metric)].astype(np.float64)
    return found


def results_of(jobs: Sequence[JobSpec], history: StackHistory, indexes: Sequence[int]) -> list[Result]:
    """The results of some jobs of a stack.

    Args:
        jobs: the jobs.
        history: what happened in their stack.
        indexes: the index of each in the stack.
    """
    rules, package_versions = StoppingRules.from_config(jobs[0].config), versions()
    best, last = (_entries(saved, rules.metric) for saved in (history.best, history.last))
    results = []
    curves = _curves(history, indexes, rules.metric) if rules.on_fold else None
    for position, (job, index) in enumerate(zip(jobs, indexes, strict=True)):
        epochs, diverged = int(history.epochs[index]), history.standing.end[index] == "diverged"
        results.append(
            Result(
                status="diverged" if diverged else "completed",
                overrides=list(job.overrides),
                config_hash=job.config_hash,
                metric=rules.metric,
                best=best[index],
                last=last[index],
                epochs=epochs,
                iterations=int(history.counts[index]),
                seconds=history.seconds,
                error=divergence_message(epochs - 1, rules) if diverged else None,
                versions=package_versions,
                by_epoch=None if curves is None else rules.by_epoch(curves[:epochs, position]),
            )
        )
    return results


def _entries(saved: SavedEpochs, metric: str) -> list[dict[str, Any] | None]:
    """The saved epoch of each job, as in `result.json`."""
    names, rows = list(saved.metrics), np.stack([*saved.metrics.values()]).T.tolist() if saved.metrics else []
    return [
        epoch_entry(epoch, dict(zip(names, rows[index], strict=True)), metric) if epoch >= 0 else None
        for index, epoch in enumerate(saved.epoch.tolist())
    ]


class Member(NamedTuple):
    """A job of a stack, its result, and its column in the arrays of the stack."""

    job: JobSpec
    result: Result
    column: int


def event_files(members: Sequence[Member], history: StackHistory) -> Iterator[tuple[JobSpec, bytes]]:
    """The event files of some jobs of a stack; their name is `history.events`.

    Args:
        members: the jobs.
        history: what happened in their stack.

    Yields:
        Each job, and the content of its file.
    """
    for part, curves in _parts(members, history):
        for member, content in zip(part, _event_files(part, history, curves), strict=True):
            yield member.job, content


def run_files(
    members: Sequence[Member],
    history: StackHistory,
    has_events: Callable[[JobSpec], bool],
    dry_runs: dict[str, dict[str, Any]],
) -> Iterator[tuple[JobSpec, dict[str, bytes]]]:
    """The files that some jobs of a stack would have left if trained alone; `result.json` is not among them.

    Args:
        members: the jobs.
        history: what happened in their stack.
        has_events: whether the event file of a job is there already; it is not made again.
        dry_runs: as for `StackCheckpoints`.

    Yields:
        Each job, and the content of its files by name.
    """
    configs = [member.job.config for member in members]
    with isolated():
        checkpoints: StackCheckpoints | ModuleCheckpoints = (
            ModuleCheckpoints(configs, history.last.plain[members[0].column])
            if history.last.plain
            else StackCheckpoints(StackInputs(configs), dry_runs)
        )
    config = members[0].job.config
    total, numbers = config.epochs * checkpoints.iterations, count()
    for part, curves in _parts(members, history):
        lacking = [member for member in part if config.logger.tensorboard and not has_events(member.job)]
        written = {job.number: content for job, content in event_files(lacking, history)}
        for column, (job, _, index) in enumerate(part):
            files, number = {}, next(numbers)
            if history.best.epoch[index] >= 0:
                files[RunFolder.BEST] = _saved(checkpoints.checkpoint(number, history.best, index))
                files[RunFolder.WEIGHTS] = _saved(checkpoints.weights(number, history.best, index))
            files[RunFolder.LAST] = _saved(checkpoints.checkpoint(number, history.last, index))
            if len(curves.points):
                path = curves.points[: points_after(int(history.counts[index]), total), :, column]
                files[RunFolder.PARAMETER_PATH] = to_npy(path)
            if job.number in written:
                files[history.events] = written[job.number]
            yield job, files


def _parts(members: Sequence[Member], history: StackHistory) -> Iterator[tuple[Sequence[Member], Block]]:
    """So many jobs at a time, with their curves, that their event files fit into memory."""
    size = max(1, _BYTES_AT_ONCE // (_RECORD_BYTES * max(1, int(history.counts.max(initial=0)))))
    for start in range(0, len(members), size):
        part = members[start : start + size]
        yield part, history.curves.of_jobs([member.column for member in part])


def _event_files(members: Sequence[Member], history: StackHistory, curves: Block) -> Iterator[bytes]:
    """The content of the event files of some jobs, from their curves."""
    now, names = history.ended, history.curves.names
    clock = np.concatenate([[(0, history.began)], curves.clock])
    steps, epochs = np.arange(len(curves.losses)), np.arange(len(curves.ended))
    times = np.interp(steps + 1, clock[:, 0], clock[:, 1])
    losses = events.scalar_records("train/loss_step", steps, curves.losses.T, times)
    unlogged = sorted(set(names) - set(history.curves.logged_names))  # Lightning's loggers are given the others
    metrics = [
        events.scalar_records(tag, epochs, curves.metrics[:, names.index(tag)].T, curves.ended) for tag in unlogged
    ]
    best = [dict(best_scalars(member.result.best or {}, member.result.metric)) for member in members]
    points = {
        tag: events.scalar_records(tag, [0], np.array([[each.get(tag, np.nan)] for each in best]), [now])
        for tag in sorted(set().union(*best))
    }
    head = events.version(history.began)
    ends = {completed: events.session_end(completed, now) for completed in (True, False)}
    for row, (job, result, index) in enumerate(members):
        session = events.session_start(hparams(job), history.began)
        records = [head, session, losses[row, : history.counts[index]].tobytes()]
        records += [curve[row, : history.epochs[index]].tobytes() for curve in metrics]
        records += _logged(history.curves.logged_names, curves, row, int(history.counts[index]))
        records += [record[row].tobytes() for tag, record in points.items() if tag in best[row]]
        yield b"".join([*records, ends[result.status == "completed"]])


def _logged(names: Sequence[str], curves: Block, row: int, count: int) -> Iterator[bytes]:
    """The records of what one job has logged through Lightning.

    Args:
        names: of what was logged.
        curves: of some jobs.
        row: which of these.
        count: iterations of the job.
    """
    steps, starts, times = curves.moments.T
    happened = np.where(starts < 0, steps < count, starts < count)
    for column, name in enumerate(names):
        rows = happened & curves.is_logged[:, column]
        at = np.minimum(steps[rows], count - 1).astype(np.int64)
        yield events.scalars(name, at, curves.logged[rows, column, row], times[rows])


def _saved(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()
