"""`hydra/launcher=stacked`: jobs that differ only in numbers are trained as one program, the others one by one.

`hydra/launcher=processes` does the same in worker processes, `hydra/launcher=ray` on a Ray cluster, and
`hydra/launcher=slurm` on a SLURM cluster.
"""

# no `from __future__ import annotations`: see sweeper.py

from dataclasses import dataclass, field
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore


@dataclass
class LauncherConf:
    """Keys of `hydra.launcher`."""

    _target_: str = "hydra_plugins.holdfast.launcher.StackedLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="stacked", node=LauncherConf, provider="holdfast")


class StackedLauncher(BasicLauncher):
    """Stands for training in this process, in stacks; our sweeper does so without calling it.

    The jobs of any other program run as under Hydra's basic launcher.
    """


@dataclass
class ProcessesConf:
    """Keys of `hydra.launcher` with `hydra/launcher=processes`.

    Attributes:
        workers: number of processes; auto: one for each GPU, where these are used, otherwise one for each core.
        fresh: whether every stack, and every job that trains alone, gets a process of its own.
    """

    _target_: str = "hydra_plugins.holdfast.launcher.ProcessesLauncher"
    workers: Any = "auto"
    fresh: bool = False


ConfigStore.instance().store(group="hydra/launcher", name="processes", node=ProcessesConf, provider="holdfast")


class ProcessesLauncher(StackedLauncher):
    """Stands for training in worker processes on this computer; our sweeper does so without calling it.

    The jobs of any other program run as under Hydra's basic launcher.

    Attributes:
        workers, fresh: as in `ProcessesConf`.
    """

    def __init__(self, workers: Any = "auto", fresh: bool = False) -> None:
        super().__init__()
        self.workers, self.fresh = workers, fresh


@dataclass
class RayConf:
    """Keys of `hydra.launcher` with `hydra/launcher=ray`; see `holdfast.clusters.ray_keys.RayKeys`."""

    _target_: str = "hydra_plugins.holdfast.launcher.RayLauncher"
    address: Any = "auto"
    workers: Any = "auto"
    cpus_per_worker: Any = 1
    gpus_per_worker: Any = 0
    retries: Any = 1
    placement_timeout: Any = 120.0
    runtime_env: Any = None


ConfigStore.instance().store(group="hydra/launcher", name="ray", node=RayConf, provider="holdfast")


class RayLauncher(StackedLauncher):
    """Stands for training on a Ray cluster; our sweeper does so without calling it.

    The jobs of any other program run as under Hydra's basic launcher.

    Attributes:
        keys: those of `RayConf`, by name.
    """

    def __init__(self, **keys: Any) -> None:
        super().__init__()
        self.keys = keys


@dataclass
class SlurmConf:
    """Keys of `hydra.launcher` with `hydra/launcher=slurm`; see `holdfast.clusters.slurm_keys.SlurmKeys`."""

    _target_: str = "hydra_plugins.holdfast.launcher.SlurmLauncher"
    partition: Any = None
    time: Any = None
    gpus_per_task: Any = None
    cpus_per_task: Any = None
    mem: Any = None
    array_parallelism: Any = 256
    setup: Any = field(default_factory=list)
    additional: Any = field(default_factory=dict)
    wait: Any = True


ConfigStore.instance().store(group="hydra/launcher", name="slurm", node=SlurmConf, provider="holdfast")


class SlurmLauncher(StackedLauncher):
    """Stands for training by SLURM; our sweeper does so without calling it.

    The jobs of any other program run as under Hydra's basic launcher.

    Attributes:
        keys: those of `SlurmConf`, by name.
    """

    def __init__(self, **keys: Any) -> None:
        super().__init__()
        self.keys = keys
