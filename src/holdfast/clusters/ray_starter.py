"""Places workers on the nodes of a Ray cluster, and refuses those that would compute something else."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError, RuntimeEnvSetupError

from holdfast.clusters.ray_calls import get, ready
from holdfast.clusters.ray_handle import RayHandle
from holdfast.clusters.ray_keys import RayKeys
from holdfast.clusters.ray_sources import Sources
from holdfast.clusters.ray_worker import RayWorker
from holdfast.errors import ClusterError
from holdfast.store.versions import versions

MOST_FAILURES = 3
"""How many workers may end one after another before they have begun, as on nodes that are removed meanwhile."""


class Candidate(NamedTuple):
    """A worker that has not begun.

    Attributes:
        actor: Ray's handle of it.
        placed: Ray's reference that is ready once the worker has found room.
    """

    actor: Any
    placed: Any


class RayStarter:
    """Starts workers on the nodes.

    Args:
        keys: what a worker needs.
        sources: the user's modules.
        runtime_env: what Ray prepares for each worker, where it does not do so for the whole driver.
    """

    def __init__(self, keys: RayKeys, sources: Sources, runtime_env: Mapping[str, Any]) -> None:
        self._keys = keys
        environment = {"runtime_env": dict(runtime_env)} if runtime_env else {}
        self._class = ray.remote(RayWorker).options(
            num_cpus=keys.cpus_per_worker, num_gpus=keys.gpus_per_worker, max_restarts=0, **environment
        )
        self._setting = json.dumps({"cwd": os.getcwd(), "hides_gpus": not keys.gpus_per_worker})
        self._sources = ray.put(sources.as_text())
        self._waiting: dict[Any, Candidate] = {}  # by the reference of their first words
        self._begun: list[RayHandle] = []
        self._since = time.monotonic()  # of the wait
        self._failures = 0
        self._is_short = False  # whether the user knows that workers wait

    def start(self, gpu: str | None, count: int) -> RayHandle | None:
        """A worker that has begun; None where all others still wait for room, or import what they need.

        Args:
            gpu: no matter: Ray chooses the GPU.
            count: the number of workers for which there are works.

        Raises:
            ClusterError: no worker has found room in time, or one cannot do the works.
        """
        self._begun = [worker for worker in self._begun if worker.is_alive]
        if not self._waiting:
            self._since = time.monotonic()
        while len(self._begun) + len(self._waiting) < count:
            actor: Any = self._class.remote(self._setting, self._sources)
            self._waiting[actor.hello.remote()] = Candidate(actor, actor.__ray_ready__.remote())
        for first_words in ready(list(self._waiting)):
            if worker := self._greeted(first_words, self._waiting.pop(first_words).actor):
                self._begun.append(worker)
                return worker
        if time.monotonic() - self._since > self._keys.placement_timeout:
            self._look_for_room(count)
        return None

    def wait(self, workers: Sequence[Any], seconds: float) -> None:
        """Wait until a worker has sent a message, has ended or has begun, or some time has passed."""
        ready([*(sign for worker in workers for sign in worker.signs), *self._waiting], seconds)

    def close(self) -> None:
        """Give up the workers that have not begun."""
        for candidate in self._waiting.values():
            ray.kill(candidate.actor)
        self._waiting.clear()

    def _greeted(self, first_words: Any, actor: Any) -> RayHandle | None:
        """The worker that has said its first words; None where it, or its node, is gone.

        Raises:
            ClusterError: it cannot do the works.
        """
        try:
            hello = json.loads(get(first_words))
        except RuntimeEnvSetupError as error:
            reason = _last_line(error)
            raise ClusterError(f"Ray cannot prepare hydra.launcher.runtime_env on a node: {reason}") from None
        except RayError as error:
            self._failures += 1
            lacks_something = any(name in str(error) for name in ("ImportError", "ModuleNotFoundError", "WorkerError"))
            if lacks_something or self._failures >= MOST_FAILURES:
                raise ClusterError(
                    f"a worker cannot begin on a node of the Ray cluster: {_last_line(error)}\n"
                    "Install there what is installed here: the same versions of Holdfast, and what your modules import"
                ) from None
            return None
        if lines := differing(versions(), hello["versions"]):
            raise ClusterError(
                f"the node {hello['node']} has other versions than this computer, so that its numbers might differ:\n"
                + "".join(f"  {line}\n" for line in lines)
                + "Install the same versions on all nodes and here"
            )
        if hello["died"]:
            self._failures += 1
            ray.kill(actor)
            if self._failures < MOST_FAILURES:
                return None
            raise ClusterError(
                f"the worker process on the node {hello['node']} ended ({hello['died']}) before it had imported torch "
                "and Lightning; Ray's log of it there says why"
            )
        self._failures = 0
        return RayHandle(actor, hello["node"])

    def _look_for_room(self, count: int) -> None:
        """Say that workers have not found room in time.

        Raises:
            ClusterError: none has.
        """
        candidates = list(self._waiting.values())
        placed = len(ready([each.placed for each in candidates], most=len(candidates)))
        if not self._begun and not placed:
            raise ClusterError(
                f"no worker has found room in the Ray cluster within {self._keys.placement_timeout:g} s "
                f"(hydra.launcher.placement_timeout). A worker needs {self._needs()}, and\n"
                + "".join(f"  {line}\n" for line in room_lines())
                + "Ask for less by hydra.launcher.cpus_per_worker and gpus_per_worker, or wait until others are done"
            )
        if not self._is_short and placed < len(candidates):
            self._is_short = True
            print(
                f"{len(self._begun) + placed} of {count} workers have found room; the others begin when there is some",
                flush=True,
            )

    def _needs(self) -> str:
        cpus, gpus = self._keys.cpus_per_worker, self._keys.gpus_per_worker
        wanted = [(cpus, "CPU"), (gpus, "GPU")] if gpus else [(cpus, "CPU")]
        return " and ".join(f"{number:g} {name}{'' if number == 1 else 's'}" for number, name in wanted)


def differing(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """A line for each version that would make a difference.

    Of Python the first two numbers matter; torch may be built for other devices.

    >>> differing({"python": "3.11.7", "torch": "2.9.0+cpu"}, {"python": "3.11.2", "torch": "2.9.0+cu128"})
    []
    >>> differing({"python": "3.11.7", "torch": "2.9.0"}, {"python": "3.12.1", "torch": "2.8.0"})
    ['python is 3.12.1 there and 3.11.7 here', 'torch is 2.8.0 there and 2.9.0 here']
    """

    def relevant(name: str, version: str) -> str:
        return version.rpartition(".")[0] if name == "python" else version.partition("+")[0]

    return [
        f"{name} is {there.get(name, 'missing')} there and {version} here"
        for name, version in here.items()
        if relevant(name, there.get(name, "missing")) != relevant(name, version)
    ]


def room(keys: RayKeys) -> int:
    """The number of workers for which the nodes of the cluster have room, if nobody else uses them; at least 1."""
    total = 0
    for node in _nodes():
        by_cpus = int(node.get("CPU", 0) / keys.cpus_per_worker)
        by_gpus = int(int(node.get("GPU", 0)) * int(1 / keys.gpus_per_worker)) if keys.gpus_per_worker else by_cpus
        total += min(by_cpus, by_gpus)
    return max(1, total)


def room_lines() -> list[str]:
    """A line for each kind of node."""
    kinds: dict[str, int] = {}
    for node in _nodes():
        line = f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs"
        kinds[line] = kinds.get(line, 0) + 1
    lines = [f"{number} node{'s have' if number > 1 else ' has'} {line}" for line, number in kinds.items()]
    free: Mapping[str, float] = ray.available_resources()
    return [*lines, f"free at present, of all nodes: {free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs"]


def _nodes() -> list[Mapping[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _last_line(error: Exception) -> str:
    return [line.strip() for line in str(error).splitlines() if line.strip()][-1]
