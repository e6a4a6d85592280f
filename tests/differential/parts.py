"""Parts from which the differential test generates the modules and data modules of users.

Some can be stacked, some cannot, and some are unusual. They are defined in `models.yaml` and `data.yaml`. `init` is
inserted into `__init__`, where `l2` is the swept argument; `loss` into `loss`, with the variables `x`, `y`, `out` (the
prediction), `w` (a parameter) and `loss`; `top` is placed above the class and `body` in it. In a data module, `body` is
inserted into `draw`, where `rows` are those of `holdfast.data.Line`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import yaml

IMPORTS = """
import dataclasses, functools, itertools, math, os, random, threading, types
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from holdfast.data import Line, Rows
from holdfast.model import Regression
"""


@dataclass(frozen=True)
class Part:
    """Lines of code that become part of a user's class.

    Attributes:
        name: what the lines do.
        kind: `stack` if the jobs must share a stack, `alone` if they must be trained alone, `either` if both are right.
        keys: further keys of the option's YAML file.
        sweep: overrides of a sweep whose jobs differ in the part.
    """

    name: str
    kind: str = "either"
    init: str = ""
    loss: str = ""
    top: str = ""
    body: str = ""
    keys: dict[str, str] = field(default_factory=dict)
    sweep: str = "model.l2=0.0,0.3,2.0"


MODELS, DATA = (
    [Part(**entry) for entry in yaml.safe_load(Path(__file__).with_name(name).read_text())]
    for name in ("models.yaml", "data.yaml")
)


def model_source(parts: list[Part]) -> str:
    """The source of a module with some parts."""
    lines = [*(part.top for part in parts), "class Model(Regression):"]
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
    """The source of a data module with a part."""
    if part is None:
        return "Data = Line"
    bases = "".join(f"{name}, " for name in ("Loads", "Anew") if f"class {name}" in part.top)
    return "\n".join(
        [
            part.top,
            f"class Data({bases}Line):",
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
