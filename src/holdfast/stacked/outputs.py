"""The results and the files of the jobs of a stack, from its history."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from holdfast.config.job import JobSpec
from holdfast.record import events
from holdfast.record.history import StackHistory
from holdfast.record.stopping import StoppingRules, divergence_message
from holdfast.record.writer import best_scalars, epoch_entry, hparams
from holdfast.stacked.checkpoint_form import StackCheckpoints
from holdfast.stacked.inputs import StackInputs
from holdfast.store.folders import RunFolder
from holdfast.store.result import Result
from holdfast.store.versions import versions

_BYTES_AT_ONCE = 1 << 26  # of event files that are held in memory
_RECORD_BYTES = 60  # of a scalar, roughly


class TrainedStack:
    """The jobs of a stack after training. A job is given by its index in the stack.

    Args:
        jobs: the jobs.
        inputs: the inputs of the stack.
        history: what happened.
        dry_runs: a cache of Lightning checkpoints, which the stacks of a sweep share.

    Attributes:
        results: the result of each job.
    """

    def __init__(
        self,
        jobs: Sequence[JobSpec],
        inputs: StackInputs,
        history: StackHistory,
        dry_runs: dict[str, Any],
    ) -> None:
        self._jobs, self._inputs, self._history, self._dry_runs = jobs, inputs, history, dry_runs
        self._rules = StoppingRules.from_config(inputs.first)
        self.results = self._build_results()

    def best_indexes(self, count: int) -> list[int]:
        """The indexes of the `count` best jobs of each data set: data set by data set, from the best job down."""
        sign, standing = 1 if self._rules.mode == "min" else -1, self._history.standing
        value = sign * np.where(standing.end == "diverged", np.inf, standing.best)
        order = np.argsort(np.where(np.isfinite(value), value, np.inf), kind="stable")
        dataset_of = self._inputs.rows.dataset_of[order]
        datasets = np.unique(dataset_of)
        return [int(index) for dataset in datasets for index in order[dataset_of == dataset][:count]]

    def files(self, indexes: Sequence[int]) -> Iterator[tuple[int, dict[str, bytes]]]:
        """The files of some jobs, by name; `result.json` is not among them.

        Args:
            indexes: the jobs.

        Yields:
            The index of each job, and the content of its files.
        """
        checkpoints, history = StackCheckpoints(self._inputs, self._dry_runs), self._history
        size = max(1, _BYTES_AT_ONCE // (_RECORD_BYTES * max(1, len(history.losses))))
        for start in range(0, len(indexes), size):
            part = list(indexes[start : start + size])
            files: dict[int, dict[str, bytes]] = {index: {} for index in part}
            with_best = [index for index in part if history.best.epoch[index] >= 0]
            if with_best:
                best = checkpoints.checkpoints(history.best, with_best)
                weights = checkpoints.weights(history.best, with_best)
                for index, checkpoint, weight in zip(with_best, best, weights, strict=True):
                    files[index] |= {RunFolder.BEST: checkpoint, RunFolder.WEIGHTS: weight}
            for index, checkpoint in zip(part, checkpoints.checkpoints(history.last, part), strict=True):
                files[index][RunFolder.LAST] = checkpoint
            if history.paths:
                for index in part:
                    files[index][RunFolder.PARAMETER_PATH] = history.paths.of_job(index, int(history.counts[index]))
            if self._inputs.first.logger.tensorboard:
                name = RunFolder.events_name(history.clock[0][1], socket.gethostname())
                for index, content in zip(part, self._event_files(part), strict=True):
                    files[index][name] = content
            yield from files.items()

    def _build_results(self) -> list[Result]:
        history, rules, package_versions = self._history, self._rules, versions()
        metrics = {name: values.T.tolist() for name, values in history.metrics.items()}  # by name, [job][epoch]
        best_epochs, epochs = history.best.epoch.tolist(), history.epochs.tolist()

        def entry(index: int, epoch: int) -> dict[str, Any]:
            return epoch_entry(epoch, {name: values[index][epoch] for name, values in metrics.items()}, rules.metric)

        results = []
        for index, (end, count) in enumerate(zip(history.standing.end.tolist(), history.counts.tolist(), strict=True)):
            last_epoch, diverged = epochs[index] - 1, end == "diverged"
            results.append(
                Result(
                    status="diverged" if diverged else "completed",
                    overrides=list(self._jobs[index].overrides),
                    config_hash=self._jobs[index].config_hash,
                    metric=rules.metric,
                    best=entry(index, best_epochs[index]) if best_epochs[index] >= 0 else None,
                    last=entry(index, last_epoch),
                    epochs=epochs[index],
                    iterations=count,
                    seconds=history.seconds,
                    error=divergence_message(last_epoch, rules) if diverged else None,
                    versions=package_versions,
                )
            )
        return results

    def _event_files(self, indexes: Sequence[int]) -> Iterator[bytes]:
        """The event file of each of some jobs."""
        history, now = self._history, time.time()
        began = history.clock[0][1]
        steps, clock = np.arange(len(history.losses)), np.array(history.clock)
        times = np.interp(steps + 1, clock[:, 0], clock[:, 1])
        losses = events.scalar_records("train/loss_step", steps, history.losses.T[indexes], times)
        epochs = np.arange(len(history.ended))
        curves = [
            events.scalar_records(tag, epochs, history.metrics[tag].T[indexes][:, : len(epochs)], history.ended)
            for tag in sorted(history.metrics)
        ]
        best = [dict(best_scalars(self.results[index].best or {}, self._rules.metric)) for index in indexes]
        points = {
            tag: events.scalar_records(tag, [0], np.array([[each.get(tag, np.nan)] for each in best]), [now])
            for tag in sorted(set().union(*best))
        }
        head = events.version(began)
        ends = {completed: events.session_end(completed, now) for completed in (True, False)}
        for row, index in enumerate(indexes):
            session = events.session_start(hparams(self._jobs[index].config, list(self._jobs[index].overrides)), began)
            records = [head, session, losses[row, : history.counts[index]].tobytes()]
            records += [curve[row, : history.epochs[index]].tobytes() for curve in curves]
            records += [record[row].tobytes() for tag, record in points.items() if tag in best[row]]
            yield b"".join([*records, ends[self.results[index].status == "completed"]])
