"""`hydra/sweeper=holdfast`: Hydra imports this in every program it starts, so it imports nothing of weight."""

# no `from __future__ import annotations`: Hydra executes plugins before they are in sys.modules, where dataclasses
# would look up annotations that are text

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn


@dataclass
class SweeperConf:
    """Keys of `hydra.sweeper`."""

    _target_: str = "hydra_plugins.holdfast.sweeper.HoldfastSweeper"
    max_batch_size: int | None = None
    params: dict[str, Any] | None = None


ConfigStore.instance().store(group="hydra/sweeper", name="holdfast", node=SweeperConf, provider="holdfast")


class HoldfastSweeper(BasicSweeper):
    """Checks every job before the first one starts, and finishes the sweep whatever failed.

    A program that is not Holdfast's own is swept as Hydra's basic sweeper sweeps it.

    Attributes:
        exit_code, path: of the sweep, once it has run, and its folder.
    """

    exit_code = 0
    path: Any = None

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Run every combination of the values listed in the arguments."""
        from holdfast.compose.loader import Loader

        assert self.hydra_context is not None
        assert self.config is not None
        assert self.launcher is not None
        if not isinstance(self.hydra_context.config_loader, Loader):
            returned: list[Sequence[JobReturn]] = super().sweep(arguments)
            return returned
        from holdfast.compose.sweep import Multirun, run_multirun

        multirun = Multirun(self.hydra_context, self.config, self.launcher, self.params, arguments, self.max_batch_size)
        self.exit_code, self.path, _ = run_multirun(multirun)
        return []
