"""LightningModules and data modules put together from parts, by name."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F  # noqa: N812 (as everyone imports it)
import torchmetrics
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, Subset, SubsetRandomSampler, TensorDataset, WeightedRandomSampler

FEATURES, OUTPUTS = 6, 3


class _Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, OUTPUTS)
        self.again = self.layer

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.sigmoid(self.again(torch.sigmoid(self.layer(x)))))


NETS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(FEATURES, OUTPUTS),
    "tanh": lambda: nn.Sequential(nn.Linear(FEATURES, 5), nn.Tanh(), nn.Linear(5, OUTPUTS)),
    "batch norm": lambda: nn.Sequential(
        nn.Linear(FEATURES, 5, bias=False), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, OUTPUTS)
    ),
    "layer norm": lambda: nn.Sequential(nn.Linear(FEATURES, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, OUTPUTS)),
    "dropout": lambda: nn.Sequential(nn.Linear(FEATURES, 8), nn.SiLU(), nn.Dropout(0.3), nn.Linear(8, OUTPUTS)),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, FEATURES)), nn.Conv1d(1, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(16, OUTPUTS)
    ),
    "shared": _Shared,
    "gates": lambda: nn.Sequential(nn.Linear(FEATURES, 8), nn.GLU(), nn.PReLU(), nn.Linear(4, OUTPUTS)),
}
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "squared": lambda output, y: F.mse_loss(output[:, 0], y),
    "absolute": lambda output, y: F.l1_loss(output[:, 0], y),
    "smooth": lambda output, y: F.smooth_l1_loss(output[:, 1], y, beta=0.3),
    "binary": lambda output, y: F.binary_cross_entropy_with_logits(output[:, 0], (y > 0).to(output.dtype)),
    "classes": lambda output, y: F.cross_entropy(output, (y > 0).long() + (y > 0.5).long()),
    "poisson": lambda output, y: F.poisson_nll_loss(output[:, 2], y.abs()),
    "sum": lambda output, y: (output.mean(1) - y).square().sum() / 4,
}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda groups, lr: torch.optim.SGD(groups, lr, momentum=0.9, nesterov=True),
    "adam": lambda groups, lr: torch.optim.Adam(groups, lr, betas=(0.8, 0.99)),
    "amsgrad": lambda groups, lr: torch.optim.Adam(groups, lr, amsgrad=True, weight_decay=0.01),
    "adamw": torch.optim.AdamW,
    "rmsprop": lambda groups, lr: torch.optim.RMSprop(groups, lr, centered=True, momentum=0.5),
    "adagrad": lambda groups, lr: torch.optim.Adagrad(groups, lr, lr_decay=0.1),
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "adadelta": torch.optim.Adadelta,
    "adamax": torch.optim.Adamax,
    "asgd": torch.optim.ASGD,
}
SCHEDULERS: dict[str, Callable[[Any, float, Any], Any]] = {
    "none": lambda optimizer, lr, trainer: None,
    "step": lambda optimizer, lr, trainer: lr_scheduler.StepLR(optimizer, 1, 0.5),
    "cosine": lambda optimizer, lr, trainer: lr_scheduler.CosineAnnealingLR(optimizer, trainer.max_epochs),
    "exponential, every step": lambda optimizer, lr, trainer: {
        "scheduler": lr_scheduler.ExponentialLR(optimizer, 0.9), "interval": "step",
    },
    "warm-up, every second step": lambda optimizer, lr, trainer: {
        "scheduler": lr_scheduler.LinearLR(optimizer, 0.1, total_iters=5), "interval": "step", "frequency": 2,
    },
    "sequence": lambda optimizer, lr, trainer: lr_scheduler.SequentialLR(
        optimizer, [lr_scheduler.ConstantLR(optimizer, 0.3), lr_scheduler.ExponentialLR(optimizer, 0.8)], [1]
    ),
    "one cycle": lambda optimizer, lr, trainer: {
        "scheduler": lr_scheduler.OneCycleLR(
            optimizer, lr, trainer.estimated_stepping_batches, cycle_momentum="momentum" in optimizer.defaults
        ),
        "interval": "step",
    },
    "lambda": lambda optimizer, lr, trainer: lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 / (1 + epoch)),
    "plateau": lambda optimizer, lr, trainer: {
        "scheduler": lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.5),
        "monitor": "val/loss",
    },
}  # fmt: skip
STEPS = ("plain", "noise", "mixed rows", "weight of the epoch", "penalty", "several terms", "detached target")
LOGS = ("loss", "step and epoch", "dictionary", "largest", "sum", "weighted", "metric object", "metric value")
HOOKS = ("none", "epoch", "best", "coefficient", "start", "end of training")
GROUPS = ("one", "two", "frozen", "decayed")
SAMPLERS = ("shuffle", "in order", "drop last", "weighted", "subset", "own generator")
DRAWN = {
    "net": tuple(NETS), "loss": tuple(LOSSES), "optimizer": tuple(OPTIMIZERS), "scheduler": tuple(SCHEDULERS),
    "step": STEPS, "logs": LOGS, "hook": HOOKS, "groups": GROUPS,
}  # fmt: skip


def drawn(number: int) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """The arguments of a module and of a data module, and overrides of the Trainer's settings."""
    choose = random.Random(number)
    module = {key: choose.choice(values) for key, values in DRAWN.items()}
    data = {"sampler": choose.choice(SAMPLERS), "batch_size": choose.choice((5, 8, 40))}
    clip = choose.choice(([], [], ["trainer.gradient_clip_val=0.5"], ["trainer.gradient_clip_val=0.1"]))
    by_value = ["trainer.gradient_clip_algorithm=value"] if clip and choose.random() < 0.5 else []
    return module, data, [*clip, *by_value, *choose.choice(([], ["trainer.log_every_n_steps=1"]))]


class Generated(pl.LightningModule):
    """A module made of parts."""

    def __init__(self, lr: float = 0.01, coefficient: float = 0.1, **parts: str) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.parts, self.coefficient = parts, coefficient
        self.net, self.criterion = NETS[parts["net"]](), LOSSES[parts["loss"]]
        self.error, self.best = torchmetrics.MeanMetric(), torchmetrics.MinMetric()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        step, scale = self.parts["step"], self.coefficient
        if step == "noise":
            x = x + scale * torch.randn_like(x)
        if step == "mixed rows":
            order = torch.randperm(len(x), device=x.device)
            x, y = (1 - scale) * x + scale * x[order], (1 - scale) * y + scale * y[order]
        output = self.net(x)
        loss = self.criterion(output, y)
        if step == "weight of the epoch":
            loss = loss * (1 + scale * self.current_epoch)
        if step == "penalty":
            loss = loss + scale * sum(value.square().sum() for value in self.net.parameters())
        if step == "several terms":
            self.log("train/first", loss, on_step=False, on_epoch=True)
            loss = loss + scale * output.square().mean() + 0.01 * output.logsumexp(1).mean()
        if step == "detached target":
            loss = loss + scale * F.mse_loss(output[:, 0], (0.5 * output[:, 1] + 0.5 * y).detach())
        self._log(loss, output, x)
        return {"loss": loss, "output": output.detach()} if self.parts["groups"] == "one" else loss

    def _log(self, loss: Tensor, output: Tensor, x: Tensor) -> None:
        logs = self.parts["logs"]
        if logs == "loss":
            self.log("train/loss", loss)
        if logs == "step and epoch":
            self.log("train/loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        if logs == "dictionary":
            self.log_dict({"train/loss": loss, "train/mean": output.mean(), "train/rows": len(x)}, on_epoch=True)
        if logs == "largest":
            self.log("train/largest", output.abs().max(), on_step=False, on_epoch=True, reduce_fx="max")
            self.log("train/least", output.min(), on_step=False, on_epoch=True, reduce_fx=torch.min)
        if logs == "sum":
            self.log("train/sum", loss, on_step=False, on_epoch=True, reduce_fx="sum")
        if logs == "weighted":
            self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=3)
        if logs == "metric object":
            self.error(loss.detach())
            self.log("train/error", self.error, on_step=False, on_epoch=True)
        if logs == "metric value":
            self.error.update(loss.detach())

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        output = self.net(x)
        loss = self.criterion(output, y)
        self.log("val/loss", loss, prog_bar=True)
        if self.parts["logs"] in ("dictionary", "largest"):
            self.log_dict({"val/mean": output.mean(), "val/deviation": output.std()})
        return {"loss": loss, "output": output}

    def on_train_start(self) -> None:
        if self.parts["hook"] == "start":
            self.best.reset()

    def on_train_epoch_start(self) -> None:
        if self.parts["hook"] == "epoch":
            self.log("epochs", float(self.current_epoch))
        if self.parts["hook"] == "coefficient":
            self.coefficient = self.hparams["coefficient"] / (1 + self.current_epoch)

    def on_train_epoch_end(self) -> None:
        if self.parts["logs"] == "metric value":
            self.log("train/error", self.error.compute())
            self.error.reset()
        if self.parts["hook"] == "end of training":
            self.log("train/size", sum(value.detach().abs().sum() for value in self.net.parameters()))

    def on_validation_epoch_end(self) -> None:
        if self.parts["hook"] in ("best", "start"):
            self.best.update(next(self.net.parameters()).detach().abs().mean())
            self.log("val/best", self.best.compute())

    def configure_optimizers(self) -> Any:
        named, lr, groups = list(self.net.named_parameters()), self.hparams["lr"], self.parts["groups"]
        weights = [value for name, value in named if not name.endswith("bias")]
        biases = [value for name, value in named if name.endswith("bias")]
        split: list[dict[str, Any]] = [{"params": weights}, {"params": biases, "lr": 2 * lr}]
        if groups == "frozen":
            biases[-1].requires_grad_(False)
        if groups == "decayed" and self.parts["optimizer"] != "asgd":
            split = [{"params": weights, "weight_decay": 0.05}, {"params": biases}]
        given = split if groups in ("two", "decayed") else [value for _, value in named if value.requires_grad]
        optimizer = OPTIMIZERS[self.parts["optimizer"]](given, lr)
        scheduler = SCHEDULERS[self.parts["scheduler"]](optimizer, lr, self.trainer)
        return optimizer if scheduler is None else {"optimizer": optimizer, "lr_scheduler": scheduler}


class GeneratedData(pl.LightningDataModule):
    """Rows with a number each."""

    def __init__(self, sampler: str = "shuffle", batch_size: int = 8) -> None:
        super().__init__()
        self.sampler, self.batch_size = sampler, batch_size

    def setup(self, stage: str) -> None:
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(60, FEATURES, generator=generator)
        y = (x @ torch.randn(FEATURES, generator=generator)).tanh() + 0.1 * torch.randn(60, generator=generator)
        rows = TensorDataset(x, y)
        self.rows = {name: Subset(rows, part) for name, part in zip(("train", "val", "test"), _PARTS, strict=True)}

    def train_dataloader(self) -> Any:
        options: dict[str, Any] = {
            "shuffle": {"shuffle": True},
            "in order": {},
            "drop last": {"shuffle": True, "drop_last": True},
            "weighted": {"sampler": WeightedRandomSampler([1.0 + row % 3 for row in range(40)], 40)},
            "subset": {"sampler": SubsetRandomSampler(range(0, 40, 2))},
            "own generator": {"shuffle": True, "generator": torch.Generator().manual_seed(7)},
        }
        return DataLoader(self.rows["train"], self.batch_size, **options[self.sampler])

    def val_dataloader(self) -> Any:
        return DataLoader(self.rows["val"], self.batch_size)

    def test_dataloader(self) -> Any:
        return DataLoader(self.rows["test"], self.batch_size)


_PARTS = (range(40), range(40, 52), range(52, 60))
