"""The keys of `hydra/launcher=slurm`, checked before anything is written or submitted."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from holdfast.errors import Problem

_TIME = re.compile(r"(\d+-)?\d+(:\d+){0,2}")
_MEMORY = re.compile(r"\d+(\.\d+)?[KMGT]?B?", re.IGNORECASE)
_OPTION = re.compile(r"[a-z][a-z0-9_-]*")

_SET_HERE = frozenset(
    {"array", "output", "error", "open-mode", "job-name", "nodes", "ntasks", "ntasks-per-node", "wrap", "parsable"}
    | {"input", "wait", "test-only", "export", "gpus-per-task", "gpus-per-node"}
)
"""Options of sbatch that Holdfast sets itself, or that would break what it relies on."""


class SlurmKeys(NamedTuple):
    """Keys of `hydra.launcher`; None leaves a value to the cluster.

    Attributes:
        partition: where the elements run.
        time: limit of an element: minutes, or a text such as `2:00:00` or `1-12:00:00`.
        gpus_per_task: GPUs of a process.
        cpus_per_task: cores of a process.
        mem: memory of a node that an element may use, such as `8GB`.
        array_parallelism: elements of an array that run at once.
        setup: lines of shell that run in an element before its work.
        additional: a mapping of further options of sbatch, by name.
        wait: whether to wait for the elements.
    """

    partition: str | None = None
    time: int | str | None = None
    gpus_per_task: int | None = None
    cpus_per_task: int | None = None
    mem: str | None = None
    array_parallelism: int = 256
    setup: Sequence[str] = []
    additional: Any = {}  # noqa: RUF012  (nothing writes to it)
    wait: bool = True


def check_slurm_keys(keys: SlurmKeys) -> list[Problem]:
    """What is wrong with the keys, each with a lesson.

    >>> for problem in check_slurm_keys(SlurmKeys(time="soon", mem="8 gigs", additional={"array": "0-9"})):
    ...     print(problem.override, "-", problem.lesson)
    hydra.launcher.time=soon - must be minutes, or a text such as 2:00:00 or 1-12:00:00
    hydra.launcher.mem=8 gigs - must be a size such as 8GB
    hydra.launcher.additional.array=0-9 - is set by Holdfast: leave it out
    """
    problems = [
        Problem(f"hydra.launcher.{name}={getattr(keys, name)}", lesson)
        for name, (is_valid, lesson) in _RULES.items()
        if not is_valid(getattr(keys, name))
    ]
    if not isinstance(keys.additional, Mapping):
        return [*problems, Problem(f"hydra.launcher.additional={keys.additional}", "must be a mapping of options")]
    for option, value in keys.additional.items():
        if lesson := _lesson(option, value):
            problems.append(Problem(f"hydra.launcher.additional.{option}={value}", lesson))
    return problems


def check_installation() -> list[Problem]:
    """What this computer lacks to submit jobs to SLURM."""
    problems = []
    if importlib.util.find_spec("submitit") is None:
        problems.append(Problem("hydra/launcher=slurm", "needs submitit: pip install 'holdfast[slurm]'"))
    if missing := [name for name in ("sbatch", "squeue") if shutil.which(name) is None]:
        lesson = f"there is no {' and no '.join(missing)} here: start it where jobs are submitted to SLURM"
        problems.append(Problem("hydra/launcher=slurm", lesson))
    return problems


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_line(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "\n" not in value


def _is_time(value: Any) -> bool:
    return value is None or _is_count(value, 1) or (isinstance(value, str) and bool(_TIME.fullmatch(value)))


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "partition": (lambda value: value is None or _is_line(value), "must be the name of a partition, as in sinfo"),
    "time": (_is_time, "must be minutes, or a text such as 2:00:00 or 1-12:00:00"),
    "gpus_per_task": (lambda value: value is None or _is_count(value, 0), "must be a number of GPUs from 0 on"),
    "cpus_per_task": (lambda value: value is None or _is_count(value, 1), "must be a number of cores from 1 on"),
    "mem": (
        lambda value: value is None or (isinstance(value, str) and bool(_MEMORY.fullmatch(value))),
        "must be a size such as 8GB",
    ),
    "array_parallelism": (lambda value: _is_count(value, 1), "must be a number of elements from 1 on"),
    "setup": (
        lambda value: isinstance(value, (list, tuple)) and all(map(_is_line, value)),
        "must be a list of lines of shell, such as ['module load cuda']",
    ),
    "wait": (lambda value: isinstance(value, bool), "must be true or false"),
}


def _lesson(option: Any, value: Any) -> str | None:
    """What is wrong with a further option of sbatch; None where nothing is."""
    if not isinstance(option, str) or not _OPTION.fullmatch(option):
        return "must be the long name of an option of sbatch, such as account"
    name = option.replace("_", "-")
    if name in _SET_HERE:
        return "is set by Holdfast: leave it out"
    if name in ("partition", "time", "cpus-per-task", "mem"):
        return f"has a key of its own: hydra.launcher.{name.replace('-', '_')}"
    is_plain = isinstance(value, (str, int, float)) and "\n" not in str(value)
    return None if is_plain else "must be a text, a number, or true"
