"""The processes that train one run together, and the rank of this one among them.

Lightning reads this from environment variables, which may be left over from anything: a shell in an allocation of
SLURM, a container, another program's launcher. Here they count only where they fit the devices of the configuration.
All others are removed, which has to happen before Lightning is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

from holdfast.config.schema import Config

Starter = Literal["Holdfast", "torchrun", "SLURM"]

_ADDRESS = frozenset({"MASTER_ADDR", "MASTER_PORT"})
_VARIABLES: dict[Starter, frozenset[str]] = {
    "Holdfast": _ADDRESS | {"LOCAL_RANK", "NODE_RANK", "WORLD_SIZE"},
    "torchrun": _ADDRESS
    | {"RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"}
    | {"TORCHELASTIC_USE_AGENT_STORE"},  # torch itself reads this one
    "SLURM": _ADDRESS | {"SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"},
}
"""The variables that Lightning reads, by what started its process."""

_LSF = frozenset({"JSM_NAMESPACE_RANK", "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_SIZE"})
_ALL = _LSF.union(*_VARIABLES.values())


class Launch(NamedTuple):
    """The processes that train one run together.

    Attributes:
        starter: what started this process for the run; None if the run has one process.
        rank: number of this process among those of the run; only rank 0, the leader, writes files.
        name: display name of a launch whose processes were all started from outside; empty for any other.
    """

    starter: Starter | None = None
    rank: int = 0
    name: str = ""


_current = Launch()


def current() -> Launch:
    """The launch that this process has entered; by default one of a single process."""
    return _current


def is_leader() -> bool:
    """Whether this process is the one of its run that writes files."""
    return _current.rank == 0


@contextmanager
def entered(config: Config) -> Iterator[Launch]:
    """Find out which launch this process belongs to, and keep only the environment variables of that launch.

    Args:
        config: configuration of the run.
    """
    with _entered(_launch_of(config)) as launch:
        if launch.starter == "SLURM":
            # `srun -n` does not set it, but Lightning requires it
            os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(_devices_per_node(config)))
        yield launch


@contextmanager
def single_process() -> Iterator[None]:
    """Be a launch of one process, such as a sweep, whatever the environment variables say."""
    with _entered(Launch()):
        yield


def is_started_by_holdfast() -> bool:
    """Whether another process of Holdfast's has started this one as one of several, and watches it."""
    return _current.starter == "Holdfast"


@contextmanager
def joined(rank: int, processes: int, port: int) -> Iterator[Launch]:
    """Be one of the processes that Holdfast has started on this computer for one run.

    Args:
        rank: number of this process among them.
        processes: how many they are.
        port: where they meet, on the address of this computer itself.
    """
    with _entered(Launch("Holdfast", rank)) as launch:
        os.environ.update(
            LOCAL_RANK=str(rank),
            NODE_RANK="0",
            WORLD_SIZE=str(processes),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        yield launch


@contextmanager
def _entered(launch: Launch) -> Iterator[Launch]:
    outer, environment = _current, dict(os.environ)
    for name in _ALL - _VARIABLES[launch.starter] if launch.starter else _ALL:
        os.environ.pop(name, None)
    _set(launch)
    try:
        yield launch
    finally:
        os.environ.clear()
        os.environ.update(environment)
        _set(outer)


def _set(launch: Launch) -> None:
    global _current  # noqa: PLW0603  (a process has one)
    _current = launch
    # Lightning, where it is imported already, has read its rank from the environment variables
    if rank_zero := sys.modules.get("lightning_utilities.core.rank_zero"):
        rank_zero.rank_zero_only.rank = launch.rank


def _launch_of(config: Config) -> Launch:
    processes = (_devices_per_node(config) or 0) * config.trainer.num_nodes
    if processes < 2:
        return Launch()
    rank, local_rank = _number("RANK"), _number("LOCAL_RANK")
    if "TORCHELASTIC_RUN_ID" in os.environ and None not in (rank, local_rank) and _number("WORLD_SIZE") == processes:
        return Launch("torchrun", rank or 0, _name("torchrun", "TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT"))
    task = [_number(name) for name in ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")]
    # Lightning takes jobs of these names for shells, not for tasks
    shell = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    if None not in task and not shell and _number("SLURM_NTASKS") == processes:
        return Launch("SLURM", task[0] or 0, _name("SLURM job", "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"))
    return Launch()


def _devices_per_node(config: Config) -> int | None:
    """The number of devices of one computer that a configuration asks for; None for `auto`."""
    if config.devices == "auto":
        return None
    return len(config.devices) if isinstance(config.devices, list) else config.devices


def _name(starter: str, *variables: str) -> str:
    return f"{starter} {'.'.join(filter(None, map(os.environ.get, variables)))}"


def _number(variable: str) -> int | None:
    text = os.environ.get(variable, "")
    return int(text) if text.isascii() and text.isdecimal() else None
