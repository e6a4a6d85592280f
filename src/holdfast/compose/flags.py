"""The flags of the command line that say where configurations lie."""

from __future__ import annotations

import sys
from argparse import Namespace
from functools import cache
from pathlib import Path

from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery

from holdfast.errors import ConfigError, Problem
from holdfast.store.started import is_in_run_or_sweep

PROJECT = Path("conf", "project.yaml")
"""The primary configuration of a project, in its folder."""


def search_path(arguments: Namespace, conf: Path, passed: Path | None = None) -> ConfigSearchPath:
    """Where config groups are looked for: in `--config-dir`, then in the folder of the primary configuration.

    Args:
        arguments: the flags of the command line.
        conf: the folder of the primary configuration, unless `--config-path` names another.
        passed: a folder with the options that were passed from Python.

    Raises:
        ConfigError: `--config-dir` is not a folder.
    """
    primary = Path(arguments.config_path) if arguments.config_path else conf
    path = create_config_search_path(f"file://{primary.resolve()}")
    if arguments.config_dir is not None:
        folder = Path(arguments.config_dir).resolve()
        if not folder.is_dir():
            raise ConfigError([Problem(f"--config-dir {arguments.config_dir}", "is not a folder")])
        path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
    if passed is not None:
        path.prepend("python", f"file://{passed}", SearchPathQuery(provider="schema"))
    return path


def in_project(arguments: Namespace) -> Namespace:
    """The flags of a command line; in the folder of a project those of the project, where none are typed.

    A project is a working folder with a file `conf/project.yaml`, as `holdfast new` makes it.
    """
    typed = (arguments.config_path, arguments.config_dir, arguments.config_name)
    if typed != (None, None, None) or is_in_run_or_sweep(Path.cwd()):
        return arguments
    if not PROJECT.is_file():
        if (project := next((each for each in Path.cwd().parents if (each / PROJECT).is_file()), None)) is not None:
            _note(project)
        return arguments
    return Namespace(**{**vars(arguments), "config_dir": str(PROJECT.parent), "config_name": PROJECT.stem})


@cache
def _note(project: Path) -> None:
    """Say once that a folder above is a project."""
    print(f"{project} is a project, whose configuration holds in that folder alone", file=sys.stderr)


def config_flags(arguments: Namespace) -> list[str]:
    """The flags of a command line that say where configurations lie, and their values."""
    flags = {
        "--config-path": arguments.config_path,
        "--config-dir": arguments.config_dir,
        "--config-name": arguments.config_name,
    }
    return [part for flag, value in flags.items() if value is not None for part in (flag, value)]
