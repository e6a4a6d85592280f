"""A sweep from its checked jobs to its winner: planned, recorded, trained, ranked, tested once, reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from holdfast.config.fold import fold_of
from holdfast.config.job import JobSpec
from holdfast.execute.work import Work
from holdfast.planning.plan import Plan, describe
from holdfast.report import console
from holdfast.single.startup import import_training, read_tables
from holdfast.store.files import remove_partial, write_json
from holdfast.store.folders import SweepFolder
from holdfast.store.lock import claim, locked
from holdfast.store.started import read_sweep
from holdfast.store.work_folder import remove_works
from holdfast.sweeps import resume
from holdfast.sweeps.ending import end_if_finished, end_sweep
from holdfast.sweeps.keep import remove_stacks
from holdfast.sweeps.notices import name_what_nothing_reads, warn_of_missing_devices
from holdfast.sweeps.record import with_round
from holdfast.sweeps.spec import MakeTools, SweepSpec
from holdfast.sweeps.stops import resumable
from holdfast.sweeps.underway import Underway
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
    if recorded is not None:
        spec = resume.with_rounds(SweepFolder(spec.path), recorded, spec)
    read_tables(zip((job.config.data for job in spec.jobs), resume.buffers(recorded, spec.jobs), strict=True))
    warn_of_missing_devices(spec.jobs, elsewhere=spec.device_counts is not None)
    from holdfast.sweeps.fold_check import check_folds
    from holdfast.sweeps.row_digests import data_digests

    check_folds(spec.jobs)
    name_what_nothing_reads(spec)
    data = data_digests([job.config.data for job in spec.jobs])
    path = spec.path if resumes else claim(spec.path, chosen=spec.chosen, key="hydra.sweep.dir")
    folder = SweepFolder(path)
    with locked(path), resumable(folder, spec.flags, spec.keys):
        return _Controller(Underway(spec, folder, data)).run(recorded, make_tools)


class _Controller:
    """Brings a sweep to its end.

    Args:
        sweep: the sweep.
    """

    def __init__(self, sweep: Underway) -> None:
        self._sweep = sweep
        self._plans: list[Plan] = []  # of the batches; none where a launcher of Hydra's trains each job alone

    def run(self, recorded: Mapping[str, Any] | None, make_tools: MakeTools) -> int:
        """Start the sweep, or resume it from what `sweep.json` recorded; returns the exit code."""
        sweep = self._sweep
        if recorded is None:
            self._plan(lambda jobs: plan_jobs(jobs, sweep.spec.alone_because))
            sweep.write(sweep.as_recorded(self._plans))
        else:
            sweep.recorded = recorded
            sweep.threads = threads_of(recorded["plan"]) or sweep.threads
            self._resume(recorded)
            if (code := end_if_finished(sweep)) is not None:
                return code
            self._plan(lambda jobs: plan_again(jobs, recorded["plan"], sweep.results, sweep.spec.alone_because))
            if len(recorded["jobs"]) < len(sweep.spec.jobs):
                sweep.write(with_round(recorded, sweep.as_recorded(self._plans)))
        self._train(make_tools)
        verified = self._verify()
        return 1 if verified is None else end_sweep(sweep, self._tools, verified)

    def _plan(self, make_plan: Callable[[Sequence[JobSpec]], Plan]) -> None:
        """Plan the batches that are not planned yet."""
        if self._sweep.spec.stacked:
            self._plans += [make_plan(jobs) for jobs in self._sweep.batches()[len(self._plans) :]]

    def _resume(self, recorded: Mapping[str, Any]) -> None:
        """Find the finished jobs, and remove what is left of the others."""
        sweep, spec = self._sweep, self._sweep.spec
        resume.check_jobs(sweep.folder, recorded, spec.jobs, sweep.data, can_grow=bool(spec.searched))
        if not spec.retry_failed:
            resume.check_code(sweep.folder, recorded, sweep.configs.values(), _CHANGED_CODE)
        from holdfast.stacked.stored import StoredStacks

        stacks = StoredStacks(sweep.folder, sweep.hashes, recorded.get("stacks"))
        sweep.results = resume.finished(sweep.folder, spec.jobs, stacks, retry_failed=spec.retry_failed)
        if "stacks" in recorded and len(sweep.results) < len(spec.jobs):  # an archive may be written anew
            write_json(sweep.folder.sweep, {key: value for key, value in recorded.items() if key != "stacks"})
        for number in (None, *sweep.configs) if fold_of(sweep.first.data) is not None else ():
            remove_partial(sweep.folder.refit(number).path)
        for number in sweep.configs:
            folder = sweep.folder.job(number)
            remove_partial(folder.path)
            if number not in sweep.results and folder.result.exists():
                folder.remove()  # it failed, or its files are no longer those that it left

    def _train(self, make_tools: MakeTools) -> None:
        """Train the jobs that are not finished, and keep their results."""
        sweep = self._sweep
        done = frozenset(sweep.results)
        with console.SweepProgress(sweep.swept, sweep.first.mode) as progress:
            for number in sorted(done):
                progress.ended(number, sweep.results[number])
            self._tools = make_tools(sweep.folder, progress)
            begun = 0
            while begun < len(sweep.batches()) or self._add_round(progress):
                jobs = sweep.batches()[begun]
                works = [Work("alone", (job,), done & {job.number}) for job in jobs]
                if self._plans:
                    plan = self._plans[begun]
                    print(f"plan: {describe(plan, {job.number: job.config for job in jobs})}", flush=True)
                    works = works_of(plan, jobs, done, sweep.threads, sweep.spec.device_counts)
                self._do(works)
                begun += 1

    def _add_round(self, progress: console.SweepProgress) -> bool:
        """Draw the next round of a search, if there is one, and record it whole before it is trained."""
        from holdfast.sweeps.row_digests import data_digests

        sweep, spec = self._sweep, self._sweep.spec
        if spec.rounds is None or not sweep.has_more_rounds():
            return False
        settings = [each for ranking in sweep.ranked() for each in ranking.settings]
        values = {job.number: each.value(job) for each in settings for job in each.jobs.values()}
        more = spec.rounds.more(spec.jobs, [values[job.number] for job in spec.jobs])
        read_tables((job.config.data, "auto") for job in more if job.config.data.get("buffer_rows") == "auto")
        data = [*sweep.data, *data_digests([job.config.data for job in more])]
        sweep.set_jobs(replace(spec, jobs=(*spec.jobs, *more)), data)
        progress.add(sweep.swept)
        self._plan(lambda jobs: plan_jobs(jobs, spec.alone_because))
        # an executor may have added to the file what it needs to be resumed
        sweep.write(with_round(read_sweep(sweep.folder), sweep.as_recorded(self._plans)))
        return True

    def _verify(self) -> dict[str, Any] | None:
        """Train two jobs of stacks again alone, and all of them where these differ.

        Returns:
            What `selection.json` says of it; None where they differ, and training all alone would take long.
        """
        from holdfast.stacked.stored import StoredStacks
        from holdfast.sweeps.verify import MOST_SECONDS, chosen, to_verify, verify

        sweep, spec = self._sweep, self._sweep.spec
        planned = {number for plan in self._plans for stack in plan.stacks for number in stack}
        if not to_verify(spec, planned):
            return {}
        stacks = StoredStacks(sweep.folder, sweep.hashes)
        users = to_verify(spec, {number for number in planned if number in stacks})
        jobs = chosen(sweep.ranked(), spec.jobs, users)
        if not jobs:  # none of them completed, or they were trained alone after all
            return {}
        verification = verify(jobs, sweep.results, stacks)
        print(verification.message(len(users), spec.flags, spec.overrides), flush=True)
        if verification.reason and verification.seconds * len(users) > MOST_SECONDS:
            return None
        if verification.reason:
            plan = unstacked(sweep.recorded["plan"], users, verification.reason)
            remove_stacks(sweep.folder, users)
            sweep.write({**read_sweep(sweep.folder), "plan": plan})
            again = [Work("alone", (job,)) for job in spec.jobs if job.number in users]
            self._do(on_hardware(again, sweep.threads, spec.device_counts))
        return verification.entry()

    def _do(self, works: Sequence[Work]) -> None:
        for job, outcome in self._tools.executor.run(works):
            self._sweep.end(job, outcome)
        remove_works(self._sweep.folder)
