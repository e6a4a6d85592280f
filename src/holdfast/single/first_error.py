"""The error that ended a training, where Lightning's teardown after it has raised another one."""

from __future__ import annotations

import traceback


def first_error(error: Exception) -> Exception:
    """The error of the training that an error of Lightning's teardown has replaced; otherwise the error itself.

    A loader that fails in `__iter__` leaves a loop half set up, whose teardown fails with `Please call
    iter(combined_loader) first.`

    Args:
        error: what `Trainer.fit` has raised.
    """
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    torn_down = any(
        frame.f_code.co_name == "_teardown" and frame.f_globals.get("__name__") == "lightning.pytorch.trainer.trainer"
        for frame in frames
    )
    return error.__context__ if torn_down and isinstance(error.__context__, Exception) else error
