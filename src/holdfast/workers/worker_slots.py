"""How many worker processes a sweep gets, and which GPU each of them sees."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from holdfast.errors import ConfigError, Problem
from holdfast.runtime.cores import core_count

KEY = "hydra.launcher.workers"


def check_workers(workers: Any) -> int | Literal["auto"]:
    """The value of `hydra.launcher.workers`.

    Raises:
        ConfigError: it is neither `auto` nor a number of processes.
    """
    if workers == "auto":
        return "auto"
    if isinstance(workers, int) and not isinstance(workers, bool) and workers >= 1:
        return workers
    raise ConfigError([Problem(f"{KEY}={workers}", "must be auto, or a number of processes from 1 on")])


def visible_gpus(count: int, environment: Mapping[str, str]) -> list[str]:
    """What `CUDA_VISIBLE_DEVICES` is for each GPU that this process may use.

    Args:
        count: number of GPUs that torch finds.
        environment: environment variables.

    >>> visible_gpus(2, {}), visible_gpus(2, {"CUDA_VISIBLE_DEVICES": "3,GPU-5a"}), visible_gpus(0, {})
    (['0', '1'], ['3', 'GPU-5a'], [])
    """
    given = environment.get("CUDA_VISIBLE_DEVICES")
    names = re.split(r"\s*,\s*", given.strip()) if given else [str(number) for number in range(count)]
    return names[:count]


def slots(workers: int | Literal["auto"], works: int, gpus: list[str]) -> list[str | None]:
    """The GPU of each worker process; None where it is left as it is.

    Args:
        workers: as asked for; more than there are GPUs share them.
        works: number of works.
        gpus: those that the sweep uses, as `CUDA_VISIBLE_DEVICES` names them; empty if it uses none.

    >>> slots("auto", 10, ["0", "1"]), slots(3, 10, ["0", "1"]), slots(4, 2, [])
    (['0', '1'], ['0', '1', '0'], [None, None])
    """
    wanted = (len(gpus) or core_count()) if workers == "auto" else workers
    count = max(1, min(wanted, works))
    return [gpus[number % len(gpus)] if gpus else None for number in range(count)]
