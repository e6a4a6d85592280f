"""Parts of which the differential test makes modules and data of users' own: right, wrong to stack, or odd.

A part is a few lines of code. `init` runs in `__init__`, where `l2` is the swept argument; `loss` runs in `loss`, where
`x`, `y`, `out` (the prediction), `w` (a parameter) and `loss` are at hand; `top` stands above the class and `body` in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["stack", "alone", "either"]


@dataclass(frozen=True)
class Part:
    """Lines of a user's code.

    Attributes:
        name: what it does.
        kind: whether jobs with it must share a stack (`stack`), must run alone (`alone`), or may do either.
    """

    name: str
    kind: Kind = "either"
    init: str = ""
    loss: str = ""
    top: str = ""
    body: str = ""
    keys: dict[str, str] = field(default_factory=dict)
    sweep: str = "model.l2=0.0,0.3,2.0"


MODELS = [
    # ------------------------------------------------------------------ a number that the loss reads, in many ways
    Part("an attribute", "stack", "self.l2 = l2", "loss = loss + self.l2 * w.square().sum()"),
    Part(
        "a hyperparameter", "stack", "self.save_hyperparameters()", "loss = loss + self.hparams.l2 * w.square().sum()"
    ),
    Part(
        "a hyperparameter as an item",
        "stack",
        "self.save_hyperparameters()",
        "loss = loss + self.hparams['l2'] * w.abs().sum()",
    ),
    Part("first value neutral", "stack", "self.scale = l2", "loss = loss * self.scale", sweep="model.l2=1.0,0.5,3.0"),
    Part("a computed attribute", "stack", "self.l2 = 2 * l2 + 1", "loss = self.l2 * loss"),
    Part(
        "whole numbers and fractions",
        "stack",
        "self.l2 = l2",
        "loss = loss + self.l2 * w.square().sum()",
        sweep="model.l2=0,1,0.5",
    ),
    Part(
        "an exponent",
        "either",
        "self.power = l2",
        "loss = loss + (out - y).abs().clamp_min(0.1).pow(self.power).mean()",
    ),
    Part(
        "a Huber delta", "either", "self.delta = l2 + 0.1", "loss = nn.functional.huber_loss(out, y, delta=self.delta)"
    ),
    Part(
        "a temperature in a child",
        "stack",
        "self.child = Temperature(l2)",
        "loss = loss + self.child(out).square().mean()",
        top="class Temperature(nn.Module):\n    def __init__(self, t):\n        super().__init__()\n        self.t = t\n    def forward(self, z):\n        return z / (1 + self.t)",
    ),
    Part(
        "an entry of a dictionary",
        "stack",
        "self.settings = {'a': {'b': l2}}",
        "loss = loss + self.settings['a']['b'] * w.square().sum()",
    ),
    Part(
        "an entry of a list", "stack", "self.settings = [1.0, l2]", "loss = loss + self.settings[1] * w.square().sum()"
    ),
    Part(
        "an entry of a tuple",
        "either",
        "self.settings = (1.0, l2)",
        "loss = loss + self.settings[1] * w.square().sum()",
    ),
    Part("a closure", "either", "self.penalty = lambda w: l2 * w.square().sum()", "loss = loss + self.penalty(w)"),
    Part(
        "a partial",
        "either",
        "self.penalty = functools.partial(scaled, l2)",
        "loss = loss + self.penalty(w)",
        top="def scaled(l2, w):\n    return l2 * w.square().sum()",
    ),
    Part(
        "a slotted dataclass",
        "either",
        "self.settings = Settings(l2)",
        "loss = loss + self.settings.l2 * w.square().sum()",
        top="@dataclasses.dataclass(slots=True)\nclass Settings:\n    l2: float",
    ),
    Part(
        "a dataclass",
        "stack",
        "self.settings = Settings(l2)",
        "loss = loss + self.settings.l2 * w.square().sum()",
        top="@dataclasses.dataclass\nclass Settings:\n    l2: float",
    ),
    Part(
        "a property",
        "stack",
        "self._l2 = l2",
        "loss = loss + self.twice * w.square().sum()",
        body="@property\ndef twice(self):\n    return 2 * self._l2",
    ),
    Part(
        "getattr and vars",
        "stack",
        "self.l2 = l2",
        "loss = loss + getattr(self, 'l2') * w.square().sum() + vars(self)['l2'] * w.abs().sum()",
    ),
    Part("a branch on the number", "either", "self.l2 = l2", "loss = loss * 3 if self.l2 > 1 else loss"),
    Part("a branch decided before", "either", "self.strong = l2 > 1", "loss = loss * 3 if self.strong else loss"),
    Part(
        "a branch on the middle value",
        "either",
        "self.special = l2 == 0.3",
        "loss = loss * 3 if self.special else loss",
    ),
    Part(
        "a loop over the number",
        "either",
        "self.times = int(l2 * 10)",
        "for _ in range(self.times):\n    loss = loss + 0.1 * w.square().sum()",
    ),
    Part("math on the number", "either", "self.l2 = l2", "loss = loss + math.exp(-self.l2) * w.square().sum()"),
    Part(
        "a name",
        "either",
        "self.kind = 'l1' if l2 < 1 else 'l2'",
        "loss = loss + (w.abs() if self.kind == 'l1' else w.square()).sum()",
    ),
    Part(
        "a class attribute set for each job",
        "either",
        "type(self).alpha = l2",
        "loss = loss + self.alpha * w.square().sum()",
        body="alpha = 0.0",
    ),
    Part(
        "a global set for each job",
        "either",
        "global ALPHA\nALPHA = l2",
        "loss = loss + ALPHA * w.square().sum()",
        top="ALPHA = 0.0",
    ),
    Part(
        "an environment variable set for each job",
        "either",
        "os.environ['ALPHA_OF_JOB'] = str(l2)",
        "loss = loss + float(os.environ['ALPHA_OF_JOB']) * w.square().sum()",
    ),
    Part(
        "a registry outside of the module",
        "either",
        "self.key = len(REGISTRY)\nREGISTRY.append(l2)",
        "loss = loss + REGISTRY[self.key] * w.square().sum()",
        top="REGISTRY = []",
    ),
    Part(
        "a tensor",
        "stack",
        "self.l2 = torch.tensor([l2, 0.5])",
        "loss = loss + (self.l2.to(w.dtype) * w.square().sum()).sum()",
    ),
    Part(
        "read by statistics",
        "either",
        "self.l2 = l2",
        body="def statistics(self, batch):\n    sums = super().statistics(batch)\n    return torch.cat([sums[:1], sums[1:2] * (1 + self.l2), sums[2:]])",
    ),
    Part(
        "read by metrics",
        "either",
        "self.l2 = l2",
        body="def metrics(self, sums):\n    found = Regression.metrics(sums)\n    return {**found, 'loss': found['loss'] * (1 + self.l2)}",
    ),
    Part(
        "a median of rows in statistics",
        "either",
        body="def statistics(self, batch):\n    sums = super().statistics(batch)\n    return torch.cat([sums[:1], sums[:1] * (self.network(batch[0]) - batch[1]).square().median().to(sums), sums[2:]])",
        sweep="lr=0.01,0.05",
    ),
    # ------------------------------------------------------------------------------------------------ the Trainer
    Part("the epoch", "alone", loss="loss = loss * (1 + self.current_epoch)", sweep="lr=0.01,0.05"),
    Part(
        "no loss after the first epoch",
        "alone",
        loss="loss = loss * (0 if self.current_epoch else 1)",
        sweep="lr=0.01,0.05",
    ),
    Part("the step", "alone", loss="loss = loss / (1 + self.global_step)", sweep="lr=0.01,0.05"),
    Part("the Trainer", "alone", loss="loss = loss * self.trainer.max_epochs", sweep="lr=0.01,0.05"),
    Part(
        "a guarded look for the Trainer",
        "either",
        loss="loss = loss if self._trainer is None else 2 * loss",
        sweep="lr=0.01,0.05",
    ),
    Part(
        "a caught look at the Trainer",
        "alone",
        loss="try:\n    loss = loss * (1 + self.trainer.current_epoch)\nexcept Exception:\n    loss = loss * 5",
        sweep="lr=0.01,0.05",
    ),
    Part("a log inside of loss", "alone", loss="self.log('inner', loss.detach())", sweep="lr=0.01,0.05"),
    Part("the optimizer", "alone", loss="loss = loss * self.optimizers().param_groups[0]['lr']", sweep="lr=0.01,0.05"),
    # --------------------------------------------------------------------------------------------- random numbers
    Part("torch's generator", "alone", loss="loss = loss * (1 + torch.rand(()))", sweep="seed=0,1"),
    Part("Python's generator", "alone", loss="loss = loss * (1 + random.random())", sweep="seed=0,1"),
    Part("numpy's generator", "alone", loss="loss = loss * (1 + np.random.rand())", sweep="seed=0,1"),
    Part("rarely", "alone", loss="loss = loss * 2 if random.random() < 0.05 else loss", sweep="seed=0,1"),
    Part(
        "a generator of the module",
        "alone",
        "self.dice = random.Random(seed)",
        "loss = loss * 2 if self.dice.random() < 0.05 else loss",
        sweep="seed=0,1",
    ),
    Part(
        "a generator of numpy's in a closure",
        "alone",
        "dice = np.random.default_rng(3)\nself.roll = lambda: dice.random()",
        "loss = loss * (1 + self.roll())",
        sweep="lr=0.01,0.05",
    ),
    Part(
        "a global generator of its own",
        "alone",
        loss="loss = loss * (1 + DICE.random())",
        top="DICE = random.Random(5)",
        sweep="lr=0.01,0.05",
    ),
    Part(
        "dropout",
        "alone",
        "self.drop = nn.Dropout(0.5)",
        "loss = nn.functional.mse_loss(self.drop(out), y)",
        sweep="seed=0,1",
    ),
    # ------------------------------------------------------------------------------------------------------ state
    Part("a counter", "alone", "self.calls = 0", "self.calls += 1\nloss = loss / self.calls", sweep="lr=0.01,0.05"),
    Part(
        "a counter in a closure",
        "alone",
        "count = itertools.count(1)\nself.next = lambda: next(count)",
        "loss = loss / self.next()",
        sweep="lr=0.01,0.05",
    ),
    Part(
        "a list that grows",
        "alone",
        "self.seen = []",
        "self.seen.append(1)\nloss = loss / len(self.seen)",
        sweep="lr=0.01,0.05",
    ),
    Part(
        "a buffer that moves",
        "alone",
        "self.register_buffer('mean', torch.zeros(()))",
        "self.mean.mul_(0.9).add_(0.1 * out.detach().mean())\nloss = loss + self.mean",
        sweep="lr=0.01,0.05",
    ),
    Part(
        "batch norm",
        "alone",
        "self.norm = nn.BatchNorm1d(1)",
        "loss = nn.functional.mse_loss(self.norm(out), y)",
        sweep="lr=0.01,0.05",
    ),
    Part(
        "a cache",
        "alone",
        "self.cache = None",
        "if self.cache is None:\n    self.cache = torch.ones(1)\nloss = loss * self.cache.sum()",
        sweep="lr=0.01,0.05",
    ),
    Part(
        "rows changed in place",
        "either",
        loss="x.mul_(1.5)\nloss = nn.functional.mse_loss(self.network(x), y)",
        sweep="lr=0.001,0.002",
    ),
    # ---------------------------------------------------------------------------------------- drawn from the seed
    Part(
        "a tensor drawn from the seed",
        "stack",
        "self.r = torch.randn(1)",
        "loss = loss + (self.r.to(w.dtype) * out).mean()",
        sweep="seed=0,1,2",
    ),
    Part(
        "a number drawn from the seed",
        "stack",
        "self.r = random.random()",
        "loss = loss + self.r * out.square().mean()",
        sweep="seed=0,1,2",
    ),
    Part(
        "a buffer drawn from the seed",
        "either",
        "self.register_buffer('r', torch.randn(1))",
        "loss = loss + (self.r * out).mean()",
        sweep="seed=0,1 lr=0.01,0.05",
    ),
    Part(
        "a frozen parameter drawn from the seed",
        "either",
        "self.r = nn.Parameter(torch.randn(1), requires_grad=False)",
        "loss = loss + (self.r * out).mean()",
        sweep="seed=0,1 lr=0.01,0.05",
    ),
    Part(
        "an array drawn from the seed",
        "either",
        "self.r = np.random.rand(3)",
        "loss = loss + float(self.r.sum()) * out.square().mean()",
        sweep="seed=0,1",
    ),
    # ------------------------------------------------------------------------------------------------------ hooks
    Part(
        "a hook on a layer",
        "alone",
        "self.network.register_forward_hook(lambda layer, inputs, output: output * 0.5)",
        sweep="lr=0.01,0.05",
    ),
    Part(
        "a hook on a layer that reads a number",
        "alone",
        "self.network.register_forward_hook(lambda layer, inputs, output: output * (1 + l2))",
    ),
    Part(
        "a hook before a layer",
        "alone",
        "self.network.register_forward_pre_hook(lambda layer, inputs: (inputs[0] * 2,))",
        sweep="lr=0.01,0.02",
    ),
    Part(
        "a hook on a gradient",
        "alone",
        "next(self.network.parameters()).register_hook(lambda gradient: gradient * 0.1)",
        sweep="lr=0.01,0.05",
    ),
    Part(
        "a hook after accumulation",
        "alone",
        "next(self.network.parameters()).register_post_accumulate_grad_hook(lambda value: value.grad.mul_(0.1))",
        sweep="lr=0.01,0.05",
    ),
    Part(
        "a hook on the backward pass",
        "alone",
        "self.network.register_full_backward_hook(lambda layer, inner, outer: None)",
        sweep="lr=0.01,0.05",
    ),
    Part(
        "a hook on every module",
        "alone",
        "torch.nn.modules.module.register_module_forward_hook(lambda layer, inputs, output: output * 0.5 if isinstance(layer, nn.Linear) else output)",
        sweep="lr=0.01,0.05",
    ),
    Part(
        "a hook on the object",
        "alone",
        "self.on_train_batch_end = lambda *args: self.network.bias.data.zero_()",
        sweep="lr=0.01,0.05",
    ),
    Part(
        "a step on the object", "alone", "self.training_step = lambda batch: 2 * self.loss(batch)", sweep="lr=0.01,0.05"
    ),
    Part(
        "a hook of the class",
        "alone",
        body="def on_train_epoch_end(self):\n    self.network.bias.data.zero_()",
        sweep="lr=0.01,0.05",
    ),
    Part(
        "a loss on the object",
        "either",
        "self.loss = types.MethodType(lambda self, batch: nn.functional.l1_loss(self.network(batch[0]), batch[1]), self)",
        sweep="lr=0.01,0.05",
    ),
    # -------------------------------------------------------------------------------------------------------- odd
    Part("an unused parameter", "alone", "self.extra = nn.Parameter(torch.ones(2))", sweep="lr=0.01,0.05"),
    Part(
        "shared weights",
        "stack",
        "self.again = nn.Linear(1, 1)\nself.again.weight = self.network.weight",
        "loss = loss + self.again(x).square().mean()",
        sweep="seed=0,1 lr=0.01,0.05",
    ),
    Part(
        "a constant buffer",
        "stack",
        "self.register_buffer('shift', torch.tensor([0.1]))",
        "loss = loss + (out + self.shift).square().mean()",
        sweep="lr=0.01,0.05",
    ),
    Part(
        "training and validation apart",
        "stack",
        loss="loss = 2 * loss if self.training else loss",
        sweep="lr=0.01,0.05",
    ),
    Part(
        "inference mode",
        "either",
        loss="loss = 3 * loss if torch.is_inference_mode_enabled() else loss",
        sweep="lr=0.01,0.05",
    ),
    Part("a branch on the loss", "alone", loss="loss = loss if loss > 1 else 2 * loss", sweep="lr=0.01,0.05"),
    Part("an item", "alone", loss="loss = loss * (1 + loss.item())", sweep="lr=0.001,0.002"),
    Part(
        "a block without gradients",
        "stack",
        loss="with torch.no_grad():\n    scale = out.std() + 1\nloss = loss / scale",
        sweep="lr=0.01,0.05",
    ),
    Part(
        "a detached target",
        "stack",
        loss="loss = loss + (out - (out.detach() + y) / 2).square().mean()",
        sweep="seed=0,1",
    ),
    Part("a loss of shape (1,)", "either", loss="loss = loss.reshape(1)", sweep="lr=0.01,0.05"),
    Part("a default dtype", "either", "torch.set_default_dtype(torch.float64)", sweep="lr=0.01,0.05"),
    Part("prints", "alone", loss="print('a batch')", sweep="lr=0.01,0.05"),
    Part(
        "losses that begin beyond all bounds",
        "either",
        loss="loss = loss * 1e308 * 1e3 if False else loss",
        sweep="lr=1e5,2e5",
    ),
    Part("nothing of its own", "stack", sweep="lr=0.01,0.05 seed=0,1"),
    Part(
        "the lr as an argument",
        "stack",
        "self.lr = lr",
        "loss = loss + self.lr * w.square().sum()",
        keys={"lr": "${lr}"},
        sweep="lr=0.01,0.05",
    ),
]

DATA = [
    Part(
        "own __getitem__",
        "alone",
        top="class Mine(Rows):\n    def __getitem__(self, index):\n        x, y = super().__getitem__(index)\n        return x, y + 5",
        body="return Mine(rows.x, rows.y)",
    ),
    Part(
        "own __getitems__",
        "either",
        top="class Mine(Rows):\n    def __getitems__(self, index):\n        return [(self.x[i], self.y[i] + 5) for i in index]",
        body="return Mine(rows.x, rows.y)",
    ),
    Part(
        "own length",
        "alone",
        top="class Mine(Rows):\n    def __len__(self):\n        return 10",
        body="return Mine(rows.x, rows.y)",
    ),
    Part("a subclass of Rows", "alone", top="class Mine(Rows):\n    pass", body="return Mine(rows.x, rows.y)"),
    Part(
        "noise from the order seed",
        "stack",
        body="g = torch.Generator().manual_seed(self.order_seed + 10)\nreturn Rows(rows.x, rows.y + torch.randn(rows.y.shape, generator=g))",
        sweep="seed=0,1,2",
    ),
    Part(
        "noise from the order seed in training",
        "stack",
        body="if split != 'train':\n    return rows\ng = torch.Generator().manual_seed(self.order_seed + 10)\nreturn Rows(rows.x, rows.y + torch.randn(rows.y.shape, generator=g))",
        sweep="seed=0,1 lr=0.01,0.05",
    ),
    Part(
        "torch's generator",
        "stack",
        body="return Rows(rows.x, rows.y + torch.randn(rows.y.shape))",
        sweep="lr=0.01,0.05",
    ),
    Part(
        "numpy's and Python's generators",
        "stack",
        body="return Rows(rows.x, rows.y + float(np.random.rand()) + random.random())",
        sweep="seed=0,1",
    ),
    Part("the batch size", "either", body="return Rows(rows.x, rows.y + self.batch_size)", sweep="batch_size=5,20"),
    Part(
        "a stackable argument",
        "stack",
        body="return Rows(rows.x, rows.y * (1 + self.extra))",
        sweep="data.extra=0.0,1.0 lr=0.01,0.05",
    ),
    Part(
        "an argument that changes the number of rows",
        "either",
        body="return Rows(rows.x[: 30 + 10 * int(self.extra)], rows.y[: 30 + 10 * int(self.extra)])",
        sweep="data.extra=0.0,1.0 lr=0.01,0.05",
    ),
    Part(
        "an argument that changes the batch size",
        "either",
        init="self.batch_size = 5 + 5 * int(extra)",
        sweep="data.extra=0.0,1.0 lr=0.01,0.05",
    ),
    Part("hyperparameters", "stack", init="self.save_hyperparameters()", sweep="data.extra=0.0,1.0 lr=0.01,0.05"),
    Part(
        "one value fails",
        "either",
        init="if extra == 1.0:\n    raise ValueError('an extra of 1 is not possible')",
        sweep="data.extra=0.0,1.0,2.0 lr=0.01,0.05",
    ),
    Part(
        "one value fails while drawing",
        "either",
        body="if self.extra == 1.0:\n    raise ValueError('an extra of 1 is not possible')\nreturn rows",
        sweep="data.extra=0.0,1.0,2.0",
    ),
    Part(
        "a loader on the object",
        "alone",
        init="self.train_dataloader = lambda: [(torch.ones(4, 1), torch.ones(4, 1))] * 3",
        sweep="lr=0.01,0.05",
    ),
    Part(
        "a loader of the class",
        "alone",
        top="class Loads:\n    def train_dataloader(self):\n        return DataLoader(TensorDataset(self.train.x[:12], self.train.y[:12]), batch_size=4)",
        sweep="lr=0.01,0.05",
    ),
    Part(
        "rows computed anew",
        "alone",
        top="class Anew:\n    @property\n    def train(self):\n        return Rows(self._train.x + torch.rand(1), self._train.y)\n    @train.setter\n    def train(self, rows):\n        self._train = rows",
        sweep="lr=0.01,0.05",
    ),
    Part(
        "reads the Trainer",
        "alone",
        body="return rows if self.trainer is None else Rows(rows.x, rows.y * self.trainer.max_epochs)",
        sweep="lr=0.01,0.05",
    ),
    Part("a fixed order", "stack", init="self.shuffle = False", sweep="lr=0.01,0.05 seed=0,1"),
]

IMPORTS = """
import dataclasses, functools, itertools, math, os, random, types
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from holdfast.data import Line, Rows
from holdfast.model import Regression
"""


def model_source(parts: list[Part]) -> str:
    """A module with some parts."""
    lines = [*(part.top for part in parts), "class Model(Regression):", "    stackable = frozenset({'l2'})"]
    lines += [_indented(part.body, 4) for part in parts]
    lines += [
        "    def __init__(self, l2=0.0, seed=0, lr=0.0):",
        "        super().__init__(nn.Linear(1, 1))",
        *(_indented(part.init, 8) for part in parts),
        "    def loss(self, batch):",
        "        x, y = batch",
        "        out, w = self.network(x), self.network.weight",
        "        loss = nn.functional.mse_loss(out, y)",
        *(_indented(part.loss, 8) for part in parts),
        "        return loss",
    ]
    return "\n".join(lines)


def data_source(part: Part | None) -> str:
    """A data module with a part."""
    if part is None:
        return "Data = Line"
    bases = "".join(f"{name}, " for name in ("Loads", "Anew") if f"class {name}" in part.top)
    return "\n".join(
        [
            part.top,
            f"class Data({bases}Line):",
            "    stackable = Line.stackable | {'extra'}",
            "    def __init__(self, extra=0.0, **keys):",
            "        super().__init__(**keys)",
            "        self.extra = extra",
            _indented(part.init, 8),
            "    def draw(self, split):",
            "        rows = super().draw(split)",
            _indented(part.body or "return rows", 8),
        ]
    )


def _indented(text: str, spaces: int) -> str:
    return "\n".join(" " * spaces + line for line in text.splitlines())
