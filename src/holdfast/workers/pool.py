"""The executor that hands works to workers: processes on this computer, or on those of a cluster."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from holdfast.config.job import JobSpec
from holdfast.errors import BundleError
from holdfast.execute.pending import Pending
from holdfast.execute.work import Executor, Outcome, Progress, Work, WorkerEnvironment
from holdfast.runtime.signals import noted
from holdfast.store.folders import SweepFolder
from holdfast.store.work_folder import WorkFolder
from holdfast.workers.contract import Worker, WorkerStarter
from holdfast.workers.hand_over import HandOver, named
from holdfast.workers.worker_handle import LocalStarter
from holdfast.workers.worker_process import Failure
from holdfast.workers.worker_slots import slots

SECONDS_BETWEEN_LOOKS = 1.0
"""How often workers are looked at that send nothing."""

SECONDS_TO_STOP = 15.0
"""How long workers may take to write what is needed to go on, before they are killed."""

SECONDS_OF_A_SIGNAL = 1.0
"""A signal that arrives again so soon is the same one: a shell sends it to a process and to its group."""


class PoolSetting(NamedTuple):
    """How many workers there are, and what they are given beside their works.

    Attributes:
        workers: number of processes, or `auto`: the GPUs that are used, otherwise the cores.
        gpus: the GPUs that the sweep uses, as `CUDA_VISIBLE_DEVICES` names them.
        fresh: whether every work gets a process of its own.
        code: digests of the user's modules, by the name of the module.
        retries: how often a work is tried again whose worker died.
        largest_first: whether works begin in the order of their sizes, so that none of the large ones begins last.
    """

    workers: int | Literal["auto"]
    gpus: list[str]
    fresh: bool
    code: Mapping[str, str]
    retries: int = 1
    largest_first: bool = False


class Attempt(NamedTuple):
    """A work, and why earlier attempts at it failed."""

    work: Work
    failures: tuple[str, ...] = ()


class Pool:
    """Does works in workers, which take one after another.

    A work whose worker dies, or hands back something broken, is tried again, from what it has left. After that its jobs
    fail by name.

    Args:
        environment: Hydra's part of the jobs, which stays in this process.
        folder: folder of the sweep.
        setting: how many workers there are, and what they are given.
        here: does the works that are not for a worker: those on several devices.
        progress: shows epochs and the jobs that have ended.
        starter: starts the workers; None for processes on this computer.
    """

    def __init__(  # noqa: PLR0917
        self,
        environment: WorkerEnvironment,
        folder: SweepFolder,
        setting: PoolSetting,
        here: Executor,
        progress: Progress,
        starter: WorkerStarter | None = None,
    ) -> None:
        self._starter = starter or LocalStarter()
        self._folder, self._setting = folder, setting
        self._here, self._progress = here, progress
        self._hand_over = HandOver(folder, environment, setting.code, progress)
        self._workers: list[Worker] = []  # those that have nothing to do
        self._busy: dict[Worker, Attempt] = {}

    def run(self, works: Sequence[Work]) -> Iterator[tuple[JobSpec, Outcome]]:
        """Do all works; yields every unfinished job with its outcome, as the jobs end."""
        try:
            yield from self._run([work for work in works if work.devices == 1])
        except BaseException:
            self.close()
            raise
        if several := [work for work in works if work.devices != 1]:
            self._let_go()  # their devices are needed
            yield from self._here.run(several)

    def close(self) -> None:
        """End all workers: those that train write what is needed to go on."""
        stops = bool(self._busy)
        with noted(most=sys.maxsize) as signals:
            try:
                self._stop(signals)
            finally:
                for worker in [*self._busy, *self._workers]:
                    worker.kill()
                self._busy.clear()
                self._workers.clear()
                self._starter.close()
                if stops:  # further signals ask for what has been done
                    signals.clear()

    def _stop(self, signals: Sequence[int]) -> None:
        """Ask the workers to end, and wait for them; not for long, and not after a further signal.

        Args:
            signals: the signals that have arrived meanwhile; filled while this waits.
        """
        if self._busy:
            print(f"stopping {len(self._busy)} worker processes; Ctrl-C again kills them", file=sys.stderr, flush=True)
        for worker in self._busy:
            worker.terminate()
        self._let_go()
        began, heard = time.monotonic(), 0
        while running := [worker for worker in self._busy if worker.is_alive]:
            passed = time.monotonic() - began
            if passed < SECONDS_OF_A_SIGNAL:
                heard = len(signals)
            if passed > SECONDS_TO_STOP or len(signals) > heard:
                break
            running[0].wait_until_it_ends(0.1)

    def _run(self, works: Sequence[Work]) -> Iterator[tuple[JobSpec, Outcome]]:
        pending, again = Pending(works, largest_first=self._setting.largest_first), list[Attempt]()
        gpus = slots(self._setting.workers, len(works), self._setting.gpus)
        while True:
            while len(self._busy) < len(gpus):
                if (attempt := self._next(pending, again)) is None:
                    break
                if earlier := self._hand_over.accept_earlier(attempt.work):
                    yield from self._hand_over.announced(earlier)
                    continue
                if (worker := self._worker(gpus)) is None:
                    again.insert(0, attempt)
                    break
                self._start(attempt, worker)
            if not self._busy and not again:
                return
            self._starter.wait(list(self._busy), SECONDS_BETWEEN_LOOKS)
            for worker in list(self._busy):
                attempt = self._busy[worker]
                message = self._heard(worker)
                if message is None and worker.is_alive:
                    continue
                message = message or self._heard(worker)  # it may have ended right after its last message
                del self._busy[worker]
                if message is None:
                    reason = f"its worker process died ({worker.how_it_died()})"
                    worker.kill()  # what it has started
                    yield from self._failed_attempt(attempt, reason, again)
                    continue
                self._keep(worker)
                yield from self._ended(attempt, message, pending, again)

    def _next(self, pending: Pending, again: list[Attempt]) -> Attempt | None:
        """The next attempt; None where there is none, or it has to wait.

        A stack that was killed, as where memory runs out, is tried again when no other worker needs memory.
        """
        for attempt in again:
            was_killed = any("signal 9" in reason for reason in attempt.failures[-1:])
            if not self._busy or attempt.work.kind == "alone" or not was_killed:
                again.remove(attempt)
                return attempt
        work = pending.take()
        return None if work is None else Attempt(work)

    def _worker(self, gpus: Sequence[str | None]) -> Worker | None:
        """A worker that has nothing to do, or a new one; None where there is no room for it yet."""
        free = list(gpus)
        for gpu in [worker.gpu for worker in self._busy]:
            if gpu in free:
                free.remove(gpu)
        for worker in self._workers:
            if worker.gpu in free:
                self._workers.remove(worker)
                return worker
        return self._starter.start(free[0], len(gpus))

    def _start(self, attempt: Attempt, worker: Worker) -> None:
        """Give a work to a worker."""
        folder, text = self._hand_over.assignment(attempt.work)
        self._busy[worker] = attempt
        worker.give(folder.path, text)

    def _heard(self, worker: Worker) -> Mapping[str, Any] | None:
        """Show the progress of a worker; returns the message with which its work has ended, if it has."""
        for message in worker.messages():
            if "epochs" not in message:
                return message
            for jobs, epochs, epoch, best in message["epochs"]:
                self._progress.epoch(jobs, epochs, epoch, best)
        return None

    def _ended(
        self, attempt: Attempt, message: Mapping[str, Any], pending: Pending, again: list[Attempt]
    ) -> Iterator[tuple[JobSpec, Outcome]]:
        """What follows from the message with which a work has ended."""
        work = attempt.work
        if "failure" in message:
            failure = Failure(*message["failure"])
            if work.kind == "alone" or failure.kind == "worker":
                yield from self._hand_over.announced(self._hand_over.fail(work, failure.error))
            else:
                pending.give_up(work, failure.as_error())
            return
        try:
            if "refused" in message:
                raise BundleError(message["refused"])
            outcomes = self._hand_over.accept(work)
        except BundleError as error:
            WorkFolder.of(self._folder, work.jobs[0].number).remove()  # nothing in it can be relied on
            yield from self._failed_attempt(attempt, f"what its worker process handed back was refused: {error}", again)
            return
        yield from self._hand_over.announced(outcomes)

    def _failed_attempt(self, attempt: Attempt, reason: str, again: list[Attempt]) -> Iterator[tuple[JobSpec, Outcome]]:
        """Try a work again, or let its jobs fail."""
        failures, retries = (*attempt.failures, reason), self._setting.retries
        if len(failures) <= retries:
            how = "once more" if retries == 1 else f"again ({len(failures)} of {retries} times)"
            print(f"{named(attempt.work.unfinished)}: {reason}; trying {how}", flush=True)
            again.append(Attempt(attempt.work, failures))
            return
        often = {1: "", 2: ", twice"}.get(len(failures), f", {len(failures)} times")
        text = f"{reason}{often}" if len(set(failures)) == 1 else "; then ".join(failures)
        yield from self._hand_over.announced(self._hand_over.fail(attempt.work, text))

    def _keep(self, worker: Worker) -> None:
        """Keep a worker for further works, unless every work gets a process of its own."""
        self._workers.append(worker)
        if self._setting.fresh:
            self._let_go()

    def _let_go(self) -> None:
        """Let the workers end that have nothing to do."""
        for worker in self._workers:
            worker.let_go()
        for worker in self._workers:
            if not worker.wait_until_it_ends(SECONDS_TO_STOP):
                worker.kill()
        self._workers.clear()
