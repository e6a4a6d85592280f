"""The executor that hands works to workers on a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from holdfast.clusters.ray_keys import RayKeys
from holdfast.clusters.ray_sources import collect
from holdfast.config.job import JobSpec
from holdfast.execute.work import Executor, Outcome, Progress, Work, WorkerEnvironment
from holdfast.store.folders import SweepFolder
from holdfast.workers.pool import Pool, PoolSetting


class RayPool:
    """Does works on a Ray cluster, which it joins or starts.

    Args:
        environment: Hydra's part of the jobs, which stays in this process.
        folder: folder of the sweep.
        keys: keys of `hydra.launcher`.
        code: digests of the user's modules, by the name of the module.
        here: does the works that are not for a worker: those on several devices.
        progress: shows epochs and the jobs that have ended.
    """

    def __init__(
        self,
        environment: WorkerEnvironment,
        folder: SweepFolder,
        keys: RayKeys,
        code: Mapping[str, str],
        *,
        here: Executor,
        progress: Progress,
    ) -> None:
        from holdfast.clusters.ray_session import RaySession
        from holdfast.clusters.ray_starter import RayStarter, room

        self._session = RaySession(keys)
        try:
            workers = room(keys) if keys.workers == "auto" else keys.workers
            starter = RayStarter(keys, collect(), self._session.runtime_env)
            setting = PoolSetting(workers, [], fresh=False, code=code, retries=keys.retries, largest_first=True)
            self._pool = Pool(environment, folder, setting, here, progress, starter)
        except BaseException:
            self._session.close()
            raise

    def run(self, works: Sequence[Work]) -> Iterator[tuple[JobSpec, Outcome]]:
        """Do all works; yields every unfinished job with its outcome, as the jobs end."""
        return self._pool.run(works)

    def close(self) -> None:
        """End all workers, and leave the cluster as it was found."""
        try:
            self._pool.close()
        finally:
            self._session.close()
