"""One run, trained by a Lightning Trainer."""

from __future__ import annotations

import dataclasses
import logging
import os
import random
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from hydra.utils import get_object, instantiate
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.model_helpers import is_overridden

from holdfast.data import DataModule
from holdfast.errors import HoldfastError, Stopped, in_a_line
from holdfast.model import Module
from holdfast.runs import Result, RunFolder, Status
from holdfast.schema import Config
from holdfast.seeding import derive, reseed
from holdfast.train.callbacks import EventLogger, Progress, Recorder
from holdfast.train.checkpoint import CheckpointIO
from holdfast.train.machine import check, is_leader
from holdfast.train.trace import Rules, Snapshot, Trace
from holdfast.train.writer import Writer

_BARE: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
"""What no Trainer here needs."""

OURS = frozenset({"full_train_loss"})
"""Keys of the trainer group that Lightning's Trainer does not know."""


def train_one(
    config: Config, folder: RunFolder, *, overrides: list[str], config_hash: str, progress: bool = False
) -> Result:
    """Train one configuration and leave a finished folder behind.

    `result.json` tells how the run ended; an exception is told there and then raised again. A run that a signal ends
    has no `result.json`: it is not finished.

    Args:
        config: what to train.
        folder: this run's alone.
        overrides: the words the run was started with, for the record.
        config_hash: digest of the resolved configuration, for the record.
        progress: whether to draw a bar.

    Raises:
        Stopped: a signal ended the run.
    """
    trace, rules, began = Trace(), Rules.of(config), time.perf_counter()
    writer = Writer(
        folder,
        rules,
        hparams=_hparams(config, overrides),
        tensorboard=config.logger.tensorboard,
        leader=is_leader(),
    )

    def finish(status: Status, **told: Any) -> Result:
        seconds = time.perf_counter() - began
        return writer.finish(trace, status, overrides=overrides, config_hash=config_hash, seconds=seconds, **told)

    recorder = Recorder(
        trace,
        rules,
        CheckpointIO(),
        seed=config.seed,
        full_train_loss=config.trainer.full_train_loss,
        update=writer.update,
    )
    with isolated():
        try:
            check(config)
            module, data = build(config)
            if config.test and not is_overridden("test_step", module):
                raise HoldfastError(f"test=true needs a test_step, which {type(module).__name__} does not have")
            bar = [Progress(config.epochs)] if progress and is_leader() else []
            trainer = _trainer(config, folder, [recorder, *bar], writer, data)
            trainer.fit(module, datamodule=data)
            if trace.standing.end == "diverged":
                return finish("diverged", error=_divergence(trace, rules))
            tested = _test(trainer, module, data, trace.best) if config.test and trace.best else None
            return finish("completed", test=tested, test_opened=recorder.test_opened)
        except Exception as error:
            finish("failed", error=in_a_line(error), test_opened=recorder.test_opened)
            raise
        except (KeyboardInterrupt, SystemExit) as stop:
            # no result.json: this run is not finished, it may be gone on with
            writer.flush(trace)
            raise Stopped(signal.SIGTERM if isinstance(stop, SIGTERMException) else signal.SIGINT) from None


def test_best(config: Config, folder: RunFolder, announce: Callable[[], None]) -> dict[str, float] | None:
    """Open the test rows for the best weights of a finished run.

    Args:
        config: what the run was trained with.
        folder: the run's.
        announce: called when all is ready, right before the rows are opened.

    Returns:
        The test metrics, or None where a module of the user's own has no test rows, or no test step.
    """
    with isolated():
        module, data = build(config)
        if not (is_overridden("test_dataloader", data) and is_overridden("test_step", module)):
            return None
        module.load_state_dict(torch.load(folder.best, map_location="cpu", weights_only=True)["state_dict"])
        trainer = pl.Trainer(
            accelerator=config.accelerator,
            devices=1,
            precision=config.precision,
            default_root_dir=folder.path,
            logger=False,
            enable_checkpointing=False,
            **_BARE,
        )
        announce()
        trainer.test(module, datamodule=data, verbose=False)
        return {name: float(value) for name, value in trainer.callback_metrics.items()}


def data_digest(source: Mapping[str, Any]) -> str | None:
    """What tells whether two jobs have the same validation rows.

    Returns:
        What the data module's `digest()` says, as ours do; None for one of the user's own without it.
    """
    with isolated():
        data = _make(source)
        return str(data.digest()) if hasattr(data, "digest") else None


@contextmanager
def isolated() -> Iterator[None]:
    """Leave what a run changes outside of itself as it was: random numbers, warnings, environment, torch's switches."""
    environment = dict(os.environ)
    python, arrays = random.getstate(), np.random.get_state()
    deterministic, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    # looking at the generators of GPUs that nobody has used yet would start every one of them
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=gpus), warnings.catch_warnings():
        _quiet()
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)
            torch.use_deterministic_algorithms(deterministic)
            torch.backends.cudnn.benchmark = benchmark
            os.environ.clear()
            os.environ.update(environment)
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()  # the next job may use another number of processes


def build(config: Config) -> tuple[pl.LightningModule, pl.LightningDataModule]:
    """The module, its weights drawn from the seed, and the data module of a configuration."""
    reseed(derive(config.seed, "weights"))
    module, data = _make(config.model), _make(config.data)
    if isinstance(module, Module):
        scheduler = partial(_make, config.scheduler) if config.scheduler["_target_"] else None
        module.optimize_with(partial(_make, config.optimizer), scheduler, config.metric)
    return module, data


def _make(group: Mapping[str, Any], *args: Any) -> Any:
    """What a group's `_target_` names, with the group's keys as its arguments."""
    keys = {key: value for key, value in group.items() if key != "_target_"}
    if any(key.startswith("_") for key in keys) or any(isinstance(value, (dict, list)) for value in keys.values()):
        return instantiate(group, *args, _convert_="all")
    # Hydra takes 8 ms to look for what may be nested; here nothing is
    return get_object(group["_target_"])(*args, **keys)


def _trainer(
    config: Config, folder: RunFolder, callbacks: list[pl.Callback], writer: Writer, data: pl.LightningDataModule
) -> pl.Trainer:
    return pl.Trainer(
        accelerator=config.accelerator,
        devices=config.devices,
        precision=config.precision,
        max_epochs=config.epochs,
        default_root_dir=folder.path,
        plugins=[callback.checkpoint_io for callback in callbacks if isinstance(callback, Recorder)],
        callbacks=[*callbacks, *_extras(config.callbacks.extras)],
        logger=[EventLogger(writer, folder), *_extras(config.logger.extras)],
        use_distributed_sampler=not isinstance(data, DataModule),  # ours shares the rows out itself
        **_BARE,
        profiler=_NoProfiler(),
        **{key: value for key, value in dataclasses.asdict(config.trainer).items() if key not in OURS},
    )


def _divergence(trace: Trace, rules: Rules) -> str:
    return f"diverged in epoch {len(trace.epochs) - 1}: a loss was not finite, or passed {rules.threshold:g}"


def _test(
    trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule, best: Snapshot
) -> dict[str, float]:
    """Open the test rows, once, with the best weights."""
    weights: Any = trainer.strategy.broadcast(best.checkpoint.get("state_dict"))  # only the leader keeps snapshots
    module.load_state_dict(weights)
    trainer.test(module, datamodule=data, verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def _extras(group: Mapping[str, Any]) -> list[Any]:
    """The callbacks or loggers of the user's own."""
    return [_make(entry) for entry in group.values()]


def _hparams(config: Config, overrides: list[str]) -> dict[str, Any]:
    """The row of a run in TensorBoard's HParams: what a user usually varies, and every key that was typed."""
    values = dataclasses.asdict(config)
    row = {key: values[key] for key in ("lr", "batch_size", "epochs", "seed")}
    for group in ("data", "model", "optimizer"):
        row[group] = values[group]["_target_"].rpartition(".")[2]
    for word in overrides:
        if word.startswith("~"):
            continue
        key = word.lstrip("+").partition("=")[0]
        node: Any = values
        for part in key.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        if not isinstance(node, Mapping):
            row[key] = node
    return row


def _quiet() -> None:
    """Leave out what Lightning says about matters that are decided here."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*isinstance.treespec, LeafSpec.*",  # Lightning's own use of torch
        ".*does not have many workers.*",  # rows lie in memory: workers cost more than they bring
        ".*smaller than the logging interval.*",  # losses are recorded at every iteration
        ".*sync_dist=True.*",  # every process measures all rows: there is nothing to add up
        ".*available but not used.*",  # the accelerator was chosen
        ".*directory .* exists and is not empty.*",  # the folder was claimed for this run
    ):
        warnings.filterwarnings("ignore", message)


class _NoProfiler(Profiler):
    """Lightning's own idle profiler makes a context manager anew at each of some twenty hooks an iteration."""

    _IDLE: AbstractContextManager[None] = nullcontext()

    def profile(self, action_name: str) -> Any:
        return self._IDLE

    def start(self, action_name: str) -> None:
        pass

    def stop(self, action_name: str) -> None:
        pass

    def summary(self) -> str:
        return ""
