"""The line that names worker processes where jobs that run alone take long, one after another."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.execute.work import Work
from holdfast.runtime.cores import core_count

LONG = 20.0
"""Jobs that run alone for longer, one after another, are worth the line; in seconds."""

SECONDS_TO_START = 5.0
"""How long worker processes take until they train, roughly."""


class Advice:
    """Estimates, from the first jobs that run alone, how long all take, and says once what worker processes would save.

    Args:
        works: all works of the sweep; those on several devices, or on a GPU, would not be spread over the cores.
    """

    def __init__(self, works: Sequence[Work]) -> None:
        alone = [work for work in works if work.kind == "alone" and work.devices == 1 and work.accelerator == "cpu"]
        self._count = sum(len(work.unfinished) for work in alone)
        self._workers = min(core_count(), self._count)
        self._seconds: list[float] = []
        self._is_said = self._workers < 2

    def note(self, seconds: float) -> str | None:
        """What to print after a job that has run alone, if anything.

        Args:
            seconds: how long the job took.
        """
        self._seconds.append(seconds)
        total = sum(self._seconds) / len(self._seconds) * self._count
        spread = total / self._workers + SECONDS_TO_START if self._workers else total
        if self._is_said or total <= LONG or spread >= total:
            return None
        self._is_said = True
        return (
            f"{self._count} jobs run alone, about {total:.0f} s one after another; "
            f"with hydra/launcher=processes about {spread:.0f} s, in {self._workers} processes"
        )
