"""What a sweep is asked to do, and what it works with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from holdfast.config.job import JobSpec
from holdfast.execute.work import Executor, Outcome, Progress
from holdfast.store.folders import RunFolder, SweepFolder

HydraFiles = Callable[[JobSpec], Mapping[str, bytes]]
"""Returns the files that Hydra would leave in the folder of a job, by their paths in it."""


class Rounds(Protocol):
    """Draws the jobs of a sweep round after round."""

    def is_complete(self, jobs: int) -> bool:
        """Whether so many jobs are all of them."""

    def more(self, jobs: Sequence[JobSpec], values: Sequence[float | None]) -> Sequence[JobSpec]:
        """The jobs of the next round, from those so far and the best metric of each."""

    def recorded(self, entries: Sequence[Mapping[str, Any]]) -> Sequence[JobSpec]:
        """The jobs that `sweep.json` records, of all rounds."""


@dataclass(frozen=True)
class SweepSpec:
    """A sweep as the command line asks for it, all jobs composed and checked.

    Attributes:
        jobs: in the order of their numbers, from 0.
        overrides: those of the command line, as typed.
        origin: the configuration of the first job as it is written in YAML, before interpolations are resolved.
        launcher: name of the launcher.
        stacked: whether jobs are planned into stacks; a launcher of Hydra's trains each job alone.
        alone_because: a reason why no job can be in a stack.
        threads: threads of each work; None leaves those of the process that does it.
        device_counts: number of devices of each kind where the works are done; None for those of this computer.
        compose: composes one more job, of a number, from overrides.
        searched: the keys whose values a search draws; more trials than were recorded extend it.
        rounds: draws further jobs from the results of the first ones; None where there are none.
        batch_size: jobs that are planned and trained at a time; None for all.
        path: the folder that is asked for.
        chosen: whether the user named the folder.
        retry_failed: whether failed jobs of a resumed sweep are trained again.
        test_again: whether test rows that were opened before are opened again.
        flags: those of the command line that say where configurations lie.
        keys: overrides that a resume has to repeat, since no folder records them.
    """

    jobs: tuple[JobSpec, ...]
    overrides: list[str]
    origin: Mapping[str, Any]
    launcher: str
    stacked: bool
    alone_because: str | None
    threads: int | None
    device_counts: Mapping[str, int] | None
    compose: Callable[[int, Sequence[str]], JobSpec]
    searched: tuple[str, ...]
    rounds: Rounds | None
    batch_size: int | None
    path: Path
    chosen: bool
    retry_failed: bool
    test_again: bool
    flags: list[str]
    keys: list[str]


class Tools(NamedTuple):
    """What a sweep works with, once its folder is claimed.

    Attributes:
        executor: trains the jobs.
        hydra_files: returns what Hydra would leave in the folder of a job that was trained in a stack.
        train_apart: trains a job in this process, in a folder without a number.
    """

    executor: Executor
    hydra_files: HydraFiles
    train_apart: Callable[[JobSpec, RunFolder], Outcome]


MakeTools = Callable[[SweepFolder, Progress], Tools]
