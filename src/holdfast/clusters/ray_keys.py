"""The keys of `hydra/launcher=ray`, checked before Ray is imported or started."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

from holdfast.errors import Problem

_ADDRESS = re.compile(r"([\w.-]+|\[[0-9a-fA-F:]+\]):\d{1,5}")


class RayKeys(NamedTuple):
    """Keys of `hydra.launcher`.

    Attributes:
        address: `HOST:PORT` of a cluster; `local` starts Ray on this computer; `auto` does so where no cluster runs.
        workers: number of workers; auto: as many as the cluster has room for.
        cpus_per_worker: cores that Ray reserves for a worker.
        gpus_per_worker: GPUs that Ray reserves for a worker; 0.5 lets two workers share one.
        retries: how often a work is tried again whose worker died.
        placement_timeout: seconds that Ray may take until the first worker runs, `runtime_env` included.
        runtime_env: what Ray prepares on the nodes, see Ray's runtime environments; None for nothing.
    """

    address: str = "auto"
    workers: int | Literal["auto"] = "auto"
    cpus_per_worker: float = 1
    gpus_per_worker: float = 0
    retries: int = 1
    placement_timeout: float = 120.0
    runtime_env: Mapping[str, Any] | None = None


def check_ray_keys(keys: RayKeys) -> list[Problem]:
    """What is wrong with the keys, and whether Ray is missing; each with a lesson.

    >>> for problem in check_ray_keys(RayKeys(address="ray://head:10001", gpus_per_worker=2, retries=-1)):
    ...     print(problem.override, "-", problem.lesson)
    hydra.launcher.address=ray://head:10001 - must be auto, local, or HOST:PORT as `ray start --head` prints it
    hydra.launcher.gpus_per_worker=2 - must be a number from 0 to 1: a worker trains on one GPU, or on a fraction of it
    hydra.launcher.retries=-1 - must be a number from 0 on
    """
    problems = [
        Problem(f"hydra.launcher.{name}={getattr(keys, name)}", lesson)
        for name, (is_valid, lesson) in _RULES.items()
        if not is_valid(getattr(keys, name))
    ]
    if find_spec("ray") is None:
        problems.append(Problem("hydra/launcher=ray", "needs Ray: pip install 'holdfast[ray]'"))
    return problems


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "address": (
        lambda value: value in ("auto", "local") or (isinstance(value, str) and bool(_ADDRESS.fullmatch(value))),
        "must be auto, local, or HOST:PORT as `ray start --head` prints it",
    ),
    "workers": (
        lambda value: value == "auto" or _is_count(value, 1),
        "must be auto, or a number of processes from 1 on",
    ),
    "cpus_per_worker": (
        lambda value: _is_number(value) and 0 < value < float("inf") and (value < 1 or value == int(value)),
        "must be a whole number from 1 on, or a fraction of a core such as 0.5",
    ),
    "gpus_per_worker": (
        lambda value: _is_number(value) and 0 <= value <= 1,
        "must be a number from 0 to 1: a worker trains on one GPU, or on a fraction of it",
    ),
    "retries": (lambda value: _is_count(value, 0), "must be a number from 0 on"),
    "placement_timeout": (
        lambda value: _is_number(value) and 0 < value < float("inf"),
        "must be a number of seconds above 0",
    ),
    "runtime_env": (
        lambda value: value is None or (isinstance(value, Mapping) and all(isinstance(key, str) for key in value)),
        "must be a mapping, such as {env_vars: {NAME: VALUE}}: see Ray's runtime environments",
    ),
}
