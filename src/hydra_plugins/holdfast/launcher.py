"""`hydra/launcher=stacked`: jobs that differ only in numbers are trained as one program, the others one by one.

`hydra/launcher=processes` does the same in worker processes, `hydra/launcher=ray` on a Ray cluster, and
`hydra/launcher=slurm` on a SLURM cluster.
"""

# no `from __future__ import annotations`: see sweeper.py

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore

from holdfast.clusters.ray_keys import RayKeys
from holdfast.clusters.slurm_keys import SlurmKeys


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


class ClusterLauncher(StackedLauncher):
    """Stands for training on a cluster; our sweeper does so without calling it.

    The jobs of any other program run as under Hydra's basic launcher.

    Attributes:
        keys: those of `hydra.launcher`, by name.
    """

    def __init__(self, **keys: Any) -> None:
        super().__init__()
        self.keys = keys


class RayLauncher(ClusterLauncher):
    """Stands for training on a Ray cluster; its keys are those of `RayKeys`."""


class SlurmLauncher(ClusterLauncher):
    """Stands for training by SLURM; its keys are those of `SlurmKeys`."""


def _store(name: str, launcher: type[ClusterLauncher], defaults: Mapping[str, Any]) -> None:
    """Let Hydra know the keys of a launcher; they may be anything, since they are checked with the jobs."""
    node = {"_target_": f"hydra_plugins.holdfast.launcher.{launcher.__name__}", **defaults}
    ConfigStore.instance().store(group="hydra/launcher", name=name, node=node, provider="holdfast")


_store("ray", RayLauncher, RayKeys()._asdict())
_store("slurm", SlurmLauncher, SlurmKeys()._asdict())
