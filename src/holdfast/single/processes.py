"""Which process of its run this one is: a run of its own, or one of several that train a run together.

Lightning takes this from variables of the environment, and they may be left over from anything: a shell in an
allocation of SLURM, a container, another program's launcher. Here they count only where they fit the devices that the
configuration asks for. All others are removed, which has to happen before Lightning is imported.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from holdfast.config.commands import quoted
from holdfast.config.schema import Config

COMMAND = "HOLDFAST_COMMAND"
"""Holds, for the processes that Lightning starts for more devices, the overrides of their run as a JSON list."""

MARK = "HOLDFAST_LAUNCHED"
"""Names, for the processes that Lightning starts for more devices, the folder of the run they belong to."""

Starter = Literal["Holdfast", "torchrun", "SLURM"]

_ADDRESS = frozenset({"MASTER_ADDR", "MASTER_PORT"})
_READ: dict[Starter, frozenset[str]] = {
    "Holdfast": _ADDRESS | {"LOCAL_RANK", "NODE_RANK", "WORLD_SIZE"},
    "torchrun": _ADDRESS
    | {"RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"},
    "SLURM": _ADDRESS | {"SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"},
}
"""What Lightning reads where one of these has started it."""

_LSF = frozenset({"JSM_NAMESPACE_RANK", "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_SIZE"})
_ALL = _LSF.union({MARK, COMMAND}, *_READ.values())


class Launch(NamedTuple):
    """The processes that train one run.

    Attributes:
        starter: what started this process; None where it is a run of its own.
        rank: the number of this process among those of the run; number 0 leads, and alone writes files.
        name: of a launch whose processes were all started from outside, the same in each of them; otherwise empty.
    """

    starter: Starter | None = None
    rank: int = 0
    name: str = ""


_present = Launch()


def present() -> Launch:
    """The launch that this process has entered; a run of its own where it has entered none."""
    return _present


@contextmanager
def entered(config: Config, folder: Path) -> Iterator[Launch]:
    """Be one of the processes of a run, with the variables of its launch alone.

    Args:
        config: the run's.
        folder: the run's.
    """
    with _entered(_launch_of(config, folder)) as launch:
        if launch.starter == "SLURM":
            # `srun -n` does not set it, and Lightning will not work without
            os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(count(config)))
        yield launch


@contextmanager
def alone() -> Iterator[None]:
    """Be a process of its own, such as a sweep, whatever the environment says."""
    with _entered(Launch()):
        yield


@contextmanager
def starting(folder: Path, words: Sequence[str]) -> Iterator[None]:
    """Let the processes that Lightning starts for more devices join this run.

    Args:
        folder: the folder of the run.
        words: flags and overrides of the run. Lightning repeats the command line of this process, which may be that of
            a sweep.
    """
    os.environ[MARK], os.environ[COMMAND] = os.path.realpath(folder), json.dumps([*words])
    try:
        yield
    finally:
        for name in (MARK, COMMAND):
            os.environ.pop(name, None)


def inherited_command(words: list[str]) -> list[str]:
    """The command line of this process: that of its run where Lightning has started it as one of several.

    Args:
        words: what follows the program's name. Lightning adds the folder of the run, the name of the process, and
            that it writes no `.hydra/`.
    """
    rank = os.environ.get("LOCAL_RANK")
    added = [f"hydra.job.name=train_ddp_process_{rank}", "hydra.output_subdir=null"]
    if words[-2:] != added or not {MARK, COMMAND} <= os.environ.keys():
        return words
    return [*json.loads(os.environ[COMMAND]), f"hydra.run.dir={quoted(Path(os.environ[MARK]))}", *added]


def count(config: Config) -> int | None:
    """How many devices of one machine a configuration asks for; None where that is up to the machine."""
    if config.devices == "auto":
        return None
    return len(config.devices) if isinstance(config.devices, list) else config.devices


@contextmanager
def _entered(launch: Launch) -> Iterator[Launch]:
    before, environment = _present, dict(os.environ)
    for name in _ALL - _READ[launch.starter] if launch.starter else _ALL:
        os.environ.pop(name, None)
    _set(launch)
    try:
        yield launch
    finally:
        os.environ.clear()
        os.environ.update(environment)
        _set(before)


def _set(launch: Launch) -> None:
    global _present  # noqa: PLW0603  (a process has one)
    _present = launch
    if imported := sys.modules.get("lightning_utilities.core.rank_zero"):  # which looked at the environment itself
        imported.rank_zero_only.rank = launch.rank


def _launch_of(config: Config, folder: Path) -> Launch:
    devices = count(config)
    local = _number("LOCAL_RANK")
    marked = folder.is_dir() and os.environ.get(MARK) == os.path.realpath(folder)  # the first process has made it
    if marked and local and devices != 1:
        return Launch("Holdfast", local)
    processes = (devices or 0) * config.trainer.num_nodes
    if processes < 2:
        return Launch()
    rank = _number("RANK")
    if "TORCHELASTIC_RUN_ID" in os.environ and None not in (rank, local) and _number("WORLD_SIZE") == processes:
        return Launch("torchrun", rank or 0, _name("torchrun", "TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT"))
    task = [_number(name) for name in ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")]
    shell = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")  # Lightning takes these for shells, not tasks
    if None not in task and not shell and _number("SLURM_NTASKS") == processes:
        return Launch("SLURM", task[0] or 0, _name("SLURM job", "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"))
    return Launch()


def _name(starter: str, *names: str) -> str:
    return f"{starter} {'.'.join(filter(None, map(os.environ.get, names)))}"


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() else None
