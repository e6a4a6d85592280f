"""Arguments of `lightning.pytorch.Trainer` with their types and defaults.

Made by `python -m tests.config.trainer_arguments` from the installed Lightning, so that a mistake is reported without
importing it; a test holds the two equal. `schema.py` narrows the types of some.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from holdfast.config.options import setting


@dataclass(kw_only=True)
class TrainerArguments:
    """Arguments of Lightning's Trainer, except for those that Holdfast sets; a mapping names a class as `_target_`."""

    strategy: str | dict[str, Any] = setting(
        "supports different training strategies with aliases as well custom strategies", default="auto"
    )
    num_nodes: int = setting("number of GPU nodes for distributed training", default=1)
    fast_dev_run: bool | int = setting(
        "runs n if set to n (int) else 1 if set to True batch(es) of train, val and test to ...", default=False
    )
    min_epochs: int | None = setting("force training for at least these many epochs", default=None)
    max_steps: int = setting("stop training after this number of steps", default=-1)
    min_steps: int | None = setting("force training for at least these number of steps", default=None)
    max_time: str | dict[str, Any] | None = setting("stop training after this amount of time has passed", default=None)
    limit_train_batches: float | int | None = setting(
        "how much of training dataset to check (float = fraction, int = num_batches)", default=None
    )
    limit_val_batches: float | int | None = setting(
        "how much of validation dataset to check (float = fraction, int = num_batches)", default=None
    )
    limit_test_batches: float | int | None = setting(
        "how much of test dataset to check (float = fraction, int = num_batches)", default=None
    )
    limit_predict_batches: float | int | None = setting(
        "how much of prediction dataset to check (float = fraction, int = num_batches)", default=None
    )
    overfit_batches: float | int = setting(
        "overfit a fraction of training/validation data (float) or a set number of batches (int)", default=0.0
    )
    val_check_interval: float | int | str | dict[str, Any] | None = setting(
        "how often to check the validation set", default=None
    )
    check_val_every_n_epoch: int | None = setting("perform a validation loop after every N training epochs", default=1)
    num_sanity_val_steps: int | None = setting(
        "sanity check runs n validation batches before starting the training routine", default=None
    )
    log_every_n_steps: int | None = setting("how often to log within steps", default=None)
    enable_progress_bar: bool | None = setting("whether to enable to progress bar by default", default=None)
    enable_model_summary: bool | None = setting("whether to enable model summarization by default", default=None)
    accumulate_grad_batches: int = setting(
        "accumulates gradients over k batches before stepping the optimizer", default=1
    )
    gradient_clip_val: float | int | None = setting("the value at which to clip gradients", default=None)
    gradient_clip_algorithm: str | None = setting("the gradient clipping algorithm to use", default=None)
    deterministic: bool | Literal["warn"] | None = setting(
        "if True, sets whether PyTorch operations must use deterministic algorithms", default=None
    )
    benchmark: bool | None = setting("the value (True or False) to set torch.backends.cudnn.benchmark to", default=None)
    inference_mode: bool = setting(
        "whether to use torch.inference_mode or torch.no_grad during evaluation ...", default=True
    )
    use_distributed_sampler: bool = setting(
        "whether to wrap the DataLoader's sampler with torch.utils.data.DistributedSampler", default=True
    )
    profiler: str | dict[str, Any] | None = setting(
        "to profile individual steps during training and assist in identifying bottlenecks", default=None
    )
    detect_anomaly: bool = setting("enable anomaly detection for the autograd engine", default=False)
    plugins: dict[str, Any] | list[dict[str, Any]] | None = setting(
        "plugins allow modification of core behavior like ddp and amp, and enable custom ...", default=None
    )
    sync_batchnorm: bool = setting("synchronize batch norm layers between process groups/whole world", default=False)
    reload_dataloaders_every_n_epochs: int = setting(
        "set to a positive integer to reload dataloaders every n epochs", default=0
    )
    enable_autolog_hparams: bool = setting("whether to log hyperparameters at the start of a run", default=True)
    model_registry: str | None = setting("the name of the model being uploaded to Model hub", default=None)
