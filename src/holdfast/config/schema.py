"""The schema of a configuration: every key, its type, its range and its meaning.

The values are in conf/, one file for each option of a group; the schema has no defaults. The keys of the options of
`data`, `model`, `optimizer` and `scheduler` are in `options.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from holdfast.config import rules
from holdfast.config.options import setting
from holdfast.config.trainer_arguments import TrainerArguments

# ------------------------------------------------------------------------------- callbacks, trainer, logger


@dataclass
class Divergence:
    """When a run counts as diverged."""

    threshold: float = setting("a loss above this, in size, ends the run", above=0)


@dataclass
class EarlyStopping:
    """When a run ends because it no longer improves."""

    patience: int | None = setting("epochs without improvement before the end; null never ends early", least=1)
    min_delta: float = setting("smallest change that counts as improvement", least=0)


@dataclass
class Callbacks:
    """Callbacks of the run. Further entries with a `_target_` are Lightning callbacks of the user."""

    divergence: Divergence = setting("")
    early_stopping: EarlyStopping = setting("")
    extras: dict[str, Any] = field(default_factory=dict)


SET_BY_HOLDFAST = {
    "accelerator": "is a key at the top: accelerator=gpu",
    "devices": "is a key at the top: devices=2",
    "precision": "is a key at the top: precision=bf16-mixed",
    "max_epochs": "is a key at the top: epochs=N",
    "logger": "is a group at the top: logger=csv, or an entry with a _target_ in a file of yours",
    "callbacks": "is a group at the top: an entry with a _target_ in a file of yours",
    "enable_checkpointing": "is always on: best.ckpt and last.ckpt are what a run leaves",
    "default_root_dir": "is the folder of the run: hydra.run.dir=FOLDER",
    "_target_": "is not needed: Holdfast makes the Trainer from the keys of this group",
    "barebones": "would switch off what records the run: leave it out",
}
"""Arguments of Lightning's Trainer that Holdfast sets itself: what to type instead."""


@dataclass(kw_only=True)
class Trainer(TrainerArguments):
    """Arguments of `lightning.pytorch.Trainer`, some with a narrower type, and `full_train_loss`, which Holdfast adds.

    Arguments that no YAML file gives have Lightning's defaults.
    """

    full_train_loss: bool = setting("measure train/loss over all training rows each epoch", default=True)
    strategy: str | dict[str, Any] = setting("how several devices work together", check=rules.strategy, default="auto")
    num_nodes: int = setting("machines", least=1, default=1)
    max_steps: int = setting("end after this many iterations; -1 for no limit", check=rules.steps, default=-1)
    max_time: str | None = setting("end after this time, as DD:HH:MM:SS", check=rules.duration, default=None)
    accumulate_grad_batches: int = setting("batches per update of the parameters", least=1, default=1)
    gradient_clip_val: float | None = setting("largest gradient, by gradient_clip_algorithm", above=0, default=None)
    gradient_clip_algorithm: Literal["norm", "value"] = setting("what gradient_clip_val bounds", default="norm")
    limit_train_batches: int | float | None = setting(
        "batches per epoch, as a number or a share", above=0, check=rules.share, default=None
    )
    limit_val_batches: int | float | None = setting(
        "validation batches, as a number or a share", above=0, check=rules.share, default=None
    )
    deterministic: bool | Literal["warn"] | None = setting(
        "refuse operations that are not deterministic, or warn", default=False
    )
    benchmark: bool | None = setting("let cuDNN look for the fastest algorithms", default=None)
    detect_anomaly: bool = setting("stop at the first NaN in a backward pass; slow", default=False)
    sync_batchnorm: bool = setting("share batch-norm statistics between devices", default=False)
    check_val_every_n_epoch: int | None = setting("epochs between two validations", least=1, default=1)
    min_epochs: int | None = setting("epochs before early stopping may end the run", least=1, default=None)
    min_steps: int | None = setting("iterations before early stopping may end the run", least=1, default=None)
    log_every_n_steps: int | None = setting(
        "iterations between two points in loggers of the user's", least=1, default=None
    )


@dataclass(kw_only=True)
class Sweep:
    """How a sweep is trained, and which folders it keeps."""

    folds: int | None = setting(
        "train each job on so many folds of the training and validation rows, and the winner on all of them",
        default=None,
        least=2,
    )
    keep: int | Literal["auto", "all"] = setting(
        "folders of jobs to keep: of so many of the best, or all; auto: of all of up to 100 jobs, of more the 20 best",
        least=1,
    )
    max_stack: int | None = setting("most jobs trained as one program; null lets their cost decide", least=1)
    repeats: list[str] = setting("keys whose values are repeats of the same settings, which are ranked by their mean")
    sampler: Literal["sobol", "random", "zoom", "tpe"] = setting(
        "how a search draws values from intervals: evenly; at random; evenly, then among the best; by Optuna's TPE",
        default="sobol",
    )
    seed: int = setting("of the values that a search draws", default=0, least=0)
    snapshot: float = setting("seconds between two snapshots of a stack, from which it resumes", default=60.0, least=0)
    stack: Literal["auto", "always", "never"] = setting(
        "train jobs together where that has been checked: auto where it is faster too; always; or never",
        default="auto",
    )
    trials: int | None = setting("settings that a search draws from intervals", default=None, least=1)
    verify: bool | Literal["auto"] = setting(
        "train the winner and another job again alone, and compare; auto: where code of your own was in a stack",
        default="auto",
    )


@dataclass
class Logger:
    """Loggers of metrics. Further entries with a `_target_` are Lightning loggers of the user."""

    tensorboard: bool = setting("write an event file for TensorBoard", default=True)
    extras: dict[str, Any] = field(default_factory=dict)


# ----------------------------------------------------------------------------------------------- top level

PRECISIONS = Literal["32-true", "64-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true"]


@dataclass
class Config:
    """The configuration of a run. The groups whose options are classes (`_target_`) stay plain mappings."""

    lr: float = setting("learning rate", above=0)
    batch_size: int | Literal["full"] = setting("rows per iteration; full is batch gradient descent", least=1)
    epochs: int = setting("passes over the training rows", least=1)
    seed: int = setting("seed of the initial weights and of the row order", least=0)
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] = setting("hardware to train on")
    devices: int | list[int] | Literal["auto"] = setting(
        "how many devices, or which: 2, [0,1], auto", least=1, check=rules.devices
    )
    engine: Literal["trainer", "lean"] = setting("what trains a single run: Lightning's Trainer, or the loop of stacks")
    precision: PRECISIONS = setting("bits of the weights and of the arithmetic")
    metric: str = setting("what selects the best epoch and the winner")
    mode: Literal["min", "max"] = setting("whether a lower or a higher metric is better")
    test: bool = setting("open the test rows once, after the fit, with the best weights")
    report: bool | Literal["auto"] = setting("draw figures and a page; auto draws for a sweep, not for a single run")
    init_weights: str | None = setting("file of a checkpoint or a state_dict to start from", check=rules.file)
    init_weights_strict: bool = setting("refuse init_weights that do not fit the model in every parameter")
    resume: str | None = setting("folder of a run, or with -m of a sweep, to resume")
    retry_failed: bool = setting("with resume: run failed jobs again")
    test_again: bool = setting("with resume: open test rows that were opened before; it is counted")
    data: dict[str, Any] = setting("the rows")
    model: dict[str, Any] = setting("what is fitted")
    optimizer: dict[str, Any] = setting("how the parameters move")
    scheduler: dict[str, Any] = setting("how lr changes from epoch to epoch")
    callbacks: Callbacks = setting("")
    trainer: Trainer = setting("")
    logger: Logger = setting("")
    sweep: Sweep = setting("")
    vars: dict[str, object] = setting("keys of your own, for values that several groups share")
