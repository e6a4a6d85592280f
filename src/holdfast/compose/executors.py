"""What trains the jobs of a sweep, by the launcher that was chosen: this process, worker processes, or Hydra's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from holdfast.clusters.ray_keys import RayKeys, check_ray_keys
from holdfast.clusters.slurm_keys import SlurmKeys, check_installation, check_slurm_keys
from holdfast.compose.environment import SweepEnvironment
from holdfast.compose.launchers import HydraLauncher
from holdfast.config.job import JobSpec
from holdfast.errors import ConfigError, Problem
from holdfast.execute.alone import train_job
from holdfast.execute.here import Here
from holdfast.execute.work import Executor, Outcome, Progress
from holdfast.store.folders import RunFolder, SweepFolder
from holdfast.sweeps.keep import MOST_WITH_EVENTS
from holdfast.sweeps.spec import SweepSpec, Tools
from holdfast.workers.worker_slots import check_workers

if TYPE_CHECKING:
    from holdfast.clusters.ray_pool import RayPool
    from holdfast.clusters.slurm_executor import SlurmExecutor
    from holdfast.workers.pool import Pool, PoolSetting

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
        self._elsewhere: SlurmExecutor | RayPool | Pool | None = None  # the executor, where it is not this process
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
        keeps_events = len(self._spec.jobs) <= MOST_WITH_EVENTS
        environment = SweepEnvironment(self._context, config, folder, keeps_events=keeps_events)

        def train_apart(job: JobSpec, run: RunFolder) -> Outcome:
            return environment.train(job, lambda filled: train_job(filled, run), run.path.name)

        if not self._spec.stacked:
            return Tools(HydraLauncher(self._launcher, folder, progress), lambda job: {}, train_apart)
        advises = not uses_workers(self._launcher)
        here = Here(environment, train_job, folder.job, environment, progress, advises=advises)
        return Tools(self._make_executor(environment, folder, here, progress), environment.hydra_files, train_apart)

    def close(self) -> None:
        """End all workers, or say what a cluster goes on with."""
        if self._elsewhere is not None:
            self._elsewhere.close()

    def _make_executor(
        self, environment: SweepEnvironment, folder: SweepFolder, here: Here, progress: Progress
    ) -> Executor:
        """What does the works: this process, worker processes, or a cluster."""
        slurm, ray = slurm_keys(self._launcher), ray_keys(self._launcher)
        if slurm is None and not uses_workers(self._launcher):
            return here
        from holdfast.sweeps.resume import code_of_jobs

        code = code_of_jobs([job.config for job in self._spec.jobs])
        if slurm is not None:
            from holdfast.clusters.slurm_executor import SlurmExecutor

            self._elsewhere = SlurmExecutor(environment, folder, slurm, code, progress)
        elif ray is not None:
            from holdfast.clusters.ray_pool import RayPool

            self._elsewhere = RayPool(environment, folder, ray, code, here=here, progress=progress)
        else:
            from holdfast.workers.pool import Pool

            self._elsewhere = Pool(environment, folder, self._setting_of_workers(code), here, progress)
        return self._elsewhere

    def _setting_of_workers(self, code: Mapping[str, str]) -> PoolSetting:
        import os

        from holdfast.runtime.devices import device_counts
        from holdfast.sweeps.works import uses_gpus
        from holdfast.workers.pool import PoolSetting
        from holdfast.workers.worker_slots import visible_gpus

        has_gpus = uses_gpus([job.config for job in self._spec.jobs])
        gpus = visible_gpus(device_counts()["cuda"], os.environ) if has_gpus else []
        launcher: Any = self._launcher
        return PoolSetting(check_workers(launcher.workers), gpus, bool(launcher.fresh), code)


def uses_workers(launcher: Launcher) -> bool:
    """Whether a launcher stands for worker processes, here or on a Ray cluster."""
    # Hydra may have loaded its plugins anew, so that a class imported earlier would be another one
    from hydra_plugins.holdfast.launcher import ProcessesLauncher, RayLauncher

    return isinstance(launcher, (ProcessesLauncher, RayLauncher))


def ray_keys(launcher: Launcher) -> RayKeys | None:
    """The keys of a launcher that stands for a Ray cluster; None for any other launcher."""
    from hydra_plugins.holdfast.launcher import RayLauncher

    return RayKeys(**_plain(launcher.keys)) if isinstance(launcher, RayLauncher) else None


def slurm_keys(launcher: Launcher) -> SlurmKeys | None:
    """The keys of a launcher that stands for SLURM; None for any other launcher."""
    from hydra_plugins.holdfast.launcher import SlurmLauncher

    return SlurmKeys(**_plain(launcher.keys)) if isinstance(launcher, SlurmLauncher) else None


def _plain(keys: Mapping[str, Any]) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(OmegaConf.create(dict(keys)), resolve=True)
    return dict(plain)


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
