"""A Ray cluster of several nodes on this computer, for tests."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

RAY = "hydra/launcher=ray"
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AUTH_MODE": "disabled",  # the file with the token would lie in the user's home
    # how soon a node counts as dead that does not answer
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


@contextmanager
def environment(changes: dict[str, str]) -> Iterator[None]:
    """Set environment variables for a while."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in changes.items():
            patch.setenv(name, value)
        yield


@contextmanager
def cluster(*nodes: dict[str, Any]) -> Iterator[Any]:
    """A cluster whose head has no cores, and a node for each mapping of resources, such as `{"num_cpus": 1}`."""
    pytest.importorskip("ray", reason="needs the extra ray")
    from ray.cluster_utils import Cluster

    with environment(_SETTINGS), warnings.catch_warnings():
        started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            for node in nodes:
                started.add_node(**node)
            yield started
        finally:
            import ray

            ray.shutdown()
            started.shutdown()


def words_for(started: Any, **keys: Any) -> list[str]:
    """The words of a command line whose sweep runs on a cluster."""
    return [RAY, f"hydra.launcher.address={started.address}", *(f"hydra.launcher.{k}={v}" for k, v in keys.items())]


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def descendants(pid: int) -> set[int]:
    """The processes that a process has started, and those that they have started."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    reached, waiting = set[int](), [pid]
    while waiting:
        for child in children.get(waiting.pop(), []):
            reached.add(child)
            waiting.append(child)
    return reached - {os.getpid()}


def alive(pid: int) -> bool:
    """Whether a process runs, and is not just waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
