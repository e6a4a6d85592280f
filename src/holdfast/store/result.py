"""How a run ended, as `result.json` records it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["completed", "diverged", "failed"]


@dataclass(frozen=True)
class Result:
    """How a run ended. `result.json` is written last: a run that has one is finished.

    Epochs count from 0. A value that is not finite is None, since JSON has no NaN.

    Attributes:
        status: `completed`, `diverged` or `failed`.
        overrides: the overrides that the run was started with.
        config_hash: digest of the configuration, see `holdfast.config.job.config_hash`.
        metric: name of the metric that chose the best epoch, such as `val/loss`.
        best: the best epoch and its metrics; None if no epoch was finite.
        last: the last epoch and its metrics.
        epochs: number of epochs trained.
        iterations: number of updates of the parameters.
        seconds: duration of the fit, in seconds; for jobs of a stack, the duration of the whole stack.
        error: why the run diverged or failed.
        sha256: digest of each file of the run, in hex, by the name of the file.
        test: metrics of the best weights on the test rows, where these were opened.
        test_opened: how often the test rows were opened.
        versions: versions of Python and of the packages that affect the numbers.
        by_epoch: of a job on a fold, the metric at the end of each epoch; None of any other.
    """

    status: Status
    overrides: list[str]
    config_hash: str
    metric: str
    best: dict[str, Any] | None = None
    last: dict[str, Any] | None = None
    epochs: int = 0
    iterations: int = 0
    seconds: float = 0.0
    error: str | None = None
    sha256: dict[str, str] = field(default_factory=dict)
    test: dict[str, Any] | None = None
    test_opened: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    by_epoch: list[float | None] | None = None
