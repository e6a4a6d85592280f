"""The jobs of a multirun, planned and trained as few programs; what cannot share one is run by itself."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hydra.core.utils import JobReturn, JobStatus, setup_globals
from omegaconf import DictConfig

from holdfast.cli import console
from holdfast.compose.hydra_files import Records, as_job
from holdfast.compose.loader import Composed, Loader
from holdfast.config.schema import Config
from holdfast.errors import HoldfastError, StorageError, in_a_line, is_out_of_memory
from holdfast.planning.plan import Plan, Share, describe, plan
from holdfast.store.folders import SweepFolder
from holdfast.store.result import Result

if TYPE_CHECKING:
    from holdfast.stacked.outputs import Jobs

Mine = tuple[int, list[str], Composed]
"""A job of a stack: its number, its words, its configuration."""


class Launcher(Protocol):
    """What is needed of a launcher of Hydra's."""

    config: DictConfig | None
    hydra_context: Any
    task_function: Any

    def launch_each(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs one by one."""


class Stacking:
    """Plans and trains the jobs that a launcher is given.

    Args:
        launcher: asked to run what has to be run by itself.

    Attributes:
        results: how each stacked job ended, by its number.
        done: how jobs ended that were finished before; their files are left alone.
        view: told how far training is.
    """

    def __init__(self, launcher: Launcher) -> None:
        assert launcher.config is not None
        self._launcher, self._master = launcher, launcher.config
        loader = launcher.hydra_context.config_loader
        assert isinstance(loader, Loader)
        self._loader, self._callbacks = loader, launcher.hydra_context.callbacks
        self._plans: dict[Any, Plan] = {}
        self._forms: dict[str, Any] = {}  # of checkpoints, which the stacks of a sweep share
        self._started: set[int] = set()  # jobs of which Hydra's callbacks have been told
        self.results: dict[int, Result] = {}
        self.done: Mapping[int, Result] = {}
        self.view: console.View | None = None

    def plan(self, jobs: Sequence[Sequence[str]], first: int = 0) -> Plan:
        """Where each of some jobs is trained, by their numbers, the first of which is given."""
        key = (first, *map(tuple, jobs))
        if key not in self._plans:
            from holdfast.cli.main import import_training

            import_training()
            found = plan([composed.config for composed in self._composed(jobs)], self._share)
            stacks = tuple(tuple(first + number for number in stack) for stack in found.stacks)
            self._plans[key] = Plan(stacks, {first + number: why for number, why in found.alone.items()}, found.notes)
        return self._plans[key]

    def _share(self, configs: Sequence[Config]) -> Sequence[Share]:
        """Which jobs of one structure can be one program."""
        from holdfast.planning.share import Share, share

        job = self._master.hydra.job
        reason = "hydra.job.chdir" if job.chdir else "hydra.job.env_set" if job.env_set else None
        if reason is not None:
            return [Share(tuple(range(len(configs))), f"{reason} is for a job by itself")]
        return share(configs)

    def take_up(self, first: int, jobs: Sequence[Sequence[str]], told: Mapping[str, Any]) -> None:
        """Plan some jobs as `sweep.json` says they were: rows of a stack come out alike only beside the same others.

        Jobs that were not planned so, since another launcher had them, or others with them, are planned anew.
        """
        mine = set(range(first, first + len(jobs)))
        stacks = tuple(tuple(stack) for stack in told["stacks"] if not mine.isdisjoint(stack))
        alone = {int(number): why for number, why in told["alone"].items() if int(number) in mine}
        if sorted([*alone, *chain(*stacks)]) == sorted(mine):
            configs = [composed.config for composed in self._composed(jobs)]
            kept = []
            for stack in stacks:
                finished = self.done.keys() >= set(stack)
                # the user's code may be another than when the plan was made
                for part in () if finished else self._share([configs[number - first] for number in stack]):
                    numbers = tuple(stack[index] for index in part.jobs)
                    if part.reason is None:
                        kept.append(numbers)
                    else:
                        alone |= dict.fromkeys(numbers, part.reason)
                kept += [stack] if finished else []
            self._plans[(first, *map(tuple, jobs))] = Plan(tuple(sorted(kept)), dict(sorted(alone.items())))

    def launch(self, jobs: Sequence[list[str]], first: int) -> list[JobReturn]:
        """Train all jobs; how each ended, in their order."""
        setup_globals()
        planned, composed = self.plan(jobs, first), self._composed(jobs)
        configs = {number: job.config for number, job in enumerate(composed, start=first)}
        print(describe(planned, configs), flush=True)
        folder = SweepFolder(Path(str(self._master.hydra.sweep.dir)))
        folder.path.mkdir(parents=True, exist_ok=True)
        self._records = Records(self._loader, self._master)
        returns: dict[int, JobReturn] = {}
        alone = list(planned.alone)
        waiting = list(reversed(planned.stacks))
        while waiting:
            stack = waiting.pop()
            if self.done.keys() >= set(stack):
                continue
            mine = [(number, jobs[number - first], composed[number - first]) for number in stack]
            try:
                self._write(mine, self._train(mine), folder)
            except Exception as error:
                if len(stack) > 1 and is_out_of_memory(error):
                    half = len(stack) // 2
                    print(f"{len(stack)} jobs do not fit into memory together, and are trained in two halves")
                    waiting += (stack[half:], stack[:half])
                    continue
                print(f"{len(stack)} jobs could not be trained together, and are run alone: {in_a_line(error)}")
                alone += stack
                continue
            returns |= {number: self._ended(number, words) for number, words, _ in mine if number not in self.done}
        for number in sorted(set(alone).difference(self.done)):
            (returns[number],) = self._launcher.launch_each([jobs[number - first]], number)
            if self.view:
                self.view.ended(number, folder.job(number).read())
        return [returns.get(first + place, JobReturn(status=JobStatus.COMPLETED)) for place in range(len(jobs))]

    def _composed(self, jobs: Sequence[Sequence[str]]) -> list[Composed]:
        return [self._loader.job(self._master, list(words)) for words in jobs]

    def _train(self, jobs: Sequence[Mine]) -> Jobs:
        """Train a stack."""
        from holdfast.stacked.outputs import train_stack

        for number, words, _ in jobs if self._callbacks.callbacks else ():
            if number in self._started:
                continue
            self._started.add(number)
            config = self._records.job(number, words)
            with as_job(config):
                self._callbacks.on_job_start(config=config, task_function=self._launcher.task_function)
        return train_stack(
            [job.config for _, _, job in jobs],
            [words for _, words, _ in jobs],
            [job.config_hash for _, _, job in jobs],
            self._forms,
            *([partial(self.view.epoch, len(jobs), jobs[0][2].config.epochs)] if self.view else []),
        )

    def _write(self, jobs: Sequence[Mine], trained: Jobs, folder: SweepFolder) -> None:
        """Write the folders of a stack; where the disk fails, say as it is full, the jobs without a folder failed."""
        keep = jobs[0][2].config.sweep.keep
        kept = list(range(len(jobs))) if keep == "all" else trained.best(keep)
        kept = [place for place in kept if jobs[place][0] not in self.done]
        results = {jobs[place][0]: trained.results[place] for place in set(range(len(jobs))).difference(kept)}
        try:
            for place, files in trained.files(kept):
                number, words, job = jobs[place]
                everything = files | self._records.files(number, words, job)
                results[number] = folder.write_job(number, everything, trained.results[place])
        except (OSError, StorageError) as error:
            told = f"its files could not be written: {in_a_line(error)}"
            for place in kept:
                lost = replace(trained.results[place], status="failed", error=told, best=None)
                results.setdefault(jobs[place][0], lost)
        self.results |= results

    def _ended(self, number: int, words: list[str]) -> JobReturn:
        """What a launcher returns of a job, after everyone has been told that it ended."""
        result = self.results[number]
        returned = JobReturn(overrides=words, working_dir=os.getcwd(), task_name="train")
        returned.status = JobStatus.FAILED if result.status == "failed" else JobStatus.COMPLETED
        failed = HoldfastError(str(result.error)) if result.status == "failed" else None
        returned.return_value = failed or (result.best[result.metric] if result.best else None)
        if self._callbacks.callbacks:
            config = self._records.job(number, words)
            returned.cfg = returned.hydra_cfg = config
            with as_job(config):
                self._callbacks.on_job_end(config=config, job_return=returned)
        if self.view:
            self.view.ended(number, result)
        return returned
