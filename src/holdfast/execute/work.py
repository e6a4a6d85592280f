"""What an executor is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from holdfast.config.job import JobSpec
from holdfast.store.folders import StackFiles
from holdfast.store.result import Result

Outcome = Result | Exception
"""How a job ended, or the error because of which it left no result."""


class Work(NamedTuple):
    """Jobs that are trained together, or one job that is trained alone.

    Attributes:
        kind: `stack` for jobs trained as one batched program, `alone` for one job trained by Lightning's Trainer.
        jobs: in the order of their numbers.
        finished: numbers of the jobs whose results are known. In a stack they are trained again, because results are
            equal to the last bit only in the same stack.
        by_steps: whether a stack calls the steps of the module itself, instead of its loss.
        threads: threads of torch's operations; None leaves those of the process.
        accelerator: kind of device that trains, such as `cpu` or `cuda`.
        devices: number of devices of this computer that train at once.
    """

    kind: Literal["stack", "alone"]
    jobs: tuple[JobSpec, ...]
    finished: frozenset[int] = frozenset()
    by_steps: bool = False
    threads: int | None = None
    accelerator: str = "cpu"
    devices: int = 1

    @property
    def unfinished(self) -> list[JobSpec]:
        """The jobs whose results are needed."""
        return [job for job in self.jobs if job.number not in self.finished]


class Executor(Protocol):
    """A place where works are done: this process, or a launcher of Hydra's."""

    def run(self, works: Sequence[Work]) -> Iterator[tuple[JobSpec, Outcome]]:
        """Do all works; yields every unfinished job with its outcome, as the jobs end."""


class Environment(Protocol):
    """What surrounds the training of a job: the record of its configuration, its log, Hydra's callbacks."""

    def train(self, job: JobSpec, train: Callable[[JobSpec], Result]) -> Outcome:
        """Call a function that trains one job, inside of everything that surrounds it.

        The function is given the job with what is known only there, such as its folder, filled into its configuration.
        """


class StackEnvironment(Protocol):
    """What surrounds jobs in a stack: Hydra's callbacks, and the folder of the sweep.

    Attributes:
        keeps_events: whether every job leaves an event file.
    """

    keeps_events: bool

    def begin(self, job: JobSpec) -> None:
        """Announce that a job starts; further calls for the same job do nothing."""

    def files(self, job: JobSpec) -> StackFiles:
        """The files of the stack whose first job this is."""

    def write_events(self, job: JobSpec, name: str, content: bytes) -> None:
        """Write the event file of a job."""

    def end(self, job: JobSpec, outcome: Outcome) -> None:
        """Announce that a job has ended."""


class WorkerEnvironment(StackEnvironment, Protocol):
    """What surrounds jobs that are trained in worker processes: Hydra's part of it stays with the driver."""

    def fill(self, job: JobSpec) -> tuple[JobSpec, dict[str, Any]]:
        """A job with what is known only right before it starts, and Hydra's configuration of it.

        Both have `holdfast.config.job.FOLDER` in the place of the job's folder, as values that JSON can hold.
        """

    def hydra_files(self, job: JobSpec) -> Mapping[str, bytes]:
        """The files that Hydra would leave in the folder of a job, by their paths in it."""


class Progress(Protocol):
    """Shows how far the works are."""

    def epoch(self, jobs: int, epochs: int, epoch: int, best: float) -> None:
        """Jobs that are trained together have finished an epoch.

        Args:
            jobs: how many they are.
            epochs: the epochs that each of them is trained for.
            epoch: number of the epoch, from 0.
            best: best metric of these jobs so far; NaN while there is none.
        """

    def ended(self, number: int, result: Result | None) -> None:
        """The job with this number has ended, with a result if it left one."""


class _NoProgress:
    """Shows nothing."""

    def epoch(self, jobs: int, epochs: int, epoch: int, best: float) -> None:
        pass

    def ended(self, number: int, result: Result | None) -> None:
        pass


NO_PROGRESS: Progress = _NoProgress()
"""For works whose progress nobody looks at."""
