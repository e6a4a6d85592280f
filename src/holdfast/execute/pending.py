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
        largest_first: whether the largest stack comes first, and then the largest job that trains alone.
    """

    def __init__(self, works: Iterable[Work], *, largest_first: bool = False) -> None:
        self._stacks: deque[Work] = deque()
        self._alone: list[tuple[float, int, Work]] = []
        self._largest_first = largest_first
        for work in sorted(works, key=self._rank):  # works of the same rank keep their order
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
        return heapq.heappop(self._alone)[-1] if self._alone else None

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
            alone = work._replace(jobs=(job,))
            heapq.heappush(self._alone, (self._rank(alone), job.number, alone))

    def _rank(self, work: Work) -> float:
        """A number that is smaller for larger works: minus the iterations of all jobs, but for the number of rows."""
        if not self._largest_first:
            return 0.0
        config = work.jobs[0].config
        batch_size = config.batch_size if isinstance(config.batch_size, int) else 1000
        return -len(work.jobs) * config.epochs / batch_size
