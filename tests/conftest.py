"""What most tests need: the command line, run in an empty folder inside this process."""

from __future__ import annotations

import csv
import io
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import lightning.pytorch as pl
import pytest

from holdfast.cli.main import main
from holdfast.config.job import JobSpec
from holdfast.config.schema import Config
from holdfast.store.folders import RunFolder
from holdfast.store.result import Result
from tests.full import in_part

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that are in another part, but those that divide their own cases."""
    left_out = [item for item in items if not (in_part(item.nodeid) or "test_kill.py" in item.nodeid)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(autouse=True, scope="session")
def _heard() -> None:
    """Let children hear SIGINT: a suite that runs in the background of a script ignores it, and they would too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Ran:
    """What a command line left behind."""

    code: int
    out: str
    err: str
    folder: RunFolder

    @property
    def result(self) -> Result:
        result = self.folder.read()
        assert result is not None, f"no result.json in {self.folder.path}; {self.out}{self.err}"
        return result


def leaderboard_of(folder: Path) -> list[dict[str, str]]:
    """The rows of a leaderboard, but for times."""
    with (folder / "leaderboard.csv").open(newline="") as lines:
        return [{key: value for key, value in line.items() if key != "seconds"} for line in csv.DictReader(lines)]


@pytest.fixture(scope="session", autouse=True)
def _program() -> Iterator[None]:
    """Let the commands that are printed begin with `python train.py`, whatever runs the tests."""
    with patch.object(sys, "argv", ["train.py"]):
        yield


def command_line(*words: str) -> tuple[int, str]:
    """Run `python train.py WORDS` in the present folder; its exit code, and all that it says."""
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said), pytest.raises(SystemExit) as exit_:
            main(list(words))
    finally:
        close_log()
    return int(str(exit_.value.code or 0)), said.getvalue()


def close_log() -> None:
    """Close the log of the last run, which the next one would close, and which a later message would open again."""
    for handler in [each for each in logging.getLogger().handlers if isinstance(each, logging.FileHandler)]:
        logging.getLogger().removeHandler(handler)
        handler.close()


def job_spec(config: Config, overrides: Sequence[str] = ()) -> JobSpec:
    """A job with this configuration, whose hash is not computed."""
    return JobSpec(0, tuple(overrides), config, "h")


def bare_trainer(*callbacks: pl.Callback) -> pl.Trainer:
    """Lightning's Trainer for one epoch on the CPU, with nothing of ours around it."""
    return pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )


@pytest.fixture
def holdfast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Ran]]:
    """Run `python train.py WORDS` in an empty folder; each call gets a run's folder of its own."""
    monkeypatch.chdir(tmp_path)
    count = iter(range(1000))

    def run(*words: str) -> Ran:
        folder = tmp_path / "ran" / str(next(count))
        with pytest.raises(SystemExit) as exit_:
            main([*words, f"hydra.run.dir={folder}"])
        out, err = capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        return Ran(exit_.value.code, out, err, RunFolder(folder))

    yield run
    close_log()
