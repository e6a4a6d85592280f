"""The iterations of an epoch that a stack has done so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holdfast.arithmetic.layout import Indexes
from holdfast.record.stopping import StoppingRules, largest_loss


@dataclass
class EpochSoFar:
    """What an epoch has come to, for the jobs that were running when it began.

    Attributes:
        is_running: whether each job has not diverged in this epoch, shape `(live,)`.
        sums: sums of the losses, shape `(live,)`.
        largest: the largest absolute losses, not finite if any is not, shape `(live,)`.
        done: number of iterations of this epoch.
        diverged: for jobs that have diverged, their columns, and a copy of their tensors by name.
    """

    is_running: NDArray[np.bool_]
    sums: NDArray[np.float64]
    largest: NDArray[np.float64]
    done: int = 0
    diverged: list[tuple[Indexes, dict[str, Tensor]]] = field(default_factory=list)

    @classmethod
    def start(cls, live: int) -> EpochSoFar:
        """The beginning of an epoch of some jobs."""
        return cls(np.ones(live, dtype=bool), np.zeros(live), np.zeros(live))

    def add(self, losses: NDArray[Any], rules: StoppingRules) -> NDArray[np.bool_]:
        """Add the losses of the next iterations, shape `(iterations, live)`.

        Returns:
            Whether each running job has diverged in these iterations, shape `(live,)`.

        >>> EpochSoFar.start(2).add(np.array([[1.0, np.inf]]), StoppingRules()).tolist()
        [False, True]
        """
        losses = losses.astype(np.float64)
        largest = largest_loss(losses)
        with np.errstate(invalid="ignore", over="ignore"):
            self.sums = np.where(self.is_running, self.sums + losses.sum(0), self.sums)
        self.largest = np.where(self.is_running, np.maximum(self.largest, largest), self.largest)
        out: NDArray[np.bool_] = self.is_running & ~rules.within(largest)
        return out

    def as_plain(self) -> dict[str, Any]:
        """In plain containers and tensors."""
        arrays = {name: torch.from_numpy(getattr(self, name)) for name in ("is_running", "sums", "largest")}
        return {
            **arrays,
            "done": self.done,
            "diverged": [{"columns": torch.from_numpy(columns), "tensors": each} for columns, each in self.diverged],
        }

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> EpochSoFar:
        """From what `as_plain` returned."""
        is_running, sums, largest = (plain[name].numpy() for name in ("is_running", "sums", "largest"))
        diverged = [(each["columns"].numpy(), each["tensors"]) for each in plain["diverged"]]
        return cls(is_running, sums, largest, plain["done"], diverged)
