"""What a step logs, collected instead of reduced."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor
from torchmetrics import Metric

from holdfast.usercode.watch import UnstackableError


class Logged(NamedTuple):
    """A call of `self.log`, without its value.

    Attributes:
        name: of the metric.
        options: as Lightning hands them to its collection of results.
        metric: path of the torchmetrics object that was logged; None for a number.
    """

    name: str
    options: dict[str, Any]
    metric: str | None


class Collector:
    """Takes what `LightningModule.log` writes to Lightning's collection of results."""

    def __init__(self, metrics: dict[str, Metric]) -> None:
        self._paths = {id(metric): path for path, metric in metrics.items()}
        self.logged: list[Logged] = []
        self.values: list[Tensor] = []

    def log(self, fx: str, name: str, value: Any, **options: Any) -> None:
        """Collect one call."""
        options = {key: item for key, item in options.items() if not key.startswith("sync_dist")}
        options["prog_bar"] = False  # Lightning would take the values of all jobs for one number
        if isinstance(value, Metric):
            if id(value) not in self._paths or options["on_step"]:
                raise UnstackableError(f"it logs the metric {name} at every step")
            self.logged.append(Logged(name, {"fx": fx, **options}, self._paths[id(value)]))
        elif isinstance(value, Tensor):
            if isinstance(options["batch_size"], Tensor):
                raise UnstackableError(f"it logs {name} with a batch_size that is a tensor")
            self.logged.append(Logged(name, {"fx": fx, **options}, None))
            self.values.append(value.detach())
        else:
            raise UnstackableError(f"it logs {name}, a {type(value).__name__}")
