"""What `last.ckpt` holds, beside Lightning's own state, to resume a run from the end of its last epoch.

Row order and random numbers are functions of seed and epoch, so that nothing else has to be stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from holdfast.record.history import Trace

KEY = "holdfast"
"""Our entry in a checkpoint of Lightning's."""


@dataclass(frozen=True)
class Place:
    """The event file at the end of an epoch.

    Attributes:
        name: name of the file; "" if there was none.
        size: in bytes.
        steps, epochs: how many iterations and epochs were written.
        logged: tags that the user's code logged through Lightning, which are not written from the trace.
    """

    name: str = ""
    size: int = 0
    steps: int = 0
    epochs: int = 0
    logged: Sequence[str] = ()


def state(trace: Trace, config_hash: str, seconds: float, place: Place) -> dict[str, Any]:
    """The entry `KEY` of a checkpoint, in plain containers and tensors.

    Args:
        trace: the run so far; what follows its last epoch is left out.
        config_hash: digest of the run's configuration.
        seconds: duration of the run so far.
        place: the event file at the end of the last epoch.
    """
    reached = trace.reached
    return {
        "config_hash": config_hash,
        "seconds": seconds,
        "losses": torch.tensor(trace.losses[: reached.losses], dtype=torch.float64),
        "clock": torch.tensor([entry for entry in trace.clock if entry[0] <= reached.losses], dtype=torch.float64),
        "epochs": [vars(epoch) for epoch in trace.epochs],
        "standing": {name: np.asarray(value).item() for name, value in vars(reached.standing).items()},
        "descent": [point.cpu() for point in trace.descent[: reached.points]],
        "place": vars(place),
    }
