"""Watches elements by the files in the folders of their works, and by what squeue shows, until each has ended."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from holdfast.clusters.slurm_note import Note, read_note
from holdfast.clusters.slurm_queue import Element, Queue, Shown
from holdfast.store.work_folder import WorkFolder

SECONDS_BETWEEN_LOOKS = 1.0
"""How often the folders of works are looked at."""

SECONDS_BETWEEN_QUERIES = 10.0
"""How often squeue is asked: many users do so."""

SECONDS_OF_LAG = 20.0
"""How long a file of an element that has ended well may take to appear: shared file systems lag."""

SECONDS_AFTER_A_DEATH = 3.0
"""The same for an element of which SLURM says that it did not end well."""

Kind = Literal["done", "failed", "stopped", "died", "crashed"]


class Ending(NamedTuple):
    """How an element has ended.

    Attributes:
        kind: `done`: it has left a bundle; `failed`: a note that says why not. `stopped`: SLURM, or a signal, ended it.
            `crashed`: its process ended itself; `died`: for a reason that may have nothing to do with its work.
        reason: as the end of a sentence about the element; of a failure, the error.
        note: of a failure.
    """

    kind: Kind
    reason: str = ""
    note: Note | None = None


_STOPS = {
    "CANCELLED": "was cancelled",
    "TIMEOUT": "reached its time limit (hydra.launcher.time)",
    "DEADLINE": "reached its deadline",
    "PREEMPTED": "was preempted",
    "REVOKED": "was revoked",
}
_DEATHS = {
    "OUT_OF_MEMORY": "ran out of memory (hydra.launcher.mem)",
    "NODE_FAIL": "lost its node",
    "BOOT_FAIL": "lost its node",
    "LAUNCH_FAILED": "could not be launched",
}


class Watch:
    """Watches elements until they have ended.

    Args:
        queue: asks squeue.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._asked = float("-inf")  # when squeue was asked last
        self._missing: dict[Element, tuple[float, Shown | None]] = {}  # since when, and how SLURM says it ended
        self._obstacles: set[tuple[Element, str]] = set()

    def look(self, folders: Mapping[Element, WorkFolder]) -> Iterator[tuple[Element, Ending]]:
        """Wait for a while; then the elements that have ended.

        Args:
            folders: the folder of the work of each element.
        """
        time.sleep(SECONDS_BETWEEN_LOOKS)
        if time.monotonic() - self._asked > SECONDS_BETWEEN_QUERIES:
            self._ask(folders)
        for element, folder in folders.items():
            if (ending := self._ending(element, folder)) is not None:
                self._missing.pop(element, None)
                yield element, ending

    def _ask(self, elements: Mapping[Element, WorkFolder]) -> None:
        shown = self._queue.look({element.name for element in elements})
        self._asked = time.monotonic()
        if shown is None:
            return
        for element in elements:
            each = shown.get(element)
            if each is None or not each.is_alive:
                since = self._missing.get(element, (self._asked, None))[0]
                self._missing[element] = (since, each)
                continue
            self._missing.pop(element, None)
            if each.obstacle and (element, each.obstacle) not in self._obstacles:
                self._obstacles.add((element, each.obstacle))
                print(f"element {each.array}_{element.number} does not start: SLURM says {each.obstacle}", flush=True)

    def _ending(self, element: Element, folder: WorkFolder) -> Ending | None:
        """How an element has ended; None where it has not, or files may still appear."""
        is_missing = element in self._missing
        if folder.bundle.exists():
            # the element still writes there while it holds the lock
            return Ending("done") if is_missing or not folder.lock.exists() else None
        note = read_note(folder)
        if note is not None and note.kind != "stopped":
            return Ending("failed", note.error, note)
        if not is_missing:
            return None
        since, shown = self._missing[element]
        ended_well = shown is None or shown.state == "COMPLETED"
        patience = SECONDS_OF_LAG if ended_well and note is None else SECONDS_AFTER_A_DEATH
        if time.monotonic() - since <= patience:
            return None
        return judge(shown, note, began=folder.lock.exists())  # a process that ends in order removes its lock


def judge(shown: Shown | None, note: Note | None, *, began: bool = True) -> Ending:
    """How an element has ended that has left no result.

    Args:
        shown: what squeue shows of it; None where it shows it no more.
        note: what the element has written itself.
        began: whether it had begun its work.

    >>> judge(Shown("7", "FAILED", -9, "None"), None)
    Ending(kind='died', reason='died (signal 9)', note=None)
    """
    state = shown.state if shown else ""
    if state in _STOPS:
        return Ending("stopped", _STOPS[state])
    if note is not None:
        return Ending("stopped", f"ended early: {note.error}")
    if state in _DEATHS:
        return Ending("died", _DEATHS[state])
    if shown is not None and state == "FAILED":
        how = f"signal {-shown.exit_code}" if shown.exit_code < 0 else f"exit code {shown.exit_code}"
        # SIGKILL comes from outside, as where memory runs out; without a code the node could not say anything
        is_its_doing = began and shown.exit_code not in (0, -9)
        return Ending("crashed" if is_its_doing else "died", f"died ({how})" if began else f"did not begin ({how})")
    return Ending("died", "ended and left no result")
