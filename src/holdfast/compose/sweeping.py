"""A Hydra multirun of Holdfast: every job checked, then launched by whichever launcher is chosen, then finished."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from holdfast.cli import console
from holdfast.compose.loader import Loader
from holdfast.compose.overrides import product
from holdfast.compose.resuming import asked, command, flags, own
from holdfast.config.check import key_of
from holdfast.config.schema import Config
from holdfast.errors import ConfigError, DeviceError, HoldfastError, Problem, Stopped, in_a_line
from holdfast.planning.plan import Plan
from holdfast.search.grid import words_of
from holdfast.store.files import remove_partial, write_json
from holdfast.store.folders import SweepFolder
from holdfast.store.lock import claim, locked
from holdfast.store.result import Result
from holdfast.store.versions import code_of, versions
from holdfast.sweeps import resume
from holdfast.sweeps.rank import Job, job_name, rank

MOST_PROBLEMS = 20
"""Problems told at once, where a sweep of thousands of jobs has a mistake in each."""


class Sweep:
    """The jobs of one multirun, from their words to their results.

    Args:
        loader: composes the configuration of each job.
        config: the configuration of the sweep, words of single jobs left out.
        params: `hydra.sweeper.params`.
        typed: the words of the command line.

    Raises:
        ConfigError: a word that cannot work, in any job; nothing was written.
    """

    def __init__(self, loader: Loader, config: DictConfig, params: Any, typed: Sequence[str]) -> None:
        self._loader, self._config, self._typed = loader, config, own(typed)
        self._asked = asked(typed)
        self.jobs = product(words_of(params, self._typed), loader)
        self._origin: dict[str, Any] = {}  # of the first job, as written
        self._configs, self._hashes = self._check()
        self._data: list[str] = []
        self._stacking: Any = None
        self._done: dict[int, Result] = {}
        self._returned: dict[int, JobReturn] = {}

    def config_of(self, number: int) -> Config:
        """The configuration of one job."""
        return self._configs[number]

    def run(self, launcher: Launcher, batch_size: int | None) -> tuple[list[Sequence[JobReturn]], int]:
        """Launch every job and finish the sweep, whatever failed.

        Args:
            launcher: Hydra's.
            batch_size: jobs handed to the launcher at a time; None hands over all.

        Returns:
            What the launcher returned for each batch, and the exit code: 0 if every job finished and one of them won.
        """
        from holdfast.cli.main import import_training

        import_training()
        self._foresee()
        from holdfast.single.row_digests import data_digests

        self._data = data_digests([config.data for config in self._configs])
        size = batch_size or len(self.jobs)
        batches = [(first, self.jobs[first : first + size]) for first in range(0, len(self.jobs), size)]
        # our own launcher knows its plan, and tells how jobs end; of any other the folders are watched
        self._stacking = launcher.stacking() if hasattr(launcher, "stacking") else None
        folder, told = self._claim()
        with locked(folder.path):
            try:
                if told is None:
                    plans = [self._stacking.plan(jobs, first) for first, jobs in batches] if self._stacking else []
                    write_json(folder.sweep, self._told(plans))
                    OmegaConf.save(self._config, folder.hydra)
                else:
                    self._take_up(folder, told, batches)
                    if (code := self._is_over(folder)) is not None:
                        return [], code
                return self._launch_all(folder, launcher, batches), self._finish(folder)
            except KeyboardInterrupt as stop:
                raise Stopped.of(stop, command("hydra.sweep.dir", folder.path)) from None

    def _take_up(self, folder: SweepFolder, told: dict[str, Any], batches: Sequence[resume.Batch]) -> None:
        """Find out what is done already, and make room for what is not."""
        resume.hold_against(folder, told, self.jobs, self._hashes, self._data)
        if not self._asked["retry_failed"]:
            resume.hold_code_against(folder, told, self._code())
        self._done = resume.finished(folder, self._hashes, retry_failed=self._asked["retry_failed"])
        for number in range(len(self.jobs)):
            remove_partial(folder.job(number).path)
            if number not in self._done and folder.job(number).result.exists():
                folder.job(number).remove()  # it failed, or its files are no longer those it was left with
        if self._stacking:
            self._stacking.done = self._done
        for first, jobs in batches if self._stacking else ():
            self._stacking.take_up(first, jobs, told["plan"])

    def _is_over(self, folder: SweepFolder) -> int | None:
        """The exit code of a sweep that has nothing left to do, after that was said; None if it has."""
        from holdfast.sweeps.finish import Finished

        selections = resume.selections(folder)
        if len(self._done) < len(self.jobs) or self._asked["test_again"]:
            return None
        if selections is None or not resume.is_whole(folder, selections):
            return None
        jobs = [Job(number, words, self._data[number], self._done[number]) for number, words in enumerate(self.jobs)]
        ended = Finished(rank(jobs, self._configs[0].mode), selections)
        print(console.leaderboard(folder, ended, flags()))
        print("this sweep is finished; nothing was done")
        if self._configs[0].report is not False and not folder.page.exists():
            self._report(folder, jobs)
        return ended.exit_code

    def _launch_all(
        self, folder: SweepFolder, launcher: Launcher, batches: Sequence[resume.Batch]
    ) -> list[Sequence[JobReturn]]:
        """Launch what is not done; what a launcher is given it numbers without gaps."""
        returns: list[Sequence[JobReturn]] = []
        mode = self._configs[0].mode
        with console.View(self.jobs, mode) if self._stacking else console.Watch(folder, self.jobs, mode) as view:
            if self._stacking:
                self._stacking.view, self._stacking.done = view, self._done
            for first, jobs in batches:
                for start, part in [(first, jobs)] if self._stacking else resume.missing(first, jobs, self._done):
                    returns.append(self._launch(launcher, start, part))
                    self._returned |= dict(enumerate(returns[-1], start=start))
        return returns

    def _check(self) -> tuple[list[Config], list[str]]:
        """Every job's configuration and its hash; raises for all jobs at once."""
        problems: dict[Problem, None] = {}
        configs, hashes = [], []
        if _subdir(self._config) != "${hydra.job.num}":
            problems[Problem("hydra.sweep.subdir", "the folders of jobs are numbered: leave it out")] = None
        for words in self.jobs:
            try:
                composed = self._loader.job(self._config, words)
            except ConfigError as error:
                problems.update(dict.fromkeys(error.problems))
                if len(problems) >= MOST_PROBLEMS:
                    break
                continue
            if composed.config.test:
                lesson = "the winner of a sweep is tested anyway, it alone: leave test out"
                problems[Problem("test=true", lesson)] = None
            self._origin = self._origin or dict(composed.origin)
            configs.append(composed.config)
            hashes.append(composed.config_hash)
        for key in ("metric", "mode", "report", "sweep") if configs else ():
            if any(getattr(config, key) != getattr(configs[0], key) for config in configs):
                problems[Problem(key, "the jobs of a sweep are compared, and kept, by one rule: give one value")] = None
        if problems:
            raise ConfigError(list(problems))
        return configs, hashes

    def _foresee(self) -> None:
        """Say which jobs this machine cannot run, before the first one starts; a launcher may run them elsewhere."""
        from holdfast.single import devices as machine

        needs = [machine.Needs.of(config) for config in self._configs]
        lacking: dict[machine.Needs, Problem] = {}
        for different in dict.fromkeys(needs):
            try:
                machine.check_needs(different)
            except DeviceError as error:
                lacking[different] = error.problems[0]
        for number, words in enumerate(self.jobs):
            if (problem := lacking.get(needs[number])) is not None:
                print(f"{job_name(number, words)} will fail here: {problem.override}: {problem.lesson}")

    def _claim(self) -> tuple[SweepFolder, dict[str, Any] | None]:
        """A folder of its own, or one that holds this sweep already, with what that says."""
        chosen = "hydra.sweep.dir" in map(key_of, self._config.hydra.overrides.hydra)
        path = Path(self._config.hydra.sweep.dir)
        begun = chosen and SweepFolder(path).sweep.exists()
        told = resume.read(SweepFolder(path)) if begun else None
        path = claim(path, chosen=chosen, key="hydra.sweep.dir") if told is None else path
        with read_write(self._config.hydra.sweep), open_dict(self._config.hydra.sweep):
            self._config.hydra.sweep.dir = str(path)
        return SweepFolder(path), told

    def _told(self, plans: Sequence[Plan]) -> dict[str, Any]:
        """What `sweep.json` says before the first job starts."""
        jobs = zip(self.jobs, self._hashes, self._data, strict=True)
        return {
            "overrides": self._typed,
            "config": self._origin,
            "metric": self._configs[0].metric,
            "mode": self._configs[0].mode,
            "jobs": [{"overrides": words, "config_hash": hash_, "data": data} for words, hash_, data in jobs],
            "plan": {
                "launcher": str(self._config.hydra.runtime.choices["hydra/launcher"]),
                "stacks": [stack for plan in plans for stack in plan.stacks],
                "alone": {number: why for plan in plans for number, why in plan.alone.items()},
                "notes": list(dict.fromkeys(note for plan in plans for note in plan.notes)),
            },
            "code": self._code(),
            "versions": versions(),
        }

    def _code(self) -> dict[str, str]:
        """The digests of the user's modules that the jobs name."""
        groups = ("data", "model", "optimizer", "scheduler")
        targets = {getattr(config, group)["_target_"] for group in groups for config in self._configs}
        return code_of(targets - {None})

    def _launch(self, launcher: Launcher, first: int, jobs: list[list[str]]) -> Sequence[JobReturn]:
        try:
            return launcher.launch(jobs, initial_job_idx=first)
        except Exception as error:  # a launcher that broke, say as a worker was killed: some jobs may have finished
            broken = JobReturn(status=JobStatus.FAILED)
            broken.return_value = HoldfastError(f"the launcher broke: {in_a_line(error)}")
            return [broken] * len(jobs)

    def _finish(self, folder: SweepFolder) -> int:
        from holdfast.sweeps.finish import finish

        jobs = [
            Job(number, words, self._data[number], self._result(folder, number))
            for number, words in enumerate(self.jobs)
        ]
        finished = finish(folder, jobs, self.config_of, again=self._asked["test_again"])
        if self.config_of(0).report is not False:
            self._report(folder, jobs)
        print(console.leaderboard(folder, finished, flags()))
        return finished.exit_code

    def _report(self, folder: SweepFolder, jobs: Sequence[Job]) -> None:
        """Draw the report; one that cannot be drawn takes nothing away from a sweep that is finished."""
        try:
            from holdfast.report.write import report_sweep

            report_sweep(folder, jobs, self.config_of)
        except Exception as error:
            print(f"the report could not be drawn: {in_a_line(error)}; holdfast report {folder.path} tries again")

    def _result(self, folder: SweepFolder, number: int) -> Result:
        """What a job left, or why it left nothing."""
        if number in self._done:
            return self._done[number]
        if self._stacking and number in self._stacking.results:
            known: Result = self._stacking.results[number]
            return known
        result = folder.job(number).read()
        if result is not None and result.config_hash == self._hashes[number]:
            return result
        returned = self._returned[number]
        failed = returned.status == JobStatus.FAILED
        told = in_a_line(returned._return_value) if failed else "it left no result of its configuration"
        return Result("failed", self.jobs[number], self._hashes[number], self._config.metric, error=told)


def _subdir(config: DictConfig) -> Any:
    return OmegaConf.to_container(config.hydra.sweep, resolve=False)["subdir"]  # type: ignore[call-overload,index]
