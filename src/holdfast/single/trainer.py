"""One run, trained by a Lightning Trainer."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.model_helpers import is_overridden

from holdfast.config.schema import Config
from holdfast.errors import HoldfastError, Stopped, in_a_line
from holdfast.record.checkpoint import CheckpointIO, load
from holdfast.record.history import Rules, Snapshot, Trace, divergence
from holdfast.record.writer import Writer, hparams, write_tested
from holdfast.single.assemble import BARE, assemble, build, extras, seed_rows
from holdfast.single.devices import check, is_leader
from holdfast.single.isolation import isolated
from holdfast.single.progress import Progress
from holdfast.single.recorder import EventLogger, Recorder
from holdfast.single.restore import find, go_on, restore
from holdfast.store.files import digest, remove_partial, write_json
from holdfast.store.folders import RunFolder
from holdfast.store.result import Result, Status


def train_one(
    config: Config, folder: RunFolder, *, overrides: list[str], config_hash: str, progress: bool = False
) -> Result:
    """Train one configuration and leave a finished folder behind.

    A run that was stopped goes on from its last checkpoint, as if it had never been. `result.json` tells how the run
    ended; an exception is told there and then raised again. A run that a signal ends has no `result.json`: it is not
    finished.

    Args:
        config: what to train.
        folder: this run's alone.
        overrides: the words the run was started with, for the record.
        config_hash: digest of the resolved configuration, for the record.
        progress: whether to draw a bar.

    Raises:
        Stopped: a signal ended the run.
    """
    ended = folder.finished(config_hash) if config.test and config.test_again else None
    if ended is not None and ended.status == "completed":
        return _test_again(config, folder, ended)
    found = find(folder, config_hash)
    trace, rules, opened = Trace(), Rules.of(config), _opened(folder)
    writer = Writer(
        folder,
        rules,
        config_hash,
        hparams=hparams(config, overrides),
        tensorboard=config.logger.tensorboard,
        leader=is_leader(),
    )

    def finish(status: Status, **told: Any) -> Result:
        return writer.finish(trace, status, overrides=overrides, **told)

    if is_leader():
        remove_partial(folder.path)
        if found is None:
            folder.clear()
    if found is not None:
        trace = restore(found, folder)
        writer.go_on(found, trace)

    recorder = Recorder(
        trace,
        rules,
        CheckpointIO(),
        seed=config.seed,
        full_train_loss=config.trainer.full_train_loss,
        descent=config.report is not False,
        update=writer.update,
    )
    with isolated():
        try:
            check(config)
            module, data = build(config)
            if config.test and not is_overridden("test_step", module):
                raise HoldfastError(f"test=true needs a test_step, which {type(module).__name__} does not have")
            bar = [Progress(config.epochs)] if progress and is_leader() else []
            trainer = assemble(
                config,
                data,
                default_root_dir=folder.path,
                plugins=[recorder.checkpoint_io],
                callbacks=[recorder, *bar, *extras(config.callbacks.extras)],
                logger=[EventLogger(writer, folder), *extras(config.logger.extras)],
            )
            writer.leader = trainer.is_global_zero
            if found:
                go_on(trainer, trace.reached)
            if not trace.reached.standing.end:  # it may have been stopped when all was over but the writing
                seed_rows()
                trainer.fit(module, datamodule=data, ckpt_path=folder.last if found else None, weights_only=True)
            if trace.reached.standing.end == "diverged":
                return finish("diverged", error=divergence(trace.reached.epochs - 1, rules))
            if not (config.test and trace.reached.best):
                return finish("completed")
            writer.flush(trace)
            _announce(folder, opened, again=config.test_again, leader=writer.leader)
            tested = _test(trainer, module, data, trace.reached.best)
            return finish("completed", test=tested, test_opened=opened + recorder.test_opened)
        except Exception as error:
            finish("failed", error=in_a_line(error), test_opened=opened + recorder.test_opened)
            raise
        except (KeyboardInterrupt, SystemExit) as stop:
            if _is_users_exit(stop):
                left = f"the user's code left by sys.exit({stop})"
                finish("failed", error=left, test_opened=opened + recorder.test_opened)
                raise HoldfastError(left) from stop
            # no result.json: this run is not finished, it may be gone on with
            with suppress(HoldfastError):
                writer.flush(trace)
            raise (Stopped(signal.SIGTERM) if isinstance(stop, SIGTERMException) else Stopped.of(stop)) from None


def _is_users_exit(stop: BaseException) -> bool:
    """Whether the user's code called `sys.exit`, as Lightning does for a signal."""
    of_signal = isinstance(stop, SIGTERMException) or isinstance(stop.__context__, KeyboardInterrupt)
    return isinstance(stop, SystemExit) and not of_signal


OPENED = "the test rows were opened before, and what they said was lost; test_again=true opens them again"


def _opened(folder: RunFolder) -> int:
    """How often the test rows were opened for a run."""
    try:
        return int(json.loads(folder.test_ledger.read_bytes())["count"])
    except FileNotFoundError:
        return 0


def _announce(folder: RunFolder, before: int, *, again: bool, leader: bool) -> None:
    """Write down that the test rows are being opened, and for which weights, before they are."""
    if before and not again:
        raise HoldfastError(OPENED)
    if leader:
        write_json(folder.test_ledger, {"sha256": digest(folder.best), "count": before + 1})


def _test_again(config: Config, folder: RunFolder, ended: Result) -> Result:
    """Open the test rows of a finished run once more; nothing else of it changes."""
    opened = _opened(folder)
    tested = test_best(config, folder, lambda: _announce(folder, opened, again=True, leader=is_leader()))
    return folder.commit(replace(ended, test=tested, test_opened=opened + 1))


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
        module.load_state_dict(load(folder.best, folder.recorded_digest(folder.best))["state_dict"])
        trainer = pl.Trainer(
            accelerator=config.accelerator,
            devices=1,
            precision=config.precision,
            default_root_dir=folder.path,
            logger=False,
            enable_checkpointing=False,
            **BARE,
        )
        announce()
        seed_rows()
        trainer.test(module, datamodule=data, verbose=False)
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if config.logger.tensorboard:
            write_tested(folder, metrics)
        return metrics


def _test(
    trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule, best: Snapshot
) -> dict[str, float]:
    """Open the test rows, once, with the best weights."""
    weights: Any = trainer.strategy.broadcast(best.checkpoint.get("state_dict"))  # only the leader keeps snapshots
    module.load_state_dict(weights)
    seed_rows()
    trainer.test(module, datamodule=data, verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}
