"""LightningModules as people write them, from tutorials, templates and papers."""

from __future__ import annotations

import functools
import math
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F  # noqa: N812 (as everyone imports it)
import torchmetrics
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import Tensor, nn
from torch.optim import lr_scheduler

from tests.template_project.src.models.blobs_module import BlobsLitModule
from tests.zoo.data import CLASSES, FEATURES


class Regressor(pl.LightningModule):
    """A small network with a squared error, as in Lightning's introduction."""

    def __init__(self, lr: float = 0.01, hidden: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(FEATURES, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        loss = F.mse_loss(self(x), y)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        self.log("val/loss", F.mse_loss(self(x), y), prog_bar=True)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"], momentum=0.9)


class Huber(Regressor):
    """Several ways to measure an error, one of them weighted by an argument."""

    def __init__(self, delta: float = 1.0, **keys: Any) -> None:
        super().__init__(**keys)
        self.delta = delta

    def training_step(self, batch: Any) -> Any:
        x, y = batch
        error = self(x) - y
        loss = torch.where(error.abs() < self.delta, 0.5 * error**2, self.delta * (error.abs() - 0.5 * self.delta))
        self.log_dict({"train/huber": loss.mean(), "train/l1": error.abs().mean()}, on_step=True, on_epoch=True)
        return {"loss": loss.mean(), "error": error.detach()}


class Quantiles(Regressor):
    """The pinball loss of a quantile that is swept."""

    def __init__(self, quantile: float = 0.5, **keys: Any) -> None:
        super().__init__(**keys)
        self.save_hyperparameters()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        error, q = y - self(x), self.hparams["quantile"]
        return torch.maximum(q * error, (q - 1) * error).mean()


class GaussianNll(Regressor):
    """Predicts a mean and a variance."""

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__(lr=lr)
        self.net = nn.Linear(FEATURES, 2)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        mean, raw = self(batch[0]).chunk(2, 1)
        return F.gaussian_nll_loss(mean, batch[1], F.softplus(raw) + 1e-3)

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("val/loss", F.mse_loss(self(batch[0])[:, :1], batch[1]), batch_size=len(batch[0]))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), self.hparams["lr"])


class Classifier(pl.LightningModule):
    """Cross entropy, AdamW and accuracy by hand."""

    def __init__(self, lr: float = 0.01, weight_decay: float = 0.01, dropout: float = 0.0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = self.network(dropout)

    def network(self, dropout: float) -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 12), nn.ReLU(), nn.Dropout(dropout), nn.Linear(12, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def loss_of(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits, y)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss_of(self(batch[0]), batch[1])
        self.log("train_loss", loss, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        logits = self(batch[0])
        self.log("val/loss", F.cross_entropy(logits, batch[1]))
        self.log("val_acc", (logits.argmax(1) == batch[1]).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=self.hparams["lr"], weight_decay=self.hparams["weight_decay"])


class Normalised(Classifier):
    """BatchNorm, with running statistics."""

    def network(self, dropout: float) -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 12, bias=False), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, CLASSES))


class BiasBeforeNorm(Classifier):
    """A bias whose gradient is only rounding."""

    def network(self, dropout: float) -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, CLASSES))


class Smoothed(Classifier):
    """Label smoothing, which torch takes as a number only."""

    def __init__(self, smoothing: float = 0.1, **keys: Any) -> None:
        super().__init__(**keys)
        self.criterion = nn.CrossEntropyLoss(label_smoothing=smoothing, weight=torch.tensor([1.0, 2.0, 0.5]))

    def loss_of(self, logits: Tensor, y: Tensor) -> Tensor:
        return self.criterion(logits, y)


class Focal(Classifier):
    """The focal loss."""

    def __init__(self, gamma: float = 2.0, **keys: Any) -> None:
        super().__init__(**keys)
        self.gamma = gamma

    def loss_of(self, logits: Tensor, y: Tensor) -> Tensor:
        entropy = F.cross_entropy(logits, y, reduction="none")
        return ((1 - (-entropy).exp()) ** self.gamma * entropy).mean()


class Mixup(Classifier):
    """Mixes rows by weights that are drawn in the step."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        share = torch.rand(len(x), 1, dtype=x.dtype)
        logits, other, y2 = self(share * x + (1 - share) * x.flip(0)), share.squeeze(1), y.flip(0)
        loss = other * F.cross_entropy(logits, y, reduction="none")
        return (loss + (1 - other) * F.cross_entropy(logits, y2, reduction="none")).mean()


class Noisy(Classifier):
    """Noise on the inputs."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x = batch[0] + 0.1 * torch.randn_like(batch[0])
        return F.cross_entropy(self(x), batch[1])


class AlphaDropout(Classifier):
    """Self-normalising layers."""

    def network(self, dropout: float) -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 12), nn.SELU(), nn.AlphaDropout(0.2), nn.Linear(12, CLASSES))


class Convolutional(Classifier):
    """A small CNN on pictures."""

    def network(self, dropout: float) -> nn.Module:
        return nn.Sequential(
            *(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)),
        )


class Residual(Classifier):
    """A residual block with layer normalisation."""

    def __init__(self, **keys: Any) -> None:
        super().__init__(**keys)
        self.block = nn.Sequential(nn.LayerNorm(FEATURES), nn.Linear(FEATURES, FEATURES), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + self.block(x))


class Recurrent(Classifier):
    """A GRU over the columns."""

    kind: type[nn.RNNBase] = nn.GRU

    def __init__(self, **keys: Any) -> None:
        super().__init__(**keys)
        self.rnn = self.kind(1, 6, batch_first=True)
        self.net = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.rnn(x.unsqueeze(-1))[0][:, -1])


class LongShortTerm(Recurrent):
    """An LSTM."""

    kind = nn.LSTM


class Transformer(Classifier):
    """A tiny transformer on tokens, with its weights tied to the embedding."""

    def __init__(self, **keys: Any) -> None:
        super().__init__(**keys)
        self.embedding = nn.Embedding(11, 8)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.net = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.encoder(self.embedding(x)).mean(1))


class Tied(pl.LightningModule):
    """Predicts the next token with the weights of the embedding."""

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__()
        self.lr = lr
        self.embedding = nn.Embedding(11, 8)
        self.out = nn.Linear(8, 11, bias=False)
        self.out.weight = self.embedding.weight

    def step(self, batch: Any) -> Tensor:
        logits = self.out(torch.tanh(self.embedding(batch[0][:, :-1])))
        return F.cross_entropy(logits.flatten(0, 1), batch[0][:, 1:].flatten())

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.step(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("val/loss", self.step(batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.RMSprop(self.parameters(), lr=self.lr)


class Autoencoder(pl.LightningModule):
    """Lightning's own first example."""

    def __init__(self, lr: float = 1e-2, width: int = 3) -> None:
        super().__init__()
        self.lr = lr
        self.encoder = nn.Sequential(nn.Linear(FEATURES, 6), nn.ReLU(), nn.Linear(6, width))
        self.decoder = nn.Sequential(nn.Linear(width, 6), nn.ReLU(), nn.Linear(6, FEATURES))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, _ = batch
        loss = nn.functional.mse_loss(self.decoder(self.encoder(x.view(x.size(0), -1))), x)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        x, _ = batch
        self.log("val/loss", F.mse_loss(self.decoder(self.encoder(x)), x))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class Variational(Autoencoder):
    """A VAE with a weight on the divergence that grows over the epochs."""

    def __init__(self, beta: float = 1.0, **keys: Any) -> None:
        super().__init__(**keys)
        self.encoder, self.beta = nn.Linear(FEATURES, 6), beta
        self.decoder = nn.Linear(3, FEATURES)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        mean, log_variance = self.encoder(batch[0]).chunk(2, 1)
        z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1).mean()
        loss = F.mse_loss(self.decoder(z), batch[0]) + self.beta * min(1.0, self.current_epoch / 2) * divergence
        self.log("train/kl", divergence)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        mean, _ = self.encoder(batch[0]).chunk(2, 1)
        self.log("val/loss", F.mse_loss(self.decoder(mean), batch[0]))


class WarmUp(Regressor):
    """A coefficient that a hook sets at the start of each epoch."""

    def __init__(self, **keys: Any) -> None:
        super().__init__(**keys)
        self.weight = 0.0

    def on_train_epoch_start(self) -> None:
        self.weight = min(1.0, 0.4 * self.current_epoch)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return loss + self.weight * sum(p.square().sum() for p in self.parameters())


class Siamese(Classifier):
    """A contrastive loss on pairs of rows."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        distance = F.pairwise_distance(self(x), self(x.roll(1, 0)))
        same = (y == y.roll(1, 0)).to(distance.dtype)
        return (same * distance**2 + (1 - same) * F.relu(1 - distance) ** 2).mean()


class Contrastive(Classifier):
    """The InfoNCE loss between two noisy views."""

    def __init__(self, temperature: float = 0.5, **keys: Any) -> None:
        super().__init__(**keys)
        self.temperature = temperature

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        one, two = (F.normalize(self(batch[0] + 0.1 * torch.randn_like(batch[0])), dim=1) for _ in range(2))
        return F.cross_entropy(one @ two.T / self.temperature, torch.arange(len(one)))


class MultiTask(Classifier):
    """Two losses whose weights are learned."""

    def __init__(self, **keys: Any) -> None:
        super().__init__(**keys)
        self.log_sigma = nn.Parameter(torch.zeros(2))
        self.head = nn.Linear(FEATURES, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        losses = torch.stack([F.cross_entropy(self(x), y), F.l1_loss(self.head(x).squeeze(1), y.to(x.dtype))])
        self.log_dict({"train/classes": losses[0], "train/number": losses[1]})
        return (losses * (-self.log_sigma).exp() + self.log_sigma).sum()


class Averaged(Regressor):
    """Keeps an exponential average of the loss in a buffer."""

    def __init__(self, **keys: Any) -> None:
        super().__init__(**keys)
        self.register_buffer("average", torch.zeros(()))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.average = 0.9 * self.average + 0.1 * loss.detach()
        return loss / (0.1 + self.average)


class Spectral(Classifier):
    """Spectral norm by torch's parametrizations."""

    def network(self, dropout: float) -> nn.Module:
        layer = nn.utils.parametrizations.spectral_norm(nn.Linear(FEATURES, 12))
        return nn.Sequential(layer, nn.ReLU(), nn.Linear(12, CLASSES))


class Finetuned(Classifier):
    """A frozen body, a head with its own rate, and OneCycle by step."""

    def __init__(self, **keys: Any) -> None:
        super().__init__(**keys)
        self.body = nn.Linear(FEATURES, FEATURES)
        for parameter in self.body.parameters():
            parameter.requires_grad = False

    def forward(self, x: Tensor) -> Tensor:
        return self.net(torch.tanh(self.body(x)))

    def configure_optimizers(self) -> Any:
        groups = [
            {"params": self.net[0].parameters(), "lr": self.hparams["lr"] / 10},
            {"params": self.net[-1].parameters(), "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.hparams["lr"], weight_decay=self.hparams["weight_decay"])
        steps = self.trainer.estimated_stepping_batches
        schedule = lr_scheduler.OneCycleLR(optimizer, max_lr=self.hparams["lr"], total_steps=int(steps))
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class FrozenNorm(Classifier):
    """A body whose BatchNorm stays in evaluation mode."""

    def __init__(self, **keys: Any) -> None:
        super().__init__(**keys)
        self.body = nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.BatchNorm1d(FEATURES)).eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.body(x))

    def loss(self, batch: Any) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])


class Plateau(Classifier):
    """ReduceLROnPlateau on its own metric."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.NAdam(self.parameters(), lr=self.hparams["lr"])
        scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=0)
        return {"optimizer": optimizer, "lr_scheduler": scheduler, "monitor": "val/loss"}


class Sequential(Classifier):
    """A warm-up followed by cosine annealing."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adagrad(self.parameters(), lr=self.hparams["lr"])
        warm, cosine = lr_scheduler.LinearLR(optimizer, 0.1, 1, 1), lr_scheduler.CosineAnnealingLR(optimizer, 3)
        return [optimizer], [lr_scheduler.SequentialLR(optimizer, [warm, cosine], [1])]


class Lambdas(Classifier):
    """A schedule by a function of the epoch."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.RAdam(self.parameters(), lr=self.hparams["lr"])
        return [optimizer], [lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9**epoch)]


class OtherOptimizer(Classifier):
    """One of the other optimizers of torch."""

    name = "Adadelta"

    def configure_optimizers(self) -> Any:
        return getattr(torch.optim, self.name)(self.parameters(), lr=self.hparams["lr"])


class Adamaxed(OtherOptimizer):
    """Adamax."""

    name = "Adamax"


class AveragedSgd(OtherOptimizer):
    """ASGD."""

    name = "ASGD"


class Template(BlobsLitModule):
    """A classifier in the shape of lightning-hydra-template's."""

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__(
            nn.Sequential(nn.Linear(FEATURES, 12), nn.ReLU(), nn.Linear(12, CLASSES)),
            functools.partial(torch.optim.Adam, lr=lr),  # type: ignore[arg-type]
            functools.partial(lr_scheduler.ReduceLROnPlateau, mode="min", factor=0.1, patience=10),  # type: ignore[arg-type]
            num_classes=CLASSES,
            compile=False,
        )


class Metrics(Classifier):
    """Metrics that are updated and computed by hand, and values that are reduced otherwise than by their mean."""

    def __init__(self, **keys: Any) -> None:
        super().__init__(**keys)
        self.f1 = torchmetrics.F1Score("multiclass", num_classes=CLASSES, average="macro")
        self.total = torchmetrics.SumMetric()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.log("train/largest", loss, on_step=False, on_epoch=True, reduce_fx="max")
        self.log("train/sum", loss, on_step=False, on_epoch=True, reduce_fx=torch.sum)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        super().validation_step(batch, batch_idx)
        self.f1.update(self(batch[0]), batch[1])
        self.total.update(batch[0].abs().sum())

    def on_validation_epoch_end(self) -> None:
        self.log("val/f1", self.f1.compute())
        self.log("val/total", self.total.compute())
        self.f1.reset()
        self.total.reset()


class Nested(pl.LightningModule):
    """Nested batches, and two validation loaders."""

    def __init__(self, lr: float = 0.05) -> None:
        super().__init__()
        self.lr, self.net = lr, nn.Linear(FEATURES + 2, CLASSES)

    def logits(self, batch: Any) -> Tensor:
        return self.net(torch.cat([batch["features"], batch["pair"][0]], 1))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return F.cross_entropy(self.logits(batch), batch["label"])

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        loss = F.cross_entropy(self.logits(batch), batch["label"])
        if dataloader_idx == 0:
            self.log("val/loss", loss, add_dataloader_idx=False)
        self.log("each", loss)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), self.lr)


class FirstBatch(Classifier):
    """Looks at the number of the batch."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return loss * (0.5 if batch_idx == 0 else 1.0)


class Steps(Classifier):
    """A factor by the number of the step."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * math.exp(-0.1 * self.global_step)


class Boring(BoringModel):
    """Lightning's own BoringModel."""

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.layer, self.lr = nn.Linear(FEATURES, 2), lr

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step(batch[0], batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("val/loss", super().validation_step(batch[0], batch_idx)["x"])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.layer.parameters(), lr=self.lr)
        return [optimizer], [lr_scheduler.StepLR(optimizer, step_size=1)]


class Adversarial(Autoencoder):
    """A GAN: two optimizers, by hand."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        one, two = self.optimizers()
        for optimizer, loss in ((one, self.encoder(batch[0]).square().mean()), (two, self.decoder.parameters())):
            optimizer.zero_grad()
            if isinstance(loss, Tensor):
                self.manual_backward(loss)
                optimizer.step()

    def configure_optimizers(self) -> Any:
        one = torch.optim.Adam(self.encoder.parameters(), self.lr)
        return one, torch.optim.Adam(self.decoder.parameters(), self.lr)


class Branching(Classifier):
    """A condition on a value."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return 2 * loss if loss > 1 else loss


class Collecting(Classifier):
    """Keeps outputs in a list."""

    def __init__(self, **keys: Any) -> None:
        super().__init__(**keys)
        self.outputs: list[Tensor] = []

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        super().validation_step(batch, batch_idx)
        self.outputs.append(self(batch[0]))

    def on_validation_epoch_end(self) -> None:
        self.log("val/spread", torch.cat(self.outputs).std())
        self.outputs.clear()


class BatchHook(Classifier):
    """A hook of a batch."""

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.clamp_(-1, 1)


class Quasi(Regressor):
    """LBFGS."""

    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.parameters(), lr=self.hparams["lr"], max_iter=2)


class Curve(Classifier):
    """A metric that keeps every value."""

    def __init__(self, **keys: Any) -> None:
        super().__init__(**keys)
        self.auroc = torchmetrics.AUROC("multiclass", num_classes=CLASSES)

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        super().validation_step(batch, batch_idx)
        self.auroc(self(batch[0]).softmax(1), batch[1])
        self.log("val/auroc", self.auroc, on_epoch=True)
