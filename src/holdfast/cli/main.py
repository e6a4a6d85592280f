"""The entry: `python train.py WORDS` and `holdfast WORDS`."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.cli.signals import deferred, listen
from holdfast.errors import FolderError, HoldfastError, Stopped, StorageError, in_a_line

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from holdfast.config.schema import Config

log = logging.getLogger(__name__)

_HERE = Path(__file__).resolve().parents[1]
CONF = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parents[1] / "conf"
"""The settings: in the wheel beside the code, in a checkout at its top."""


def main(words: list[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code.

    Args:
        words: what follows the program's name; None takes it from `sys.argv`.
    """
    listen()
    # collecting garbage while some thousand modules load costs more than all of this module's work
    gc.disable()
    words = sys.argv[1:] if words is None else words
    sys.argv[1:] = words  # who starts processes for more devices, or says how to go on, looks there
    if "--help" in words or "-h" in words:
        from holdfast.cli.help import help_text

        print(help_text(CONF))
        sys.exit(0)
    from holdfast.store.folders import is_run_or_sweep

    if os.getcwd() not in sys.path and not is_run_or_sweep(Path.cwd()):
        sys.path.append(os.getcwd())  # so that the user's own modules are found, but none in the place of a library's
    try:
        if words[:1] == ["report"]:
            from holdfast.single import processes as ranks

            with ranks.alone():
                sys.exit(report(words[1:]))
        with deferred():
            from holdfast.compose import launch

        sys.exit(launch(words, CONF, task, prepare))
    except HoldfastError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except Exception as error:
        if (lesson := StorageError.of(error)) is None:
            raise
        print(lesson, file=sys.stderr)
        sys.exit(lesson.exit_code)
    except KeyboardInterrupt as stop:
        stopped = stop if isinstance(stop, Stopped) else Stopped.of(stop)
        print(stopped, file=sys.stderr)
        sys.exit(stopped.exit_code)


def prepare(config: Config) -> None:
    """Import what trains, and find out whether this machine has what the configuration asks for."""
    import_training()
    from holdfast.single.devices import check

    check(config)


def import_training() -> None:
    """Import torch, Lightning and the engine, once it is known that they will be needed."""
    with deferred(), _matplotlib_hidden():
        from holdfast.single import trainer as one  # noqa: F401  (who trains imports it again, for nothing)

    gc.freeze()
    gc.enable()


def task(config: DictConfig) -> Any:
    """Train one configuration in the folder that Hydra made for it; returns the best metric."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from holdfast.cli import console
    from holdfast.compose import as_single_run, own, settings
    from holdfast.config.job import config_hash
    from holdfast.single import processes as ranks
    from holdfast.store.folders import RunFolder

    checked, values, origin = settings(config)
    hydra = HydraConfig.get()
    job = hydra.mode == RunMode.MULTIRUN
    if job:
        console.silence()  # the sweep speaks for its jobs
    joined = as_single_run(hydra) if job and checked.devices != 1 else nullcontext()
    folder = RunFolder(Path(hydra.runtime.output_dir))
    try:
        with ranks.entered(checked, folder.path) if job else nullcontext(), joined, ranks.starting(folder.path):
            from holdfast.single.trainer import train_one  # its imports look at the environment

            result = train_one(
                checked,
                folder,
                overrides=own(hydra.overrides.task),
                config_hash=config_hash(values, origin),
                progress=sys.stderr.isatty() and not job,
            )
    except Exception as error:
        if not job:
            raise
        log.exception("This job failed.")
        # some exceptions cannot travel between processes, and would take the launcher down with them
        raise HoldfastError(in_a_line(error)) from None
    if ranks.present().rank == 0 and not job:
        if checked.report is True:
            try:
                from holdfast.report.write import report_run

                report_run(folder, result, checked)
            except Exception as error:  # takes nothing away from a run that is finished
                print(f"the report could not be drawn: {in_a_line(error)}; holdfast report {folder.path} tries again")
        elif checked.logger.tensorboard:
            from holdfast.report.tensorboard import write_config

            write_config(folder)
        log.info("%s", console.summary(result, folder))
    return result.best[result.metric] if result.best else None


def report(words: list[str]) -> int:
    """`holdfast report FOLDER`: draw the report of a finished run or sweep, from its files alone."""
    import argparse

    from holdfast.compose.recompose import Recall
    from holdfast.store.folders import RunFolder, SweepFolder
    from holdfast.store.result import Result

    parser = argparse.ArgumentParser(prog="holdfast report", description=report.__doc__)
    parser.add_argument("folder", type=Path, help="such as outputs/sweeps/NAME or outputs/runs/NAME")
    parser.add_argument("--config-dir", help="your own groups, as when it was trained")
    asked = parser.parse_args(words)
    sweep, run = SweepFolder(asked.folder), RunFolder(asked.folder)
    result = run.read()
    if not sweep.sweep.is_file() and result is None:
        raise FolderError(f"{asked.folder} holds neither a sweep (sweep.json) nor a finished run (result.json).")
    recall = Recall(CONF, ["--config-dir", asked.config_dir] if asked.config_dir else [])
    import_training()
    from holdfast.report.read import jobs_of
    from holdfast.report.write import report_run, report_sweep

    def config_of(ended: Result) -> Config | None:
        composed = recall(ended.overrides, ended.config_hash)
        return composed.config if composed else None

    if sweep.sweep.is_file():
        jobs = jobs_of(sweep)
        report_sweep(sweep, jobs, lambda number: config_of(jobs[number].result))
        print(sweep.page)
    elif result is not None:
        print("\n".join(report_run(run, result, config_of(result))))
    for problem in recall.problems:
        print(f"figures that need rows or models are left out: {problem}")
    return 0


@contextmanager
def _matplotlib_hidden() -> Iterator[None]:
    """Keep torchmetrics from importing matplotlib, 0.4 s, for plots that nobody asked for."""
    from lightning_utilities.core.imports import RequirementCache

    check = RequirementCache._check_available

    def hide(self: Any) -> None:
        if self.requirement == "matplotlib":
            self.available, self.message = False, "hidden by holdfast while it starts"
        check(self)

    RequirementCache._check_available = hide  # type: ignore[method-assign]
    try:
        yield
    finally:
        RequirementCache._check_available = check  # type: ignore[method-assign]
