"""Training one job on several devices of this computer, in processes of their own."""

from __future__ import annotations

import logging
import signal
from typing import Any

from holdfast.config.job import JobSpec
from holdfast.execute.process_group import Failure, ProcessGroup
from holdfast.execute.shown_error import ProcessError, error_from_plain
from holdfast.store.folders import RunFolder
from holdfast.store.result import Result


def train_apart(job: JobSpec, folder: RunFolder, count: int, *, progress: bool = False) -> Result:
    """Train one job in processes of its own, one a device, and wait for them.

    Whatever happens to them, this process goes on, and leaves none of them behind; they end with it, if it is killed.

    Args:
        job: what to train, its folder filled in.
        folder: the folder of the run.
        count: number of processes.
        progress: whether to draw a progress bar.

    Raises:
        ProcessError: a process has failed or died; `result.json` says so.
        Stopped: a signal has stopped this process; the run can be resumed.
    """
    from holdfast.single.trainer import record_failure

    task = {
        "job": job,
        "folder": folder.path.absolute(),
        "progress": progress,
        "levels": _log_levels(),
        "hydra": _hydra_config(),
    }
    with ProcessGroup(count, task, f"holdfast: {folder.path}") as group:
        try:
            failure = group.wait()
        except KeyboardInterrupt:
            group.stop()
            raise
    result = folder.read()
    if failure is None and result is not None and result.config_hash == job.config_hash:
        return result
    error = _error(failure)
    record_failure(job, folder, str(error))
    raise error


def _error(failure: Failure | None) -> ProcessError:
    """The error of processes that have left no result."""
    if failure is None:
        return ProcessError("the processes of the run have ended, and left no result")
    code = failure.code or 0
    if failure.report is not None and code >= 0:
        return error_from_plain(failure.report)
    name, number = f"the process of rank {failure.rank}", -code if code < 0 else code - 128
    if number == signal.SIGKILL:
        return ProcessError(f"{name} was killed by SIGKILL, as a system does where memory runs out")
    if number in signal.valid_signals():
        return ProcessError(f"{name} was ended by {signal.Signals(number).name}")
    return ProcessError(f"{name} ended with exit code {code}")


def _log_levels() -> dict[str, int]:
    """The levels that were set for loggers, by name; "" is the root."""
    loggers = {name: each for name, each in logging.root.manager.loggerDict.items() if isinstance(each, logging.Logger)}
    levels = {name: each.level for name, each in loggers.items() if each.level}
    return {"": logging.root.level, **levels}


def _hydra_config() -> str | None:
    """Hydra's configuration of the run as YAML; None where Hydra has not started it."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    config: Any = HydraConfig.instance().cfg
    return None if config is None else OmegaConf.to_yaml(config)
