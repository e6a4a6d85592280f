"""`hydra/launcher=stacked`: jobs that differ only in numbers are trained as one program, the others one by one."""

# no `from __future__ import annotations`: see sweeper.py

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn


@dataclass
class LauncherConf:
    """Keys of `hydra.launcher`."""

    _target_: str = "hydra_plugins.holdfast.launcher.StackedLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="stacked", node=LauncherConf, provider="holdfast")


class StackedLauncher(BasicLauncher):
    """Trains the jobs of a sweep as few programs; a program that is not Holdfast's own is run job by job."""

    _stacking: Any = None

    def stacking(self) -> Any:
        """What plans and trains the jobs; None for a program that is not Holdfast's own."""
        from holdfast.cli.main import task
        from holdfast.compose.loader import Loader

        assert self.hydra_context is not None
        ours = self.task_function is task and isinstance(self.hydra_context.config_loader, Loader)
        if ours and self._stacking is None:
            from holdfast.compose.stacking import Stacking

            self._stacking = Stacking(self)
        return self._stacking

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run every job; returns how each ended, in their order."""
        stacking = self.stacking()
        if stacking is None:
            return self.launch_each(job_overrides, initial_job_idx)
        returns: Sequence[JobReturn] = stacking.launch([list(words) for words in job_overrides], initial_job_idx)
        return returns

    def launch_each(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs one by one, as Hydra's own launcher does."""
        returns: Sequence[JobReturn] = super().launch(job_overrides, initial_job_idx)
        return returns
