"""What the pool needs of workers, wherever they run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol


class Worker(Protocol):
    """A process that does one work after another, as the driver sees it.

    Attributes:
        gpu: the GPU that the driver has chosen for it, as `CUDA_VISIBLE_DEVICES` names it; None where it chooses none.
    """

    gpu: str | None

    def give(self, folder: Path, text: str) -> None:
        """Give the worker an assignment; a worker that has died meanwhile is noticed later.

        Args:
            folder: the folder of the work, where a bundle lies once the worker says that it is done.
            text: the assignment.
        """

    def messages(self) -> Iterator[Mapping[str, Any]]:
        """The messages that have arrived, see `holdfast.workers.worker_process.work`.

        `{"refused": reason}` stands for a bundle that could not be received.
        """

    @property
    def is_alive(self) -> bool:
        """Whether the worker can send further messages."""

    def how_it_died(self) -> str:
        """How the worker ended, such as `signal 9`."""

    def let_go(self) -> None:
        """Let the worker end by itself, once it has nothing to do."""

    def terminate(self) -> None:
        """Ask the worker to write what is needed to go on, and to end."""

    def kill(self) -> None:
        """Kill the worker, and all that it has started."""

    def wait_until_it_ends(self, seconds: float) -> bool:
        """Wait for the end of the worker; returns whether it has ended."""


class WorkerStarter(Protocol):
    """Starts workers of one kind."""

    def start(self, gpu: str | None, count: int) -> Worker | None:
        """A new worker; None where there is no room for it yet.

        Args:
            gpu: the GPU that it sees; None leaves that as it is.
            count: the number of workers for which there are works; all of them may be prepared now.

        Raises:
            WorkerError: there will be no worker.
        """

    def wait(self, workers: Sequence[Worker], seconds: float) -> None:
        """Wait until a worker has sent a message, has ended or can be started, or some time has passed."""

    def close(self) -> None:
        """Give up what was prepared for further workers."""
