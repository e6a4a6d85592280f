"""The works that wait to be done, and what follows where the jobs of a stack could not be trained together."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable

from holdfast.errors import in_a_line, is_about_files, is_out_of_memory
from holdfast.execute.work import Work


class Pending:
    """Works that wait, whoever does them: the stacks, then the jobs that train alone, in the order of their numbers.

    A stack for which there is not enough memory becomes two of half its width. The jobs of a stack that fails in any
    other way train alone.

    Args:
        works: works; those whose jobs are all finished are left out.
    """

    def __init__(self, works: Iterable[Work]) -> None:
        self._stacks: deque[Work] = deque()
        self._alone: list[tuple[int, Work]] = []
        for work in works:
            if work.kind == "stack":
                self._stacks.append(work)
            else:
                self._add_alone(work)

    def take(self) -> Work | None:
        """The next work, which waits no longer; None where there is none."""
        while self._stacks:
            work = self._stacks.popleft()
            if work.unfinished:  # half a stack may need nothing
                return work
        return heapq.heappop(self._alone)[1] if self._alone else None

    def give_up(self, work: Work, error: Exception) -> None:
        """Let the jobs of a stack that has failed be trained otherwise.

        Args:
            work: the stack.
            error: why it failed.

        Raises:
            Exception: the error, where a file could not be written or read.
        """
        if is_about_files(error):
            raise error
        count = len(work.jobs)
        if count > 1 and is_out_of_memory(error):
            print(f"{count} jobs do not fit into memory together, and are trained in two halves", flush=True)
            middle = count // 2
            self._stacks.extendleft(work._replace(jobs=jobs) for jobs in (work.jobs[middle:], work.jobs[:middle]))
        else:
            print(f"{count} jobs could not be trained together, and are run alone: {in_a_line(error)}", flush=True)
            self._add_alone(work._replace(kind="alone", by_steps=False))

    def _add_alone(self, work: Work) -> None:
        for job in work.unfinished:
            heapq.heappush(self._alone, (job.number, work._replace(jobs=(job,))))
