"""Lightning modules that need only a loss."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities.data import extract_batch_size
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from holdfast.errors import DataError
from holdfast.model import networks
from holdfast.model.lean import LeanModule

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerFactory = Callable[[Optimizer], Any]


class Module(LeanModule):
    """A LightningModule whose training, validation and test follow from one method, `loss(batch)`.

    A subclass defines `loss`, pure in its parameters, and is trained with the optimizer and the scheduler of the
    configuration. Metrics are sums over rows until the very end, so that they do not depend on how rows are batched.
    """

    stackable: frozenset[str] = frozenset()
    """Arguments in which the jobs of one stack may differ: they leave the shapes of the parameters alone, such as an
    initial value or a coefficient that `loss` reads. Whether each job then trains as it would alone is tried; where it
    does not, each value gets a stack of its own."""

    _optimizer: OptimizerFactory | None = None
    _scheduler: SchedulerFactory | None = None
    _monitor: str = "val/loss"

    def __init__(self) -> None:
        super().__init__()
        self._sums: list[Tensor] = []

    def loss(self, batch: Any) -> Tensor:
        """What is minimised: a scalar, the mean over the rows of a batch."""
        raise NotImplementedError

    def statistics(self, batch: Any) -> Tensor:
        """Sums over the rows of a batch, from which `metrics` makes the metrics; the first is the number of rows."""
        return loss_sums(self, batch)

    @staticmethod
    def metrics(sums: Sequence[Any]) -> dict[str, Any]:
        """The metrics of all rows from the sums over all rows, by name."""
        rows, loss = sums
        return {"loss": loss / rows}

    def optimize_with(self, optimizer: OptimizerFactory, scheduler: SchedulerFactory | None, monitor: str) -> None:
        """Say how the parameters are to be moved."""
        self._optimizer, self._scheduler, self._monitor = optimizer, scheduler, monitor

    def configure_optimizers(self) -> Any:
        """The optimizer and scheduler of the configuration."""
        assert self._optimizer is not None, "optimize_with() comes before fit()"
        optimizer = self._optimizer(self.parameters())
        if self._scheduler is None:
            return optimizer
        # the monitor is for schedulers that watch a metric, such as ReduceLROnPlateau
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self._scheduler(optimizer), "monitor": self._monitor},
        }

    def training_step(self, batch: Any) -> Tensor:
        """The loss of a batch."""
        return self.loss(batch)

    # Lightning reads the signature at every step; here it finds it made
    training_step.__signature__ = inspect.signature(training_step)  # type: ignore[attr-defined]

    def validation_step(self, batch: Any) -> None:
        """Add a batch to the validation metrics."""
        self._sums.append(self.statistics(batch))

    def test_step(self, batch: Any) -> None:
        """Add a batch to the test metrics."""
        self._sums.append(self.statistics(batch))

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the validation rows as `val/...`."""
        self._log("val")

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test rows as `test/...`."""
        self._log("test")

    def _log(self, split: str) -> None:
        # not to the loggers: the run's own writer does that, at the steps it keeps for all engines
        if not self._sums:
            return  # a subclass measures in a way of its own
        metrics = measure(self, self._sums, split)
        self._sums = []
        self.log_dict({name: torch.tensor(value, dtype=torch.float64) for name, value in metrics.items()}, logger=False)


def loss_sums(module: Any, batch: Any) -> Tensor:
    """Rows, and the sum of the loss over them, of any module with a `loss(batch)`; shape `(2,)`."""
    loss: Tensor = module.loss(batch)
    loss = loss.to(exact(loss)).reshape(())  # Lightning also trains on a loss of shape (1,)
    rows = extract_batch_size(batch)
    return torch.stack([torch.full_like(loss, rows), rows * loss])


def exact(tensor: Tensor) -> torch.dtype:
    """The type to add many numbers in: double precision where the accelerator has it."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def measure(module: Module | type[Module], sums: Sequence[Tensor], split: str) -> dict[str, float]:
    """The metrics of a split by name, as `val/loss`, from the statistics of its batches."""
    # one transfer for all batches, summed in double precision, which not every accelerator has
    total = torch.stack(list(sums)).to("cpu", torch.float64).sum(0).tolist()
    return {f"{split}/{name}": float(value) for name, value in module.metrics(total).items()}


def measure_jobs(module: Module, sums: Tensor, split: str) -> dict[str, NDArray[np.float64]]:
    """The metrics of many jobs by name, each of shape `(jobs,)`, from their sums, shape `(jobs, sums)`.

    Raises:
        DataError: a module of the user's gives metrics of other names to some of the jobs.
    """
    total = sums.to("cpu", torch.float64).numpy()
    if type(module).metrics in (Module.metrics, Regression.metrics):
        found = module.metrics(list(total.T))
    else:  # made for the numbers of one job: a condition on arrays would hold for all or for none
        each = [module.metrics(row) for row in total.tolist()]
        if any(metrics.keys() != each[0].keys() for metrics in each):
            raise DataError("metrics() has other names for some jobs than for others")
        found = {name: [metrics[name] for metrics in each] for name in each[0]}
    return {f"{split}/{name}": np.asarray(value, dtype=np.float64) for name, value in found.items()}


class Regression(Module):
    """Mean squared error of a network with one output, with MAE and R2 beside it.

    MSE = mean((f(x) - y)^2), MAE = mean(|f(x) - y|), R2 = 1 - sum((f(x) - y)^2) / sum((y - mean(y))^2).

    Args:
        network: maps x of shape `(rows, features)` to a prediction of shape `(rows, 1)`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """The prediction, shape `(rows, 1)`."""
        return self.network(x)  # type: ignore[no-any-return]

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The mean squared error of a batch."""
        x, y = batch
        prediction = self.network(x)
        _same_shape(prediction, y)
        return functional.mse_loss(prediction, y)

    def statistics(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Rows, and sums of squared error, absolute error, y and y squared."""
        x, y = batch
        prediction, wide = self.network(x), exact(y)
        _same_shape(prediction, y)
        y = y.to(wide)
        error = prediction.to(wide) - y
        rows = torch.as_tensor(y.numel(), dtype=wide, device=y.device)
        return torch.stack([rows, error.square().sum(), error.abs().sum(), y.sum(), y.square().sum()])

    @staticmethod
    def metrics(sums: Sequence[Any]) -> dict[str, Any]:
        """MSE, MAE and R2; R2 is NaN where y does not vary."""
        rows, squared, absolute, y, y_squared = sums
        spread = y_squared - y * y / rows
        with np.errstate(all="ignore"):
            r2 = np.where(spread > 0, 1 - np.divide(squared, spread), np.nan)
        return {"loss": squared / rows, "mae": absolute / rows, "r2": r2}


def _same_shape(prediction: Tensor, y: Tensor) -> None:
    if prediction.shape != y.shape:
        raise DataError(
            f"Targets of shape {tuple(y.shape)} do not fit predictions of shape {tuple(prediction.shape)}: torch would "
            "compare every row with every other. Give y the shape (rows, 1), for example with y.unsqueeze(1)."
        )


class Linear(Regression):
    """`y = x w + b`, fitted by mean squared error; the arguments are those of `holdfast.model.networks.linear`.

    >>> Linear(weight=2.0, bias=1.0)(torch.tensor([[3.0]])).tolist()
    [[7.0]]
    """

    stackable = frozenset({"weight", "bias"})

    def __init__(self, features: int = 1, weight: float | None = None, bias: float | None = None) -> None:
        super().__init__(networks.linear(features, weight, bias))
        self.save_hyperparameters()


class MLP(Regression):
    """A multi-layer perceptron, fitted by mean squared error; the arguments are those of `networks.mlp`."""

    def __init__(
        self,
        features: int = 1,
        hidden: Sequence[int] = (16,),
        activation: Literal["tanh", "relu"] = "tanh",
        dropout: float = 0.0,
    ) -> None:
        hidden = list(hidden)
        super().__init__(networks.mlp(features, hidden, activation, dropout))
        self.save_hyperparameters()
