"""`hydra/launcher=stacked`: jobs that differ only in numbers are trained as one program, the others one by one."""

# no `from __future__ import annotations`: see sweeper.py

from collections.abc import Sequence
from dataclasses import dataclass

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn


@dataclass
class LauncherConf:
    """Keys of `hydra.launcher`."""

    _target_: str = "hydra_plugins.holdfast.launcher.StackedLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="stacked", node=LauncherConf, provider="holdfast")


class StackedLauncher(BasicLauncher):
    """Stands for training in this process, in stacks; our sweeper does so without calling it.

    Another sweeper may call it with jobs of Holdfast; those of any other program run as under Hydra's basic launcher.
    """

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run every job; returns how each ended, in their order."""
        from holdfast.compose.loader import Loader

        assert self.hydra_context is not None
        assert self.config is not None
        if isinstance(self.hydra_context.config_loader, Loader):
            from holdfast.compose.launchers import launch_stacked

            return launch_stacked(self.hydra_context, self.config, job_overrides, initial_job_idx)
        returned: Sequence[JobReturn] = super().launch(job_overrides, initial_job_idx)
        return returned
