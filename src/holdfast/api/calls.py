"""`holdfast.run`, `holdfast.sweep` and `holdfast.load`: the command line's work, called from Python."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.errors import FolderError, HoldfastError

if TYPE_CHECKING:
    from holdfast.api.finished import Run, Sweep

_ONE_AT_A_TIME = threading.RLock()


def run(*overrides: str, config_dir: str | os.PathLike[str] | None = None) -> Run:
    """Train one run, as `python train.py OVERRIDES` does.

    Args:
        overrides: such as `"lr=0.01"`, `"epochs=3"`.
        config_dir: a folder with config groups of your own, as `--config-dir`.

    Raises:
        ConfigError: overrides that cannot work, with all problems; nothing was written.
        HoldfastError: another failure that the user can mend.
        Exception: whatever the training raised; the folder holds its log.
    """
    done = _called([], overrides, config_dir)
    if done.error is not None:
        raise done.error
    from holdfast.api.finished import Run
    from holdfast.store.folders import RunFolder

    return Run(RunFolder(done.path), _flags(config_dir))


def sweep(*overrides: str, config_dir: str | os.PathLike[str] | None = None) -> Sweep:
    """Train a sweep and choose its winner, as `python train.py -m OVERRIDES` does.

    A job that fails does not end the sweep: its result says so.

    Args:
        overrides: such as `"lr=0.01,0.1"`, `"seed=range(3)"`.
        config_dir: a folder with config groups of your own, as `--config-dir`.

    Raises:
        ConfigError: overrides that cannot work, with all problems; nothing was written.
        HoldfastError: another failure that the user can mend.
    """
    done = _called(["-m"], overrides, config_dir)
    from holdfast.api.finished import Sweep
    from holdfast.store.folders import SweepFolder

    return Sweep(SweepFolder(done.path), _flags(config_dir))


def load(folder: Any, *, config_dir: str | os.PathLike[str] | None = None) -> Run | Sweep:
    """A run or a sweep, from its folder.

    Args:
        folder: such as `outputs/runs/NAME`.
        config_dir: the folder with config groups of your own, if it was trained with one.

    Raises:
        FolderError: the folder holds neither.
    """
    from holdfast.api.finished import Run, Sweep
    from holdfast.store.folders import RunFolder, SweepFolder

    path = Path(folder)
    flags = _flags(config_dir)
    if SweepFolder(path).sweep.is_file():
        return Sweep(SweepFolder(path), flags)
    if RunFolder(path).read() is not None:
        return Run(RunFolder(path), flags)
    raise FolderError(f"{path} holds neither a sweep (sweep.json) nor a finished run (result.json).")


def _flags(config_dir: str | os.PathLike[str] | None) -> list[str]:
    return [] if config_dir is None else ["--config-dir", os.fspath(config_dir)]


def _called(mode: list[str], overrides: tuple[str, ...], config_dir: str | os.PathLike[str] | None) -> Any:
    """What came of a command line, with the process as it was before."""
    if wrong := [each for each in overrides if not isinstance(each, str) or each.startswith("-")]:
        raise HoldfastError(f"{wrong[0]!r} is no override: give texts such as 'lr=0.01'; flags are arguments here.")
    from holdfast.cli.main import CONF
    from holdfast.compose import app

    with _ONE_AT_A_TIME, _process_restored():
        return app.run([*mode, *_flags(config_dir), *overrides], CONF)


@contextmanager
def _process_restored() -> Iterator[None]:
    """Leave the process as it was: folder, arguments, environment, import path, log handlers, generators, threads."""
    from holdfast.runtime.isolation import isolated
    from holdfast.single.startup import import_training

    import_training()
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
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
