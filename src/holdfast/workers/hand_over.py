"""What the driver gives a worker, and what it makes of the work folder: a bundle that is placed, or failed jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from holdfast.config.job import JobSpec
from holdfast.errors import BundleError, HoldfastError
from holdfast.execute.work import Outcome, Progress, Work, WorkerEnvironment
from holdfast.store.files import remove_partial
from holdfast.store.folders import SweepFolder
from holdfast.store.result import Result
from holdfast.store.work_folder import WorkFolder
from holdfast.workers.assignment import Assignment
from holdfast.workers.bundle import Bundle, read_bundle, write_bundle
from holdfast.workers.placing import adopt, place

Outcomes = list[tuple[JobSpec, Outcome]]


class HandOver:
    """Hands works to workers, and places what they hand back.

    Args:
        folder: folder of the sweep.
        environment: Hydra's part of the jobs.
        code: digests of the user's modules, by the name of the module.
        progress: is told of the jobs that have ended.
    """

    def __init__(
        self, folder: SweepFolder, environment: WorkerEnvironment, code: Mapping[str, str], progress: Progress
    ) -> None:
        self._folder, self._environment, self._code, self._progress = folder, environment, code, progress

    def assignment(self, work: Work) -> tuple[WorkFolder, str]:
        """The folder of a work, with what earlier attempts have left, and the text of its assignment."""
        folder, hydra = WorkFolder.of(self._folder, work.jobs[0].number), None
        adopt(folder, self._folder, work.jobs, stacked=work.kind == "stack")
        for job in work.jobs:
            self._environment.begin(job)
        if work.kind == "alone":
            filled, hydra = self._environment.fill(work.jobs[0])
            work = work._replace(jobs=(filled,))
        return folder, Assignment(work, self._environment.keeps_events, self._code, hydra).as_text()

    def announced(self, outcomes: Outcomes) -> Iterator[tuple[JobSpec, Outcome]]:
        """Announce the ends of jobs, and yield them."""
        for job, outcome in outcomes:
            self._environment.end(job, outcome)
            result = outcome if isinstance(outcome, Result) else self._folder.job(job.number).read()
            self._progress.ended(job.number, result)
            yield job, outcome

    def accept(self, work: Work) -> Outcomes:
        """The outcomes of the unfinished jobs of a work that is done; their files are placed.

        Raises:
            BundleError: there is no bundle of this work, or it is not what it says.
            StorageError: a file cannot be moved.
        """
        folder = WorkFolder.of(self._folder, work.jobs[0].number)
        bundle = read_bundle(folder)
        if bundle is None or not bundle.is_of(work.unfinished):
            raise BundleError(f"{folder.path} has no bundle of these jobs")
        return self._placed(work, folder, bundle)

    def accept_earlier(self, work: Work) -> Outcomes | None:
        """The outcomes of a work that was done before this process started, and not placed; None where it was not."""
        folder = WorkFolder.of(self._folder, work.jobs[0].number)
        try:
            bundle = read_bundle(folder)
            if bundle is None or not bundle.is_of(work.unfinished) or bundle.errors:
                return None
            return self._placed(work, folder, bundle)
        except BundleError:
            folder.remove()
            return None

    def fail(self, work: Work, reason: str) -> Outcomes:
        """Let all unfinished jobs of a work fail for the same reason; what a job alone has left is kept.

        Raises:
            StorageError: a file cannot be written or moved.
        """
        folder = WorkFolder.of(self._folder, work.jobs[0].number)
        try:
            return self._fail(work, folder, reason)
        except BundleError:  # what the worker has left cannot be placed
            folder.remove()
            return self._fail(work, folder, reason)

    def _fail(self, work: Work, folder: WorkFolder, reason: str) -> Outcomes:
        for file in folder.stack(work.jobs[0].number):
            file.unlink(missing_ok=True)
        results: dict[int, Result] = {}
        for job in work.unfinished:
            run = folder.job(job.number)
            run.path.mkdir(parents=True, exist_ok=True)
            remove_partial(run.path)
            failed = Result("failed", list(job.overrides), job.config_hash, job.config.metric, error=reason)
            results[job.number] = run.commit(failed)
        bundle = write_bundle(folder, work.unfinished, results, {})
        return self._placed(work, folder, bundle)

    def _placed(self, work: Work, folder: WorkFolder, bundle: Bundle) -> Outcomes:
        # jobs of a stack get the files of Hydra with their folders, at the end of the sweep
        kept = [job for job in work.unfinished if work.kind == "alone" or _status(bundle, job) == "failed"]
        place(folder, bundle, self._folder, kept, self._environment.hydra_files)
        return [(job, _outcome(bundle.results, bundle.errors, job)) for job in work.unfinished]


def _outcome(results: Mapping[int, Result], errors: Mapping[int, str], job: JobSpec) -> Outcome:
    return results[job.number] if job.number in results else HoldfastError(errors[job.number])


def _status(bundle: Bundle, job: JobSpec) -> str:
    return bundle.results[job.number].status if job.number in bundle.results else "failed"


def named(jobs: Sequence[JobSpec]) -> str:
    """Jobs by their numbers, such as `job 3` or `jobs 0 to 9`."""
    first, last = jobs[0].number, jobs[-1].number
    return f"job {first}" if first == last else f"jobs {first} to {last}"
