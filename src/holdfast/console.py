"""What a run says on the terminal."""

from __future__ import annotations

import logging
import shlex

from holdfast.runs import Result, RunFolder


class BelowError(logging.Filter):
    """Keeps errors off standard output; they go to standard error."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record belongs on standard output."""
        return record.levelno < logging.ERROR


def summary(result: Result, folder: RunFolder) -> str:
    """The end of a run in a few lines: its best epoch, its files, and how to look at it.

    Args:
        result: how the run ended.
        folder: where it lies.
    """
    lines = []
    if result.status == "diverged":
        lines.append(f"This run {result.error}. A smaller learning rate may help.")
    if result.best is not None:
        lines.append(f"best {result.metric} {_number(result.best[result.metric])} in epoch {result.best['epoch']}")
        if result.best.get("train/loss") is not None:
            lines[-1] += f", train/loss {_number(result.best['train/loss'])}"
        lines[-1] += f"  ({result.epochs} epochs, {result.iterations} iterations, {result.seconds:.1f} s)"
    else:
        lines.append(f"no epoch had a finite {result.metric}: there is no best epoch and no best.ckpt")
    if result.test is not None:
        metrics = ", ".join(f"{name} {_number(value)}" for name, value in result.test.items())
        lines.append(f"test rows opened {result.test_opened}x: {metrics}")
    files = [path.name for path in (folder.best, folder.last, folder.weights, folder.result) if path.exists()]
    lines.append(f"{folder.path}: {' '.join(files)}")
    lines.append(f"tensorboard --logdir {shlex.quote(str(folder.path.parent.parent))}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "nan" if value is None else f"{value:.6g}"
