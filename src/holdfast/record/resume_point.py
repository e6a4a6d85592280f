"""What `last.ckpt` holds, beside Lightning's own state, to resume a run from the end of its last epoch.

Row order and random numbers are functions of seed and epoch, so that nothing else has to be stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from holdfast.record.history import History

RESUME_KEY = "holdfast"
"""The key of our entry in a Lightning checkpoint."""


@dataclass(frozen=True)
class EventPosition:
    """The event file at the end of an epoch.

    Attributes:
        name: name of the file; "" if there was none.
        size: in bytes.
        steps, epochs: number of iterations and epochs that were written.
        logged: tags that the user's code logged through Lightning; they are not written from the history.
    """

    name: str = ""
    size: int = 0
    steps: int = 0
    epochs: int = 0
    logged: Sequence[str] = ()


def resume_entry(history: History, config_hash: str, seconds: float, position: EventPosition) -> dict[str, Any]:
    """The entry `RESUME_KEY` of a checkpoint, in plain containers and tensors.

    Args:
        history: the run so far; what follows its last complete epoch is left out.
        config_hash: digest of the run's configuration.
        seconds: duration of the run so far.
        position: the event file at the end of the last complete epoch.
    """
    reached = history.reached
    return {
        "config_hash": config_hash,
        "seconds": seconds,
        "losses": torch.tensor(history.losses[: reached.losses], dtype=torch.float64),
        "clock": torch.tensor([pair for pair in history.clock if pair[0] <= reached.losses], dtype=torch.float64),
        "epochs": [vars(epoch) for epoch in history.epochs],
        "standing": {name: np.asarray(value).item() for name, value in vars(reached.standing).items()},
        "descent": [point.cpu() for point in history.parameter_path[: reached.points]],
        "place": vars(position),
    }
