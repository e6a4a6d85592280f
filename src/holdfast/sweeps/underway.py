"""A sweep under way: its jobs, what its folder records of them, and the results so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

from holdfast.config.job import JobSpec, in_folder
from holdfast.config.schema import Config
from holdfast.errors import in_a_line
from holdfast.execute.work import Outcome
from holdfast.planning.plan import Plan
from holdfast.store.files import write_json
from holdfast.store.folders import SweepFolder
from holdfast.store.result import Result
from holdfast.sweeps.ended import Job, swept_overrides
from holdfast.sweeps.rank import Ranking, rank
from holdfast.sweeps.record import record
from holdfast.sweeps.spec import SweepSpec


class Underway:
    """A sweep in the folder that it has claimed.

    Args:
        spec: the sweep.
        folder: its folder.
        data: digest of the validation rows of each job.

    Attributes:
        spec, folder, data: as given; a search adds jobs round by round.
        swept: the swept overrides of each job.
        configs: the configuration of each job, by its number.
        hashes: the digest of the configuration of each job.
        threads: of each work; None leaves those of the process that does it.
        recorded: the content of `sweep.json`.
        results: of the jobs that have ended, by number.
    """

    def __init__(self, spec: SweepSpec, folder: SweepFolder, data: Sequence[str]) -> None:
        self.folder = folder
        self.set_jobs(spec, data)
        self.threads = spec.threads
        self.recorded: Mapping[str, Any] = {}
        self.results: dict[int, Result] = {}

    def set_jobs(self, spec: SweepSpec, data: Sequence[str]) -> None:
        """Go on with more jobs; arguments as for the class."""
        self.spec, self.data = spec, data
        self.swept = swept_overrides([job.overrides for job in spec.jobs])
        self.configs = {job.number: job.config for job in spec.jobs}
        self.hashes = [job.config_hash for job in spec.jobs]

    @property
    def first(self) -> Config:
        """The configuration of the first job, which has the keys of the sweep in common with the others."""
        return self.configs[0]

    def config_of(self, number: int) -> Config:
        """The configuration of a job, with its folder."""
        return in_folder(self.configs[number], self.folder.job(number).path)

    def has_more_rounds(self) -> bool:
        """Whether a search has trials left to draw."""
        rounds = self.spec.rounds
        return rounds is not None and not rounds.is_complete(len(self.spec.jobs))

    def rounds(self) -> list[int]:
        """The number of jobs in each round: those that were recorded, and what was added to them since."""
        recorded = self.recorded.get("rounds", [len(self.recorded.get("jobs", ()))])
        added = len(self.spec.jobs) - sum(recorded)
        return [count for count in (*recorded, added) if count]

    def batches(self) -> list[tuple[JobSpec, ...]]:
        """The jobs in the portions that are planned and trained at a time."""
        ends = [*accumulate(self.rounds())]
        rounds = [self.spec.jobs[first:end] for first, end in pairwise([0, *ends])]
        size = self.spec.batch_size or len(self.spec.jobs)
        return [jobs[first : first + size] for jobs in rounds for first in range(0, len(jobs), size)]

    def as_recorded(self, plans: Sequence[Plan]) -> dict[str, Any]:
        """The content of `sweep.json`, as it is before the first job of a round starts."""
        return record(self.spec, self.data, plans, self.batches(), rounds=self.rounds(), threads=self.threads)

    def write(self, content: Mapping[str, Any]) -> None:
        """Write `sweep.json`."""
        self.recorded = content
        write_json(self.folder.sweep, content)

    def end(self, job: JobSpec, outcome: Outcome) -> None:
        """Keep the result of a job; an error is a failure, unless the job left a result that says more."""
        if not isinstance(outcome, Result):
            left = self.folder.job(job.number).read()
            error = Result("failed", list(job.overrides), job.config_hash, job.config.metric, error=in_a_line(outcome))
            outcome = left if left is not None and left.config_hash == job.config_hash else error
        self.results[job.number] = outcome

    def ended_jobs(self) -> list[Job]:
        """Every job with its result."""
        return [
            Job(job.number, list(job.overrides), data, self.results[job.number], swept)
            for job, data, swept in zip(self.spec.jobs, self.data, self.swept, strict=True)
        ]

    def ranked(self) -> list[Ranking]:
        """The jobs that have ended, ranked."""
        return rank(self.ended_jobs(), self.first.mode, self.first.sweep.repeats)
