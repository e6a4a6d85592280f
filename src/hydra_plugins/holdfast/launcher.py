"""`hydra/launcher=stacked`: jobs that differ only in numbers are trained as one program, the others one by one."""

# no `from __future__ import annotations`: see sweeper.py

from dataclasses import dataclass

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
