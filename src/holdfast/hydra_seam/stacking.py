"""The jobs of a multirun, planned and trained as few programs; what cannot share one is run by itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from hydra.core.utils import JobReturn, JobStatus, setup_globals
from omegaconf import DictConfig

from holdfast import console
from holdfast.errors import Stopped, in_a_line
from holdfast.hydra_seam.loader import Composed, Loader
from holdfast.hydra_seam.records import Records, as_job
from holdfast.runs import Result, SweepFolder
from holdfast.sweep.plan import Plan, describe, plan


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
        view: told how far training is.
    """

    def __init__(self, launcher: Launcher) -> None:
        assert launcher.config is not None
        self._launcher, self._master = launcher, launcher.config
        loader = launcher.hydra_context.config_loader
        assert isinstance(loader, Loader)
        self._loader = loader
        self._plans: dict[Any, Plan] = {}
        self.results: dict[int, Result] = {}
        self.view: console.View | None = None

    def plan(self, jobs: Sequence[Sequence[str]], first: int = 0) -> Plan:
        """Where each of some jobs is trained, by their numbers, the first of which is given."""
        key = (first, *map(tuple, jobs))
        if key not in self._plans:
            from holdfast.main import import_training

            import_training()
            from holdfast.train.stackable import Fit, fit

            job = self._master.hydra.job
            reason = "hydra.job.chdir" if job.chdir else "hydra.job.env_set" if job.env_set else None
            asked = (lambda config: Fit(f"{reason} is for a job by itself")) if reason else fit
            found = plan([composed.config for composed in self._composed(jobs)], asked)
            stacks = tuple(tuple(first + number for number in stack) for stack in found.stacks)
            self._plans[key] = Plan(stacks, {first + number: why for number, why in found.alone.items()})
        return self._plans[key]

    def launch(self, jobs: Sequence[list[str]], first: int) -> list[JobReturn]:
        """Train all jobs; how each ended, in their order."""
        setup_globals()
        planned, composed = self.plan(jobs, first), self._composed(jobs)
        configs = {number: job.config for number, job in enumerate(composed, start=first)}
        print(describe(planned, configs), flush=True)
        folder = SweepFolder(Path(str(self._master.hydra.sweep.dir)))
        folder.path.mkdir(parents=True, exist_ok=True)
        records = Records(self._loader, self._master)
        returns: dict[int, JobReturn] = {}
        alone = list(planned.alone)
        for stack in planned.stacks:
            mine = [(number, jobs[number - first], composed[number - first]) for number in stack]
            try:
                with _stoppable():
                    returns |= self._train(mine, folder, records)
            except Exception as error:  # say, memory: a job by itself may still find enough
                print(f"{len(stack)} jobs could not be trained together, and are run alone: {in_a_line(error)}")
                alone += [number for number in stack if number not in returns]
        for number in sorted(alone):
            (returns[number],) = self._launcher.launch_each([jobs[number - first]], number)
            if self.view:
                self.view.ended(number, folder.job(number).read())
        return [returns[first + place] for place in range(len(jobs))]

    def _composed(self, jobs: Sequence[Sequence[str]]) -> list[Composed]:
        return [self._loader.job(self._master, list(words)) for words in jobs]

    def _train(
        self, jobs: Sequence[tuple[int, list[str], Composed]], folder: SweepFolder, records: Records
    ) -> dict[int, JobReturn]:
        """Train a stack and write the folders of its jobs."""
        from holdfast.train.bulk import train_stack

        callbacks = self._launcher.hydra_context.callbacks
        called = bool(callbacks.callbacks)
        whole = {number: records.job(number, words) for number, words, _ in jobs} if called else {}
        for config in whole.values():
            with as_job(config):
                callbacks.on_job_start(config=config, task_function=self._launcher.task_function)
        trained = train_stack(
            [job.config for _, _, job in jobs],
            [words for _, words, _ in jobs],
            [job.config_hash for _, _, job in jobs],
            *([partial(self.view.epoch, len(jobs), jobs[0][2].config.epochs)] if self.view else []),
        )
        keep = jobs[0][2].config.sweep.keep
        written = range(len(jobs)) if keep == "all" else trained.best(keep)
        for place, files in trained.files(list(written)):
            number, words, job = jobs[place]
            everything = files | records.files(number, words, job)
            trained.results[place] = folder.place(number, everything, trained.results[place])
        returns = {}
        for (number, words, _), result in zip(jobs, trained.results, strict=True):
            self.results[number] = result
            returned = JobReturn(overrides=words, working_dir=os.getcwd(), task_name="train")
            returned.status = JobStatus.COMPLETED
            returned.return_value = result.best[result.metric] if result.best else None
            returns[number] = returned
            if called:
                returned.cfg, returned.hydra_cfg = whole[number], whole[number]
                with as_job(whole[number]):
                    callbacks.on_job_end(config=whole[number], job_return=returned)
            if self.view:
                self.view.ended(number, result)
        return returns


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let a SIGTERM end the sweep as Ctrl-C does; Lightning does that where a Trainer trains."""

    def stop(number: int, frame: Any) -> None:
        raise Stopped(signal.Signals(number))

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread: whoever started it is told
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
