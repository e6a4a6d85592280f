"""The one writer for many jobs: from the traces of a stack to what belongs into each job's folder."""

from __future__ import annotations

import socket
import time
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.config.schema import Config
from holdfast.record import events
from holdfast.record.history import Rules, Tell, Traces, divergence, no_one
from holdfast.record.writer import bests, entry, hparams
from holdfast.single.isolation import isolated
from holdfast.stacked.checkpoint_form import Snapshots
from holdfast.stacked.inputs import Members
from holdfast.stacked.loop import Stack
from holdfast.stacked.template import Marks, Template
from holdfast.store.folders import RunFolder
from holdfast.store.result import Result, Status
from holdfast.store.versions import versions

_BYTES = 1 << 26  # of records held at a time
_RECORD = 60  # bytes of a scalar, about


def train_stack(
    configs: Sequence[Config],
    overrides: Sequence[list[str]],
    hashes: Sequence[str],
    forms: dict[str, Any] | None = None,
    tell: Tell = no_one,
) -> Jobs:
    """Train jobs as one program.

    Args:
        configs: of jobs that `sweep.plan` has put together.
        overrides: the words of each, for the record.
        hashes: the digest of each one's configuration, for the record.
        forms: of checkpoints that stacks before have made; filled here.
        tell: called after every epoch.
    """
    with isolated():
        members = Members(configs)
        return Jobs(members, Stack(members).train(tell), overrides, hashes, {} if forms is None else forms)


class Jobs:
    """What the jobs of a stack leave behind.

    Args:
        members: the jobs.
        traces: how they went.
        overrides: the words of each.
        hashes: the digest of each one's configuration.
        forms: of checkpoints that stacks before have made; filled here.
    """

    def __init__(
        self,
        members: Members,
        traces: Traces,
        overrides: Sequence[list[str]],
        hashes: Sequence[str],
        forms: dict[str, Any],
    ) -> None:
        self._forms = forms
        self._members, self._traces, self._configs = members, traces, members.configs
        self._overrides, self._hashes = overrides, hashes
        self._rules = Rules.of(members.first)
        self.results = self._told()

    def best(self, number: int) -> list[int]:
        """So many jobs of each data set, the best first."""
        sign = 1 if self._rules.mode == "min" else -1
        value = sign * np.where(self._traces.standing.end == "diverged", np.inf, self._traces.standing.best)
        order = np.argsort(np.where(np.isfinite(value), value, np.inf), kind="stable")
        sources = self._members.source_of[order]
        return [int(job) for source in np.unique(sources) for job in order[sources == source][:number]]

    def files(self, jobs: Sequence[int]) -> Iterator[tuple[int, dict[str, bytes]]]:
        """Some jobs, each with its files by name; `result.json` is not among them."""
        snapshots, traces = Snapshots(self._members, self._forms), self._traces
        size = max(1, _BYTES // (_RECORD * max(1, len(traces.losses))))
        for first in range(0, len(jobs), size):
            part = list(jobs[first : first + size])
            files: dict[int, dict[str, bytes]] = {job: {} for job in part}
            having = [job for job in part if traces.best.epoch[job] >= 0]
            if having:
                best, weights = snapshots.checkpoints(traces.best, having), snapshots.weights(traces.best, having)
                for job, checkpoint, weight in zip(having, best, weights, strict=True):
                    files[job] |= {RunFolder.BEST: checkpoint, RunFolder.WEIGHTS: weight}
            for job, checkpoint in zip(part, snapshots.checkpoints(traces.last, part), strict=True):
                files[job][RunFolder.LAST] = checkpoint
            if traces.descents:
                for job in part:
                    files[job][RunFolder.PARAMETER_PATH] = traces.descents.of(job, int(traces.counts[job]))
            if self._members.first.logger.tensorboard:
                name = RunFolder.events_name(traces.clock[0][1], socket.gethostname())
                for job, records in zip(part, self._events(part), strict=True):
                    files[job][name] = records
            yield from files.items()

    def _told(self) -> list[Result]:
        """How each job ended."""
        traces, rules, made = self._traces, self._rules, versions()
        columns = {name: values.T.tolist() for name, values in traces.metrics.items()}
        results = []
        ends, epochs, counts = traces.standing.end.tolist(), traces.epochs.tolist(), traces.counts.tolist()
        for job, best in enumerate(traces.best.epoch.tolist()):

            def at(epoch: int, job: int = job) -> dict[str, Any]:
                return entry(epoch, {name: values[job][epoch] for name, values in columns.items()}, rules.metric)

            lost = ends[job] == "diverged"
            status: Status = "diverged" if lost else "completed"
            results.append(
                Result(
                    status=status,
                    overrides=self._overrides[job],
                    config_hash=self._hashes[job],
                    metric=rules.metric,
                    best=at(best) if best >= 0 else None,
                    last=at(epochs[job] - 1),
                    epochs=epochs[job],
                    iterations=counts[job],
                    seconds=traces.seconds,
                    error=divergence(epochs[job] - 1, rules) if lost else None,
                    versions=made,
                )
            )
        return results

    def _events(self, jobs: Sequence[int]) -> Iterator[bytes]:
        """The event file of each of some jobs."""
        traces, now = self._traces, time.time()
        began = traces.clock[0][1]
        steps, clock = np.arange(len(traces.losses)), np.array(traces.clock)
        times = np.interp(steps + 1, clock[:, 0], clock[:, 1])
        losses = events.frames("train/loss_step", steps, traces.losses.T[jobs], times)  # (jobs, iterations, bytes)
        numbers = np.arange(len(traces.ended))
        curves = [
            events.frames(tag, numbers, traces.metrics[tag].T[jobs][:, : len(numbers)], traces.ended)
            for tag in sorted(traces.metrics)
        ]
        best = [bests(self.results[job].best or {}, self._rules.metric) for job in jobs]
        points = {
            tag: events.frames(tag, [0], np.array([[each.get(tag, np.nan)] for each in best]), [now])
            for tag in sorted(set().union(*best))
        }
        head = events.version(began)
        ends = {completed: events.session_end(completed, now) for completed in (True, False)}
        for place, (job, start) in enumerate(zip(jobs, self._sessions(jobs, began), strict=True)):
            count, epochs = traces.counts[job], traces.epochs[job]
            records = [head, start, losses[place, :count].tobytes()]
            records += [curve[place, :epochs].tobytes() for curve in curves]
            records += [frame[place].tobytes() for tag, frame in points.items() if tag in best[place]]
            yield b"".join([*records, ends[self.results[job].status == "completed"]])

    def _sessions(self, jobs: Sequence[int], began: float) -> list[bytes]:
        """The record of each job's hyperparameters."""
        rows = [hparams(self._configs[job], self._overrides[job]) for job in jobs]
        alike: dict[Hashable, list[int]] = {}
        for place, row in enumerate(rows):
            alike.setdefault(
                tuple((key, None if _is_number(item) else repr(item)) for key, item in row.items()), []
            ).append(place)
        made = [b""] * len(jobs)
        for places in alike.values():
            marks, first = Marks(), rows[places[0]]
            numbers: dict[str, NDArray[np.float64]] = {
                key: np.array([rows[place][key] for place in places], dtype=np.float64)
                for key, item in first.items()
                if _is_number(item)
            }
            marked = {key: marks.number(key) if key in numbers else item for key, item in first.items()}
            template = Template.of_message(events.session_message(marked, began), marks)
            for place, record in zip(places, events.framed_rows(template.fill(numbers, {})), strict=True):
                made[place] = record.tobytes()
        return made


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
