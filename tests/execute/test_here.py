"""The executor in this process: which jobs are trained together, again, or alone, when something fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from holdfast.cli.main import CONF
from holdfast.compose.recompose import compose
from holdfast.config.job import JobSpec
from holdfast.errors import HoldfastError, StorageError
from holdfast.execute.here import Here
from holdfast.execute.work import Outcome, Work
from holdfast.stacked import outputs, stack_trainer
from holdfast.store.folders import RunFolder, StackFiles
from holdfast.store.result import Result

CONFIG = compose([], CONF)
JOBS = tuple(JobSpec(number, (f"lr={number + 1}",), CONFIG, "hash") for number in range(8))


def result(job: JobSpec) -> Result:
    return Result("completed", list(job.overrides), job.config_hash, "val/loss", best={"val/loss": job.number})


class Surroundings:
    """Stands for Hydra's part; notes what is announced and written."""

    keeps_events = True

    def __init__(self) -> None:
        self.notes: list[tuple[str, int]] = []

    def train(self, job: JobSpec, train: Callable[[JobSpec], Result]) -> Outcome:
        try:
            return train(job)
        except HoldfastError as error:
            return error

    def begin(self, job: JobSpec) -> None:
        self.notes.append(("begin", job.number))

    def files(self, job: JobSpec) -> StackFiles:
        return StackFiles(Path(f"{job.number}.pt"), Path(f"{job.number}.history"))

    def write_events(self, job: JobSpec, name: str, content: bytes) -> None:
        self.notes.append(("events", job.number))

    def end(self, job: JobSpec, result: Result) -> None:
        self.notes.append(("end", job.number))


@pytest.fixture
def do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Do works whose stacks are trained by a function; returns the outcomes by number, as they end."""

    def do(works: Sequence[Work], train_stack: Callable[..., object], around: Surroundings) -> dict[int, Outcome]:
        monkeypatch.setattr(
            stack_trainer, "train_stack", lambda jobs, *_, **__: train_stack(jobs) and SimpleNamespace(events="e")
        )
        monkeypatch.setattr(outputs, "results_of", lambda jobs, *_: list(map(result, jobs)))
        monkeypatch.setattr(outputs, "event_files", lambda members, _: ((member.job, b"") for member in members))
        alone = lambda job, folder: replace(result(job), seconds=-1.0)  # noqa: E731
        here = Here(around, alone, lambda number: RunFolder(tmp_path / str(number)), around)
        return {job.number: outcome for job, outcome in here.run(works)}

    return do


def test_stacks_come_first_and_finished_jobs_are_trained_but_not_written_again(do: Any) -> None:
    around, widths = Surroundings(), []
    works = [Work("alone", JOBS[:1]), Work("stack", JOBS[1:5], frozenset({2}))]
    outcomes = do(works, lambda jobs: widths.append(len(jobs)) or True, around)
    assert list(outcomes) == [1, 3, 4, 0]
    assert widths == [4]
    assert [number for note, number in around.notes if note == "events"] == [1, 3, 4]
    assert outcomes[0].seconds == -1.0


def test_a_stack_that_does_not_fit_into_memory_is_halved_until_it_does(do: Any, capsys: Any) -> None:
    widths = []

    def train(jobs: Sequence[JobSpec]) -> bool:
        widths.append(len(jobs))
        if len(jobs) > 2:
            raise MemoryError
        return True

    outcomes = do([Work("stack", JOBS, frozenset({0, 1}))], train, Surroundings())
    assert widths == [8, 4, 2, 4, 2, 2]  # the first two jobs are finished: nobody needs their stack
    assert sorted(outcomes) == [2, 3, 4, 5, 6, 7]
    assert capsys.readouterr().out.count("trained in two halves") == 3


def test_a_stack_of_one_that_does_not_fit_is_run_alone(do: Any) -> None:
    def train(jobs: Sequence[JobSpec]) -> bool:
        raise MemoryError

    outcomes = do([Work("stack", JOBS[:3])], train, Surroundings())
    assert [outcome.seconds for outcome in outcomes.values()] == [-1.0] * 3


def test_jobs_of_a_stack_that_fails_run_alone_in_the_order_of_their_numbers(do: Any, capsys: Any) -> None:
    def train(jobs: Sequence[JobSpec]) -> bool:
        raise ValueError("a shape\ndoes not fit")

    outcomes = do([Work("alone", JOBS[5:6]), Work("stack", JOBS[2:4])], train, Surroundings())
    assert list(outcomes) == [2, 3, 5]
    assert "2 jobs could not be trained together, and are run alone: ValueError: a shape does not fit" in (
        capsys.readouterr().out
    )


def test_an_archive_that_cannot_be_written_ends_the_works(do: Any) -> None:
    around = Surroundings()

    def train(jobs: Sequence[JobSpec]) -> bool:
        raise StorageError("0.pt cannot be written: No space left on device.")

    with pytest.raises(StorageError, match="No space left"):
        do([Work("stack", JOBS[:4]), Work("alone", JOBS[5:6])], train, around)
    assert [note for note, _ in around.notes] == ["begin"] * 4


def test_every_work_gets_its_number_of_threads(do: Any) -> None:
    before, seen = torch.get_num_threads(), []
    works = [Work("stack", JOBS[:2], threads=before + 1), Work("stack", JOBS[2:4]), Work("stack", JOBS[4:6], threads=1)]
    do(works, lambda jobs: seen.append(torch.get_num_threads()) or True, Surroundings())
    assert seen == [before + 1, before, 1]
    assert torch.get_num_threads() == before
