"""The executor that lets SLURM do works: a job array for all that can be done at once, one element a work."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence

from holdfast.clusters.slurm_keys import SlurmKeys
from holdfast.clusters.slurm_note import read_note
from holdfast.clusters.slurm_queue import Element, Queue
from holdfast.clusters.slurm_record import SlurmRecord, WorkKey
from holdfast.clusters.slurm_submission import Submission, counted
from holdfast.clusters.slurm_watch import SECONDS_BETWEEN_LOOKS, Ending, Watch
from holdfast.config.job import JobSpec
from holdfast.errors import BundleError, ClusterError, Submitted
from holdfast.execute.pending import Pending
from holdfast.execute.work import Outcome, Progress, Work, WorkerEnvironment
from holdfast.store.folders import SweepFolder
from holdfast.store.work_folder import WorkFolder
from holdfast.workers.bundle import read_bundle
from holdfast.workers.hand_over import HandOver, named

MOST_LINES = 20
"""How many works are named that did not end."""


class SlurmExecutor:
    """Does works in elements of job arrays.

    A work whose element dies, or hands back something broken, is tried once more. An element that SLURM or a signal has
    ended is not: the others are waited for, then the sweep stops, and can be resumed.

    Args:
        environment: Hydra's part of the jobs, which stays in this process.
        folder: folder of the sweep.
        keys: what the user asks of SLURM.
        code: digests of the user's modules, by the name of the module.
        progress: shows the jobs that have ended.
    """

    def __init__(
        self,
        environment: WorkerEnvironment,
        folder: SweepFolder,
        keys: SlurmKeys,
        code: Mapping[str, str],
        progress: Progress,
    ) -> None:
        self._folder, self._keys = folder, keys
        self._hand_over, self._queue = HandOver(folder, environment, code, progress), Queue()
        self._record = SlurmRecord(folder)
        self._submission = Submission(self._hand_over, folder, keys, self._record)
        self._waiting: dict[Element, Work] = {}
        self._deaths: dict[WorkKey, list[Ending]] = {}
        self._stopped: list[str] = []

    def run(self, works: Sequence[Work]) -> Iterator[tuple[JobSpec, Outcome]]:
        """Do all works; yields every unfinished job with its outcome, as the jobs end.

        Raises:
            ClusterError: SLURM refuses the works, or did not let all of them end.
            Submitted: they are not waited for.
        """
        pending = Pending(part for work in works for part in self._record.as_submitted(work))
        alive, again, watch = self._alive(), list[Work](), Watch(self._queue)
        while True:
            ready = list[Work]()
            while (work := again.pop(0) if again else pending.take()) is not None:
                if (element := alive.pop(WorkKey.of(work), None)) is not None:
                    self._waiting[element] = work
                elif (ending := self._left(work)) is not None:
                    yield from self._end(work, ending, "the element of an earlier driver", pending, again)
                    self._remove_log(self._record.elements().get(WorkKey.of(work)))
                else:
                    ready.append(work)
            for element, work in self._submission.submit(ready):
                self._waiting[element] = work
            if not self._waiting:
                break
            if not self._keys.wait:
                raise Submitted(self._summary())
            for element, ending in watch.look({each: self._folder_of(work) for each, work in self._waiting.items()}):
                work, label = self._waiting.pop(element), f"element {self._submission.label(element)}"
                yield from self._end(work, ending, label, pending, again)
                if ending.kind in ("done", "failed"):
                    self._remove_log(element)
        self._submission.remove_logs()
        if self._stopped:
            more = len(self._stopped) - MOST_LINES
            raise ClusterError("\n".join([*self._stopped[:MOST_LINES], *([f"and {more} more"] if more > 0 else [])]))

    def close(self) -> None:
        """Say what goes on without this process, if it is stopped while it waits."""
        if self._waiting and self._keys.wait:
            print(self._summary(), file=sys.stderr, flush=True)

    def _alive(self) -> dict[WorkKey, Element]:
        """The elements that an earlier driver has submitted, and that have not ended, by their works."""
        if not self._record.arrays:
            return {}
        while (shown := self._queue.look(array.name for array in self._record.arrays)) is None:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        for array in self._record.arrays:
            numbers = [each.array for element, each in shown.items() if element.name == array.name]
            if array.number is None and numbers:  # the earlier driver was killed right after it was submitted
                self._record.set_number(array, numbers[0])
        elements = self._record.elements()
        alive = {key: each for key, each in elements.items() if each in shown and shown[each].is_alive}
        if alive:
            print(f"{counted(len(alive))} that were submitted before go on, and are waited for", flush=True)
        return alive

    def _left(self, work: Work) -> Ending | None:
        """What an element of an earlier driver has left of a work."""
        folder = self._folder_of(work)
        note = read_note(folder)
        try:
            bundle = read_bundle(folder)
        except BundleError:
            folder.remove()
            return None
        if bundle is not None and bundle.is_of(work.unfinished):
            return Ending("done")
        return None if note is None or note.kind in ("stopped", "worker") else Ending("failed", note.error, note)

    def _end(
        self, work: Work, ending: Ending, label: str, pending: Pending, again: list[Work]
    ) -> Iterator[tuple[JobSpec, Outcome]]:
        """What follows from the end of an element."""
        folder = self._folder_of(work)
        if ending.kind == "done":
            try:
                outcomes = self._hand_over.accept(work)
            except BundleError as error:
                folder.remove()  # nothing in it can be relied on
                ending = Ending("died", f"handed back what was refused: {error}")
            else:
                yield from self._hand_over.announced(outcomes)
                return
        if ending.note is not None:
            folder.failure.unlink(missing_ok=True)
            if ending.note.kind == "worker":  # such as a module that was edited while the element waited
                self._stopped.append(f"{named(work.unfinished)}: {label} could not begin: {ending.reason}")
            elif work.kind == "alone":
                yield from self._hand_over.announced(self._hand_over.fail(work, ending.reason))
            else:
                pending.give_up(work, ending.note.as_error())
        elif ending.kind == "stopped":
            self._stopped.append(f"{named(work.unfinished)} did not end: {label} {ending.reason}")
        else:
            yield from self._died(work, ending, label, again)

    def _died(self, work: Work, ending: Ending, label: str, again: list[Work]) -> Iterator[tuple[JobSpec, Outcome]]:
        """Try a work once more, let its jobs fail that end their process twice, or stop the sweep."""
        deaths = self._deaths.setdefault(WorkKey.of(work), [])
        deaths.append(ending)
        jobs = named(work.unfinished)
        if len(deaths) == 1:
            print(f"{jobs}: {label} {ending.reason}; trying once more", flush=True)
            again.append(work)
        elif all(each.kind == "crashed" for each in deaths):
            reasons = dict.fromkeys(each.reason for each in deaths)
            reason = f"{ending.reason}, twice" if len(reasons) == 1 else "; then it ".join(reasons)
            yield from self._hand_over.announced(self._hand_over.fail(work, f"its element of a SLURM array {reason}"))
        else:
            self._stopped.append(f"{jobs} did not end: {label} {ending.reason}, as one before it {deaths[0].reason}")

    def _remove_log(self, element: Element | None) -> None:
        if element is not None:
            self._submission.log(element).unlink(missing_ok=True)

    def _folder_of(self, work: Work) -> WorkFolder:
        return WorkFolder.of(self._folder, work.jobs[0].number)

    def _summary(self) -> str:
        """What SLURM goes on with, and how it is cancelled."""
        names = {element.name for element in self._waiting}
        numbers = [array.number for array in self._record.arrays if array.name in names and array.number]
        return f"SLURM goes on with {counted(len(self._waiting))}; to cancel: scancel {' '.join(numbers)}"
