"""A sweep from its checked jobs to its winner: planned, recorded, trained, ranked, tested once, reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.config.commands import resume_command
from holdfast.config.job import JobSpec, in_folder
from holdfast.config.keys import key_of
from holdfast.config.schema import Config
from holdfast.errors import DeviceError, Problem, Stopped, in_a_line
from holdfast.execute.work import Executor, Outcome, Progress, Work
from holdfast.planning.plan import Plan, describe
from holdfast.report import console
from holdfast.single.startup import import_training
from holdfast.store.files import remove_partial, write_json
from holdfast.store.folders import SweepFolder
from holdfast.store.lock import claim, locked
from holdfast.store.result import Result
from holdfast.store.started import read_sweep
from holdfast.store.versions import versions
from holdfast.sweeps import resume
from holdfast.sweeps.rank import Job, job_name, rank, swept_overrides
from holdfast.sweeps.works import plan_again, plan_jobs, works_of
from holdfast.usercode.packages import code_of


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
        batch_size: jobs that are planned and trained at a time; None for all.
        path: the folder that is asked for.
        chosen: whether the user named the folder.
        retry_failed: whether failed jobs of a resumed sweep are trained again.
        test_again: whether test rows that were opened before are opened again.
        flags: those of the command line that say where configurations lie.
    """

    jobs: tuple[JobSpec, ...]
    overrides: list[str]
    origin: Mapping[str, Any]
    launcher: str
    stacked: bool
    alone_because: str | None
    batch_size: int | None
    path: Path
    chosen: bool
    retry_failed: bool
    test_again: bool
    flags: list[str]


MakeExecutor = Callable[[SweepFolder, Progress], Executor]


def run_sweep(spec: SweepSpec, make_executor: MakeExecutor) -> int:
    """Train every job of a sweep and choose its winner, whatever fails on the way.

    Args:
        spec: the sweep.
        make_executor: makes what trains the jobs, once the folder is claimed and `sweep.json` is written.

    Returns:
        The exit code: 0 if no job failed and every winner was tested, otherwise 1.

    Raises:
        Stopped: a signal ended the sweep; the message says how it is resumed.
    """
    import_training()
    _warn_of_missing_devices(spec.jobs)
    from holdfast.sweeps.row_digests import data_digests

    _name_what_nothing_reads(spec)
    data = data_digests([job.config.data for job in spec.jobs])
    resumes = spec.chosen and SweepFolder(spec.path).sweep.exists()
    recorded = read_sweep(SweepFolder(spec.path)) if resumes else None
    path = spec.path if resumes else claim(spec.path, chosen=spec.chosen, key="hydra.sweep.dir")
    with locked(path):
        try:
            return _Sweep(spec, SweepFolder(path), data).run(recorded, make_executor)
        except KeyboardInterrupt as stop:
            raise Stopped.of(stop, resume_command(path, spec.flags, sweep=True)) from None


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
        self._results: dict[int, Result] = {}  # of the jobs that have ended, by number

    def run(self, recorded: Mapping[str, Any] | None, make_executor: MakeExecutor) -> int:
        """Start the sweep, or resume it from what `sweep.json` recorded; returns the exit code."""
        if recorded is None:
            plans = self._plans(lambda jobs: plan_jobs(jobs, self._spec.alone_because))
            write_json(self._folder.sweep, self._record(plans))
        else:
            self._resume(recorded)
            if (code := self._end_if_finished()) is not None:
                return code
            plans = self._plans(
                lambda jobs: plan_again(jobs, recorded["plan"], self._results, self._spec.alone_because)
            )
        self._train(make_executor, plans)
        return self._finish()

    def _batches(self) -> list[tuple[JobSpec, ...]]:
        """The jobs in the portions that are planned and trained at a time."""
        jobs, size = self._spec.jobs, self._spec.batch_size or len(self._spec.jobs)
        return [jobs[first : first + size] for first in range(0, len(jobs), size)]

    def _plans(self, make_plan: Callable[[Sequence[JobSpec]], Plan]) -> list[Plan]:
        """The plan of each batch; none where a launcher of Hydra's trains each job alone."""
        return [make_plan(jobs) for jobs in self._batches()] if self._spec.stacked else []

    def _record(self, plans: Sequence[Plan]) -> dict[str, Any]:
        """The content of `sweep.json`, written before the first job starts."""
        jobs = zip(self._spec.jobs, self._data, strict=True)
        first = self._configs[0]
        return {
            "overrides": self._spec.overrides,
            "config": self._spec.origin,
            "metric": first.metric,
            "mode": first.mode,
            "jobs": [
                {"overrides": list(job.overrides), "config_hash": job.config_hash, "data": data} for job, data in jobs
            ],
            "plan": {
                "launcher": self._spec.launcher,
                "stacks": [stack for plan in plans for stack in plan.stacks],
                "alone": {number: reason for plan in plans for number, reason in plan.alone.items()},
                "notes": list(dict.fromkeys(note for plan in plans for note in plan.notes)),
            },
            "code": self._code(),
            "versions": versions(),
        }

    def _code(self) -> dict[str, str]:
        """The digests of the user's modules that the jobs name."""
        groups = ("data", "model", "optimizer", "scheduler")
        targets = {getattr(config, group)["_target_"] for group in groups for config in self._configs.values()}
        return code_of(targets - {None})

    def _resume(self, recorded: Mapping[str, Any]) -> None:
        """Find the finished jobs, and remove what is left of the others."""
        resume.check_jobs(self._folder, recorded, self._spec.jobs, self._data)
        if not self._spec.retry_failed:
            resume.check_code(self._folder, recorded, self._code())
        self._results = resume.finished(self._folder, self._spec.jobs, retry_failed=self._spec.retry_failed)
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
        finished = Finished(rank(self._ended_jobs(), self._configs[0].mode), selections)
        print(console.leaderboard(self._folder, finished, self._spec.flags))
        print("this sweep is finished; nothing was done")
        if self._configs[0].report is not False and not self._folder.page.exists():
            self._report()
        return finished.exit_code

    def _train(self, make_executor: MakeExecutor, plans: Sequence[Plan]) -> None:
        """Train the jobs that are not finished, and keep their results."""
        done = frozenset(self._results)
        with console.SweepProgress(self._swept, self._configs[0].mode) as progress:
            for number in sorted(done):
                progress.ended(number, self._results[number])
            executor = make_executor(self._folder, progress)
            for index, jobs in enumerate(self._batches()):
                works = [Work("alone", (job,), done & {job.number}) for job in jobs]
                if plans:
                    print(f"plan: {describe(plans[index], {job.number: job.config for job in jobs})}", flush=True)
                    works = works_of(plans[index], jobs, done)
                for job, outcome in executor.run(works):
                    self._results[job.number] = self._result(job, outcome)

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

    def _finish(self) -> int:
        """Choose the winner, test it, report and print; returns the exit code."""
        from holdfast.sweeps.finish import finish

        finished = finish(self._folder, self._ended_jobs(), self._config_of, again=self._spec.test_again)
        if self._configs[0].report is not False:
            self._report()
        print(console.leaderboard(self._folder, finished, self._spec.flags))
        return finished.exit_code

    def _config_of(self, number: int) -> Config:
        return in_folder(self._configs[number], self._folder.job(number).path)

    def _report(self) -> None:
        """Draw the report; a sweep whose report cannot be drawn is finished all the same."""
        try:
            from holdfast.report.create import report_sweep

            report_sweep(self._folder, self._ended_jobs(), self._config_of)
        except Exception as error:
            print(console.report_failed(error, self._folder.path))


def _name_what_nothing_reads(spec: SweepSpec) -> None:
    """Name the keys that were typed and have no effect, each once, before the first job starts."""
    from holdfast.single.build import without_effect

    def classes(job: JobSpec) -> tuple[str, str]:
        return job.config.model["_target_"], job.config.data["_target_"]

    lines: dict[str, str] = {}
    # the values of the keys make no difference
    for job in {(classes(job), *map(key_of, job.overrides)): job for job in reversed(spec.jobs)}.values():
        # the configuration as written is that of the first job
        origin = spec.origin if classes(job) == classes(spec.jobs[0]) else None
        for key, line in without_effect(job.config, origin, job.overrides).items():
            lines.setdefault(key, line)
    for line in lines.values():
        print(line)


def _warn_of_missing_devices(jobs: Sequence[JobSpec]) -> None:
    """Name the jobs that this machine cannot run, before the first one starts; a launcher may run them elsewhere."""
    from holdfast.runtime import devices

    needs = [devices.Needs.of(job.config) for job in jobs]
    missing: dict[devices.Needs, Problem] = {}
    for distinct in dict.fromkeys(needs):
        try:
            devices.check_needs(distinct)
        except DeviceError as error:
            missing[distinct] = error.problems[0]
    for job, need, swept in zip(jobs, needs, swept_overrides([job.overrides for job in jobs]), strict=True):
        if (problem := missing.get(need)) is not None:
            print(f"{job_name(job.number, swept)} will fail here: {problem.override}: {problem.lesson}")
