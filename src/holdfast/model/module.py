"""Lightning modules that are defined by a loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.data import extract_batch_size
from torch import Tensor, nn
from torch.optim import Optimizer

from holdfast.data.split import Split

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerFactory = Callable[[Optimizer], Any]


class Module(pl.LightningModule):
    """A LightningModule whose training, validation and test steps are derived from one method, `loss(batch)`.

    A subclass defines `loss`, a pure function of the parameters and the batch. The optimizer and the scheduler come
    from the configuration. Each batch adds sums over its rows, and the metrics are computed once from the total, so
    they do not depend on the batch size.
    """

    lr: float = 0.01
    """Learning rate of SGD, where `optimize_with` sets no optimizer."""

    _optimizer: OptimizerFactory | None = None
    _scheduler: SchedulerFactory | None = None
    _monitor: str = "val/loss"

    _add_up: Callable[[Split, Tensor], Tensor] | None = None

    def __init__(self) -> None:
        super().__init__()
        self._sums: list[Tensor] = []

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning sets this attribute forty times an iteration, and each time nn.Module would search its parameters
        # and buffers for the name: a seventh of an iteration of a small model
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def loss(self, batch: Any) -> Tensor:
        """Return the mean loss over the rows of a batch, a scalar."""
        raise NotImplementedError

    def statistics(self, batch: Any) -> Tensor:
        """Return sums over the rows of a batch, shape `(sums,)`, for `metrics`; the first is the number of rows."""
        return loss_sums(self, batch)

    @staticmethod
    def metrics(sums: Sequence[Any]) -> dict[str, Any]:
        """Return the metrics by name, from the sums of `statistics` over all rows."""
        rows, loss = sums
        return {"loss": loss / rows}

    def bare(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entries of a `state_dict` of this module under the names that they have in `model.pth`."""
        return dict(state)

    def optimize_with(self, optimizer: OptimizerFactory, scheduler: SchedulerFactory | None, monitor: str) -> None:
        """Set the optimizer and the scheduler.

        Args:
            optimizer: makes the optimizer of some parameters.
            scheduler: makes the learning-rate scheduler of an optimizer; None for a constant learning rate.
            monitor: metric for schedulers that need one, such as ReduceLROnPlateau.
        """
        self._optimizer, self._scheduler, self._monitor = optimizer, scheduler, monitor

    def share_rows(self, add_up: Callable[[Split, Tensor], Tensor]) -> None:
        """Measure a share of the validation and test rows, as one of several processes.

        Args:
            add_up: returns the sums over all rows of a split from those over the rows of this process.
        """
        self._add_up = add_up

    def configure_optimizers(self) -> Any:
        """Make the optimizer and the scheduler of `optimize_with`; without these, SGD at `lr`."""
        if self._optimizer is None:
            return torch.optim.SGD(self.parameters(), self.lr)
        optimizer = self._optimizer(self.parameters())
        if self._scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self._scheduler(optimizer), "monitor": self._monitor},
        }

    def training_step(self, batch: Any) -> Tensor:
        """Return the loss of a batch."""
        return self.loss(batch)

    def validation_step(self, batch: Any) -> None:
        """Add the statistics of a batch to the validation metrics."""
        self._sums.append(self.statistics(batch))

    def test_step(self, batch: Any) -> None:
        """Add the statistics of a batch to the test metrics."""
        self._sums.append(self.statistics(batch))

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the validation rows as `val/...`."""
        self._log("val")

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test rows as `test/...`."""
        self._log("test")

    def _log(self, split: Split) -> None:
        if not self._sums:
            return  # a subclass overrides the step and logs its metrics itself
        reduce = None if self._add_up is None else partial(self._add_up, split)
        metrics = measure(self, self._sums, split, reduce)
        self._sums = []
        # logger=False: the run's writer logs the metrics, at the same steps for single and stacked jobs
        self.log_dict({name: torch.tensor(value, dtype=torch.float64) for name, value in metrics.items()}, logger=False)


def loss_sums(module: Any, batch: Any) -> Tensor:
    """Return the number of rows and the sum of the loss over them, shape `(2,)`.

    Args:
        module: any module with a method `loss(batch)`.
        batch: any batch of which Lightning can tell the number of rows.
    """
    loss: Tensor = module.loss(batch)
    loss = loss.to(sum_dtype(loss)).reshape(())  # Lightning also accepts a loss of shape (1,)
    rows = extract_batch_size(batch)
    return torch.stack([torch.full_like(loss, rows), rows * loss])


def sum_dtype(tensor: Tensor) -> torch.dtype:
    """Return the dtype for sums of many numbers: float64 if the device of the tensor supports it, else float32.

    >>> sum_dtype(torch.zeros(3))
    torch.float64
    """
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def measure(
    module: Module | type[Module],
    sums: Sequence[Tensor],
    split: str,
    reduce: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, float]:
    """Return the metrics of a split by name, such as `val/loss`.

    Args:
        module: computes the metrics from the total.
        sums: the statistics of each batch, each of shape `(sums,)`.
        split: "train", "val" or "test".
        reduce: returns the total of all processes that share the rows, from that of one; None where one has all.
    """
    # stacked first, for one transfer from the device; added on the CPU, since MPS has no float64
    total = torch.stack(list(sums)).to("cpu", torch.float64).sum(0)
    if reduce is not None:
        total = reduce(total)
    return {f"{split}/{name}": float(value) for name, value in module.metrics(total.tolist()).items()}
