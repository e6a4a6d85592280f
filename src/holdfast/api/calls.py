"""`holdfast.run`, `holdfast.sweep` and `holdfast.load`: the command line's work, called from Python."""

from __future__ import annotations

import gc
import logging
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.errors import ConfigError, FolderError, HoldfastError, Stopped

if TYPE_CHECKING:
    from holdfast.api.finished import Run, Sweep
    from holdfast.api.passed import Passed
    from holdfast.compose.done import Done


def run(*overrides: str, config_dir: str | os.PathLike[str] | None = None, model: Any = None, data: Any = None) -> Run:
    """Train one run, as `python train.py OVERRIDES` does.

    Args:
        overrides: such as `"lr=0.01"`, `"epochs=3"`.
        config_dir: a folder with config groups of your own, as `--config-dir`.
        model: a LightningModule class, whose arguments become the keys `model.*`; `lr`, `batch_size` and `epochs`
            follow the keys of the same name. Or a LightningModule, of which a copy is trained.
        data: a LightningDataModule class, or a LightningDataModule; or rows `(X, y)`: arrays, or a DataFrame and a
            Series, which are trained as a table.

    Raises:
        ConfigError: overrides that cannot work, with all problems; nothing was written.
        HoldfastError: another failure that the user can mend.
        Exception: whatever the training raised; the folder holds its log.
    """
    passed, done = _called([], overrides, config_dir, model, data)
    if done.error is not None:
        raise done.error
    from holdfast.api.finished import Run
    from holdfast.store.folders import RunFolder

    assert done.path is not None, "a run has a folder"
    return Run(RunFolder(done.path), passed)


def sweep(
    *overrides: str, config_dir: str | os.PathLike[str] | None = None, model: Any = None, data: Any = None
) -> Sweep:
    """Train a sweep and choose its winner, as `python train.py -m OVERRIDES` does.

    A job that fails does not end the sweep: its result says so.

    Args:
        overrides: such as `"lr=0.01,0.1"`, `"seed=range(3)"`.
        config_dir: a folder with config groups of your own, as `--config-dir`.
        model: as of `run`.
        data: as of `run`.

    Raises:
        ConfigError: overrides that cannot work, with all problems; nothing was written.
        HoldfastError: another failure that the user can mend.
    """
    passed, done = _called(["-m"], overrides, config_dir, model, data)
    from holdfast.api.finished import Sweep
    from holdfast.store.folders import SweepFolder

    assert done.path is not None, "a sweep has a folder"
    return Sweep(SweepFolder(done.path), passed)


def load(
    folder: Any, *, config_dir: str | os.PathLike[str] | None = None, model: Any = None, data: Any = None
) -> Run | Sweep:
    """A run or a sweep, from its folder.

    Args:
        folder: such as `outputs/runs/NAME`.
        config_dir: the folder with config groups of your own, if it was trained with one.
        model: what it was trained with, if that was passed.
        data: what it was trained with, if that was passed; rows need not be.

    Raises:
        FolderError: the folder holds neither.
    """
    from holdfast.api.finished import Run, Sweep
    from holdfast.api.passed import Passed
    from holdfast.store.folders import RunFolder, SweepFolder

    if not isinstance(folder, (str, os.PathLike)):
        raise HoldfastError(f"a folder is a path such as outputs/runs/NAME, not {type(folder).__name__}.")
    path = Path(folder)
    passed = Passed(config_dir, model, data)
    if SweepFolder(path).sweep.is_file():
        return Sweep(SweepFolder(path), passed)
    if RunFolder(path).read() is not None:
        return Run(RunFolder(path), passed)
    raise FolderError(f"{path} holds neither a sweep (sweep.json) nor a finished run (result.json).")


def _called(
    mode: list[str], typed: tuple[str, ...], config_dir: str | os.PathLike[str] | None, model: Any, data: Any
) -> tuple[Passed, Done]:
    """What came of a command line, with the process as it was before."""
    if wrong := [each for each in typed if not isinstance(each, str) or each.startswith("-")]:
        raise HoldfastError(f"{wrong[0]!r} is no override: give texts such as 'lr=0.01'; flags are arguments here.")
    from holdfast.api.passed import ONE_AT_A_TIME, Passed
    from holdfast.cli.main import CONF
    from holdfast.compose import app

    with ONE_AT_A_TIME, _process_restored(), app.hydra_restored():
        passed = Passed(config_dir, model, data)
        with passed.written() as options:
            try:
                return passed, app.run([*mode, *passed.flags, *passed.overrides(typed)], CONF, options)
            except ConfigError as error:
                lessons = [replace(each, lesson=_for_python(each.lesson)) for each in error.problems]
                raise ConfigError(lessons) from None
            except Stopped as stop:
                words = shlex.split(stop.command or "")
                resume = next((word for word in words if word.startswith("resume=")), None)
                name = "sweep" if mode else "run"
                raise Stopped(stop.number, resume and f"holdfast.{name}({passed.arguments(resume)})") from None


def _for_python(lesson: str) -> str:
    """A lesson about flags of the command line, for a caller from Python."""
    for there, here in {"add -m": "use holdfast.sweep", "leave -m out": "use holdfast.run"}.items():
        lesson = lesson.replace(there, here)
    return lesson


@contextmanager
def _process_restored() -> Iterator[None]:
    """Leave the process as it was: folder, arguments, environment, import path, logging, generators, threads."""
    from holdfast.runtime.isolation import LEVELS, isolated
    from holdfast.single.startup import import_training

    collects = gc.isenabled()
    import_training(freeze=False)
    levels = {name: logging.getLogger(name).level for name in LEVELS}
    root = logging.getLogger()
    before = (os.getcwd(), list(sys.argv), dict(os.environ), list(sys.path), root.handlers[:], root.level)
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # where the user's modules are
    try:
        with isolated():
            yield
    finally:
        folder, sys.argv[:], environment, sys.path[:], handlers, level = before
        for handler in root.handlers[:]:
            if handler not in handlers:  # Hydra's, which writes the log of the run
                root.removeHandler(handler)
                handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        for name, before_it in levels.items():
            logging.getLogger(name).setLevel(before_it)
        if not collects:
            gc.disable()
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
