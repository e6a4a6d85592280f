"""The entry: `python train.py ...` and `holdfast ...`."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.cli import cache_command, new_project, table_commands
from holdfast.cli.pipes import survive_closed_pipes
from holdfast.errors import FolderError, HoldfastError, Stopped, StorageError
from holdfast.runtime.signals import deferred, listen

if TYPE_CHECKING:
    from holdfast.config.schema import Config
    from holdfast.store.result import Result

_PACKAGE = Path(__file__).resolve().parents[1]
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parents[1] / "conf"
"""The folder of the YAML files: in the wheel beside the code, in a checkout at its top."""


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code.

    Args:
        words: what follows the program's name; None takes it from `sys.argv`.
    """
    listen()
    survive_closed_pipes()
    # collecting garbage while some thousand modules load costs more than all of this module's work
    gc.disable()
    try:
        sys.exit(_run(words))
    except HoldfastError as error:
        print(error, file=sys.stderr if error.exit_code else sys.stdout)
        sys.exit(error.exit_code)
    except Exception as error:
        if (storage := StorageError.of(error)) is None:
            raise
        print(storage, file=sys.stderr)
        sys.exit(storage.exit_code)
    except KeyboardInterrupt as stop:
        stopped = stop if isinstance(stop, Stopped) else Stopped.of(stop)
        print(stopped, file=sys.stderr)
        sys.exit(stopped.exit_code)


def _run(words: Sequence[str] | None) -> int:
    """Do what a command line asks for; returns the exit code."""
    typed = sys.argv[1:] if words is None else words
    if ("--help" in typed or "-h" in typed) and not (typed and typed[0] in COMMANDS):
        from holdfast.cli.help import help_text

        print(help_text(CONF))
        return 0
    from holdfast.runtime import processes
    from holdfast.store.started import is_in_run_or_sweep

    if os.getcwd() not in sys.path and not is_in_run_or_sweep(Path.cwd()):
        sys.path.append(os.getcwd())  # the user's modules can be imported, but do not shadow libraries
    if typed and (command := COMMANDS.get(typed[0])):
        with processes.single_process():
            return command(typed[1:])
    with deferred():
        from holdfast.compose import app

    return app.run(typed, CONF).exit_code


def report(words: Sequence[str]) -> int:
    """`holdfast report FOLDER`: draw the report of a finished run or sweep, from its files alone."""
    import argparse

    from holdfast.compose.recompose import Recomposer
    from holdfast.single.startup import import_training
    from holdfast.store.folders import RunFolder, SweepFolder

    parser = argparse.ArgumentParser(prog="holdfast report", description=report.__doc__)
    parser.add_argument("folder", type=Path, help="such as outputs/sweeps/NAME or outputs/runs/NAME")
    parser.add_argument("--config-dir", help="your own groups, as when it was trained")
    arguments = parser.parse_args(words)
    sweep, run = SweepFolder(arguments.folder), RunFolder(arguments.folder)
    result = run.read()
    if not sweep.sweep.is_file() and result is None:
        raise FolderError(f"{arguments.folder} holds neither a sweep (sweep.json) nor a finished run (result.json).")
    recomposer = Recomposer(CONF, ["--config-dir", arguments.config_dir] if arguments.config_dir else [])
    import_training()
    from holdfast.report.create import report_run, report_sweep
    from holdfast.report.read import jobs_of

    def config_of(result: Result) -> Config | None:
        composed = recomposer(result.overrides, result.config_hash)
        return composed.config if composed else None

    if sweep.sweep.is_file():
        jobs = jobs_of(sweep)
        flags = ["--config-dir", arguments.config_dir] if arguments.config_dir else []
        report_sweep(sweep, jobs, lambda number: config_of(jobs[number].result), flags)
        print(sweep.page)
    elif result is not None:
        print("\n".join(report_run(run, result, config_of(result))))
    for problem in recomposer.problems:
        print(f"figures that need rows or models are left out: {problem}")
    return 0


def export_job(words: Sequence[str]) -> int:
    """`holdfast export-job SWEEP N`: write the complete folder of a job that its sweep did not keep."""
    import argparse

    from holdfast.compose import export
    from holdfast.store.folders import SweepFolder

    parser = argparse.ArgumentParser(prog="holdfast export-job", description=export_job.__doc__)
    parser.add_argument("sweep", type=Path, help="folder of the sweep, such as outputs/sweeps/NAME")
    parser.add_argument("number", type=int, help="number of the job")
    parser.add_argument("--config-dir", help="your own groups, as when it was trained")
    arguments = parser.parse_args(words)
    flags = ["--config-dir", arguments.config_dir] if arguments.config_dir else []
    print(export.export_job(SweepFolder(arguments.sweep), arguments.number, CONF, flags).path)
    return 0


COMMANDS = {
    "new": new_project.new,
    "report": report,
    "export-job": export_job,
    "predict": table_commands.predict,
    "test": table_commands.test,
    "export": table_commands.export,
    "cache": cache_command.cache,
}
"""The commands beside training, by their first word."""
