"""A sweep from its checked jobs to its winner: planned, recorded, trained, ranked, tested once, reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

from holdfast.config.job import JobSpec, in_folder
from holdfast.config.schema import Config
from holdfast.errors import in_a_line
from holdfast.execute.work import Outcome, Work
from holdfast.planning.plan import Plan, describe
from holdfast.report import console
from holdfast.single.startup import import_training, read_tables
from holdfast.store.files import remove_partial, write_json
from holdfast.store.folders import SweepFolder
from holdfast.store.lock import claim, locked
from holdfast.store.result import Result
from holdfast.store.started import read_sweep
from holdfast.sweeps import resume
from holdfast.sweeps.ended import Job, swept_overrides
from holdfast.sweeps.keep import MOST_WITH_EVENTS, kept, remove_folders, remove_stacks, stack_digests, write_folders
from holdfast.sweeps.notices import name_what_nothing_reads, warn_of_missing_devices
from holdfast.sweeps.rank import Ranking, rank
from holdfast.sweeps.refit import Final, refit, refit_job
from holdfast.sweeps.record import record, with_round
from holdfast.sweeps.spec import MakeTools, SweepSpec
from holdfast.sweeps.stops import resumable
from holdfast.sweeps.works import on_hardware, plan_again, plan_jobs, threads_of, unstacked, works_of

_CHANGED_CODE = (
    "Nothing was run; choose another folder for another sweep.\n"
    "To keep the finished jobs all the same, and train the others with the new version: retry_failed=true"
)


def run_sweep(spec: SweepSpec, make_tools: MakeTools) -> int:
    """Train every job of a sweep and choose its winner, whatever fails on the way.

    Args:
        spec: the sweep.
        make_tools: makes what the sweep works with, once the folder is claimed and `sweep.json` is written.

    Returns:
        The exit code: 0 if no job failed and every winner was tested, otherwise 1.

    Raises:
        Stopped: a signal ended the sweep; the message says how it is resumed.
        StorageError: a file could not be written; likewise.
    """
    import_training()
    resumes = spec.chosen and SweepFolder(spec.path).sweep.exists()
    recorded = read_sweep(SweepFolder(spec.path)) if resumes else None
    read_tables(zip((job.config.data for job in spec.jobs), resume.buffers(recorded, spec.jobs), strict=True))
    warn_of_missing_devices(spec.jobs, elsewhere=spec.device_counts is not None)
    from holdfast.sweeps.folds import check_folds
    from holdfast.sweeps.row_digests import data_digests

    check_folds(spec.jobs)
    name_what_nothing_reads(spec)
    data = data_digests([job.config.data for job in spec.jobs])
    path = spec.path if resumes else claim(spec.path, chosen=spec.chosen, key="hydra.sweep.dir")
    folder = SweepFolder(path)
    with locked(path), resumable(folder, spec.flags, spec.keys):
        return _Sweep(spec, folder, data).run(recorded, make_tools)


class _Sweep:
    """A sweep in the folder that it has claimed.

    Args:
        spec: the sweep.
        folder: its folder.
        data: digest of the validation rows of each job.
    """

    def __init__(self, spec: SweepSpec, folder: SweepFolder, data: Sequence[str]) -> None:
        self._spec, self._folder, self._data = spec, folder, data
        self._swept = swept_overrides([job.overrides for job in spec.jobs])
        self._configs = {job.number: job.config for job in spec.jobs}
        self._hashes = [job.config_hash for job in spec.jobs]
        self._threads = spec.threads
        self._recorded: Mapping[str, Any] = {}  # in `sweep.json`
        self._results: dict[int, Result] = {}  # of the jobs that have ended, by number

    def run(self, recorded: Mapping[str, Any] | None, make_tools: MakeTools) -> int:
        """Start the sweep, or resume it from what `sweep.json` recorded; returns the exit code."""
        if recorded is None:
            plans = self._plans(lambda jobs: plan_jobs(jobs, self._spec.alone_because))
            self._recorded = self._record(plans)
            write_json(self._folder.sweep, self._recorded)
        else:
            self._recorded = recorded
            self._threads = threads_of(recorded["plan"]) or self._threads
            self._resume(recorded)
            if (code := self._end_if_finished()) is not None:
                return code
            plans = self._plans(
                lambda jobs: plan_again(jobs, recorded["plan"], self._results, self._spec.alone_because)
            )
            if len(recorded["jobs"]) < len(self._spec.jobs):
                self._recorded = with_round(recorded, self._record(plans))
                write_json(self._folder.sweep, self._recorded)
        self._train(make_tools, plans)
        verified = self._verify(plans)
        return 1 if verified is None else self._finish(verified)

    def _batches(self) -> list[tuple[JobSpec, ...]]:
        """The jobs in the portions that are planned and trained at a time."""
        ends = [*accumulate(self._rounds())]
        rounds = [self._spec.jobs[first:end] for first, end in pairwise([0, *ends])]
        size = self._spec.batch_size or len(self._spec.jobs)
        return [jobs[first : first + size] for jobs in rounds for first in range(0, len(jobs), size)]

    def _rounds(self) -> list[int]:
        """The number of jobs in each round: those that were recorded, and what was added to them since."""
        recorded = self._recorded.get("rounds", [len(self._recorded.get("jobs", ()))])
        added = len(self._spec.jobs) - sum(recorded)
        return [count for count in (*recorded, added) if count]

    def _plans(self, make_plan: Callable[[Sequence[JobSpec]], Plan]) -> list[Plan]:
        """The plan of each batch; none where a launcher of Hydra's trains each job alone."""
        return [make_plan(jobs) for jobs in self._batches()] if self._spec.stacked else []

    def _record(self, plans: Sequence[Plan]) -> dict[str, Any]:
        """The content of `sweep.json`, written before the first job of a round starts."""
        spec, batches = self._spec, self._batches()
        return record(spec, self._data, plans, batches, rounds=self._rounds(), threads=self._threads)

    def _resume(self, recorded: Mapping[str, Any]) -> None:
        """Find the finished jobs, and remove what is left of the others."""
        resume.check_jobs(self._folder, recorded, self._spec.jobs, self._data, can_grow=self._spec.can_grow)
        if not self._spec.retry_failed:
            resume.check_code(self._folder, recorded, self._configs.values(), _CHANGED_CODE)
        from holdfast.stacked.stored import StoredStacks

        stacks = StoredStacks(self._folder, self._hashes, recorded.get("stacks"))
        self._results = resume.finished(self._folder, self._spec.jobs, stacks, retry_failed=self._spec.retry_failed)
        if "stacks" in recorded and len(self._results) < len(self._spec.jobs):  # an archive may be written anew
            write_json(self._folder.sweep, {key: value for key, value in recorded.items() if key != "stacks"})
        for number in self._configs:
            folder = self._folder.job(number)
            remove_partial(folder.path)
            if number not in self._results and folder.result.exists():
                folder.remove()  # it failed, or its files are no longer those that it left

    def _end_if_finished(self) -> int | None:
        """Print the leaderboard of a sweep that has nothing left to do, and return its exit code; otherwise None."""
        from holdfast.sweeps.finish import Finished

        selections = resume.selections(self._folder)
        if len(self._results) < len(self._spec.jobs) or self._spec.test_again:
            return None
        if selections is None or not resume.is_whole(self._folder, selections):
            return None
        finished = Finished(self._ranked(), selections)
        if not self._has_all_folders(finished.rankings):
            return None
        print(console.leaderboard(self._folder, finished, self._spec.flags))
        print("this sweep is finished; nothing was done")
        if self._configs[0].report is not False and not self._folder.page.exists():
            self._report()
        return finished.exit_code

    def _has_all_folders(self, rankings: Sequence[Ranking]) -> bool:
        """Whether the folders that are kept are complete: those of stacks are written again from the archives."""
        numbers = kept(rankings, self._configs[0].sweep.keep)
        completed = (number for number in numbers if self._results[number].status != "failed")
        return all(self._folder.job(number).finished(self._hashes[number]) for number in completed)

    def _train(self, make_tools: MakeTools, plans: Sequence[Plan]) -> None:
        """Train the jobs that are not finished, and keep their results."""
        done = frozenset(self._results)
        with console.SweepProgress(self._swept, self._configs[0].mode) as progress:
            for number in sorted(done):
                progress.ended(number, self._results[number])
            self._tools = make_tools(self._folder, progress)
            for index, jobs in enumerate(self._batches()):
                works = [Work("alone", (job,), done & {job.number}) for job in jobs]
                if plans:
                    print(f"plan: {describe(plans[index], {job.number: job.config for job in jobs})}", flush=True)
                    works = works_of(plans[index], jobs, done, self._threads, self._spec.device_counts)
                self._do(works)

    def _result(self, job: JobSpec, outcome: Outcome) -> Result:
        """The result of a job that has ended; an error is a failure, unless the job left a result that says more."""
        if isinstance(outcome, Result):
            return outcome
        result = self._folder.job(job.number).read()
        if result is not None and result.config_hash == job.config_hash:
            return result
        error = in_a_line(outcome)
        return Result("failed", list(job.overrides), job.config_hash, job.config.metric, error=error)

    def _ended_jobs(self) -> list[Job]:
        """Every job with its result."""
        return [
            Job(job.number, list(job.overrides), data, self._results[job.number], swept)
            for job, data, swept in zip(self._spec.jobs, self._data, self._swept, strict=True)
        ]

    def _ranked(self) -> list[Ranking]:
        """The jobs that have ended, ranked."""
        first = self._configs[0]
        return rank(self._ended_jobs(), first.mode, first.sweep.repeats)

    def _verify(self, plans: Sequence[Plan]) -> dict[str, Any] | None:
        """Train two jobs of stacks again alone, and all of them where these differ.

        Returns:
            What `selection.json` says of it; None where they differ, and training all alone would take long.
        """
        from holdfast.stacked.stored import StoredStacks
        from holdfast.sweeps.verify import MOST_SECONDS, chosen, to_verify, verify

        planned = {number for plan in plans for stack in plan.stacks for number in stack}
        if not to_verify(self._spec, planned):
            return {}
        stacks = StoredStacks(self._folder, self._hashes)
        users = to_verify(self._spec, {number for number in planned if number in stacks})
        jobs = chosen(self._ranked(), self._spec.jobs, users)
        if not jobs:  # none of them completed, or they were trained alone after all
            return {}
        verification = verify(jobs, self._results, stacks)
        print(verification.message(len(users), self._spec.flags, self._spec.overrides), flush=True)
        if verification.reason and verification.seconds * len(users) > MOST_SECONDS:
            return None
        if verification.reason:
            plan = unstacked(self._recorded["plan"], users, verification.reason)
            self._recorded = {**read_sweep(self._folder), "plan": plan}
            remove_stacks(self._folder, users)
            write_json(self._folder.sweep, self._recorded)
            again = [Work("alone", (job,)) for job in self._spec.jobs if job.number in users]
            self._do(on_hardware(again, self._threads, self._spec.device_counts))
        return verification.entry()

    def _do(self, works: Sequence[Work]) -> None:
        for job, outcome in self._tools.executor.run(works):
            self._results[job.number] = self._result(job, outcome)

    def _finish(self, verified: Mapping[str, Any]) -> int:
        """Choose the winner, test it, report and print; returns the exit code."""
        from holdfast.sweeps.finish import finish

        resume.check_tables(self._folder, self._recorded, self._spec.jobs)
        jobs, again = self._ended_jobs(), self._spec.test_again
        finished = finish(self._folder, jobs, self._config_of, self._keep, self._final_of, verified, again=again)
        if self._configs[0].report is not False:
            self._report()
        print(console.leaderboard(self._folder, finished, self._spec.flags))
        return finished.exit_code

    def _final_of(self, ranking: Ranking, number: int | None) -> Final:
        """The run of a winner that is tested and exported: its job, or of folds the one on all of their rows."""
        assert ranking.winner is not None
        winner = self._spec.jobs[ranking.winner.number]
        if not ranking.settings[0].folds:
            run = self._folder.job(winner.number)
            return Final(run, in_folder(winner.config, run.path))
        job = refit_job(winner, ranking.settings[0], self._spec.compose)
        return refit(job, self._folder.refit(number), self._tools.train_apart)

    def _keep(self, rankings: Sequence[Ranking]) -> None:
        """Write the results of all jobs, and the folders of those that `sweep.keep` names; remove the others."""
        from holdfast.stacked.stored import StoredStacks

        folder, stacks = self._folder, StoredStacks(self._folder, self._hashes)
        numbers = kept(rankings, self._configs[0].sweep.keep)
        jobs = [job for job in self._spec.jobs if job.number in numbers]
        self._results |= write_folders(folder, stacks, jobs, self._results, self._tools.hydra_files)
        # an executor may have added to the file what it needs to be resumed
        write_json(folder.sweep, {**read_sweep(folder), "stacks": stack_digests(folder)})
        folder.write_results(self._results)
        others = [number for number in self._configs if number not in numbers]
        remove_folders(folder, others, stacks, events=len(self._configs) > MOST_WITH_EVENTS)

    def _config_of(self, number: int) -> Config:
        return in_folder(self._configs[number], self._folder.job(number).path)

    def _report(self) -> None:
        """Draw the report; a sweep whose report cannot be drawn is finished all the same."""
        try:
            from holdfast.report.create import report_sweep

            report_sweep(self._folder, self._ended_jobs(), self._config_of)
        except Exception as error:
            print(console.report_failed(error, self._folder.path))
