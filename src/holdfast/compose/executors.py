"""What trains the jobs of a sweep, by the launcher that was chosen: this process, worker processes, or Hydra's."""

from __future__ import annotations

from typing import Any

from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from holdfast.clusters.ray_keys import RayKeys, check_ray_keys
from holdfast.clusters.slurm_keys import SlurmKeys, check_installation, check_slurm_keys
from holdfast.compose.environment import SweepEnvironment
from holdfast.compose.launchers import HydraLauncher
from holdfast.errors import ConfigError, Problem
from holdfast.execute.alone import train_job
from holdfast.execute.here import Here
from holdfast.execute.work import Progress
from holdfast.store.folders import SweepFolder
from holdfast.sweeps.keep import MOST_WITH_EVENTS
from holdfast.sweeps.spec import SweepSpec, Tools
from holdfast.workers.worker_slots import check_workers

THREADS_OF_WORKERS = 1
"""Threads of a work in a worker process, whatever the number of workers: the same command gives the same bits."""


class Executors:
    """Makes what a sweep works with, and ends it.

    Args:
        context: our loader and Hydra's callbacks.
        config: the configuration of the sweep.
        launcher: the launcher that is chosen.
        spec: the sweep.
    """

    def __init__(self, context: HydraContext, config: DictConfig, launcher: Launcher, spec: SweepSpec) -> None:
        self._context, self._config, self._launcher, self._spec = context, config, launcher, spec
        self._pool: Any = None
        if uses_workers(launcher) and ray_keys(launcher) is None:
            from holdfast.workers.worker_handle import start_server

            start_server()  # imports what the workers need while this process does the same

    def make_tools(self, folder: SweepFolder, progress: Progress) -> Tools:
        """What the sweep works with, once its folder is claimed and `sweep.json` is written."""
        config = self._config
        with read_write(config.hydra.sweep), open_dict(config.hydra.sweep):
            config.hydra.sweep.dir = str(folder.path)
        if not folder.hydra.exists():
            OmegaConf.save(config, folder.hydra)
        if not self._spec.stacked:
            return Tools(HydraLauncher(self._launcher, folder, progress), lambda job: {})
        keeps_events = len(self._spec.jobs) <= MOST_WITH_EVENTS
        environment = SweepEnvironment(self._context, config, folder, keeps_events=keeps_events)
        if (keys := slurm_keys(self._launcher)) is not None:
            from holdfast.clusters.slurm_executor import SlurmExecutor
            from holdfast.sweeps.resume import code_of_jobs

            code = code_of_jobs([job.config for job in self._spec.jobs])
            self._pool = SlurmExecutor(environment, folder, keys, code, progress)
            return Tools(self._pool, environment.hydra_files)
        workers = uses_workers(self._launcher)
        here = Here(environment, train_job, folder.job, environment, progress, advises=not workers)
        if not workers:
            return Tools(here, environment.hydra_files)
        self._pool = self._make_pool(environment, folder, here, progress)
        return Tools(self._pool, environment.hydra_files)

    def close(self) -> None:
        """End all worker processes."""
        if self._pool is not None:
            self._pool.close()

    def _make_pool(self, environment: SweepEnvironment, folder: SweepFolder, here: Here, progress: Progress) -> Any:
        import os

        from holdfast.runtime.devices import device_counts
        from holdfast.sweeps.resume import code_of_jobs
        from holdfast.sweeps.works import uses_gpus
        from holdfast.workers.pool import Pool, PoolSetting
        from holdfast.workers.worker_slots import visible_gpus

        configs = [job.config for job in self._spec.jobs]
        if (keys := ray_keys(self._launcher)) is not None:
            from holdfast.clusters.ray_pool import RayPool

            return RayPool(environment, folder, keys, code_of_jobs(configs), here=here, progress=progress)
        gpus = visible_gpus(device_counts()["cuda"], os.environ) if uses_gpus(configs) else []
        workers = check_workers(self._launcher.workers)  # type: ignore[attr-defined]
        setting = PoolSetting(workers, gpus, bool(self._launcher.fresh), code_of_jobs(configs))  # type: ignore[attr-defined]
        return Pool(environment, folder, setting, here, progress)


def uses_workers(launcher: Launcher) -> bool:
    """Whether a launcher stands for worker processes, here or on a Ray cluster."""
    # Hydra may have loaded its plugins anew, so that a class imported earlier would be another one
    from hydra_plugins.holdfast.launcher import ProcessesLauncher, RayLauncher

    return isinstance(launcher, (ProcessesLauncher, RayLauncher))


def ray_keys(launcher: Launcher) -> RayKeys | None:
    """The keys of a launcher that stands for a Ray cluster; None for any other launcher."""
    from hydra_plugins.holdfast.launcher import RayLauncher

    if not isinstance(launcher, RayLauncher):
        return None
    plain: Any = OmegaConf.to_container(OmegaConf.create(launcher.keys), resolve=True)
    return RayKeys(**plain)


def slurm_keys(launcher: Launcher) -> SlurmKeys | None:
    """The keys of a launcher that stands for SLURM; None for any other launcher."""
    from hydra_plugins.holdfast.launcher import SlurmLauncher

    if not isinstance(launcher, SlurmLauncher):
        return None
    plain: Any = OmegaConf.to_container(OmegaConf.create(launcher.keys), resolve=True)
    return SlurmKeys(**plain)


def devices_elsewhere(launcher: Launcher) -> dict[str, int] | None:
    """The devices of each kind where a launcher trains jobs; None where they are those of this computer."""
    if (ray := ray_keys(launcher)) is not None:
        return {"tpu": 0, "mps": 0, "cuda": int(bool(ray.gpus_per_worker)), "cpu": 1}
    keys = slurm_keys(launcher)
    if keys is None:
        return None
    return {"tpu": 0, "mps": 0, "cuda": int(bool(keys.gpus_per_task)), "cpu": keys.cpus_per_task or 1}


def launcher_problems(launcher: Launcher) -> list[Problem]:
    """What is wrong with the keys of our launchers."""
    if (keys := ray_keys(launcher)) is not None:
        return check_ray_keys(keys)
    if (slurm := slurm_keys(launcher)) is not None:
        return check_slurm_keys(slurm) or check_installation()
    if uses_workers(launcher):
        try:
            check_workers(launcher.workers)  # type: ignore[attr-defined]
        except ConfigError as error:
            return list(error.problems)
    return []
