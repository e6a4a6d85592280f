"""Trains one run with Lightning's Trainer, and tests its best weights."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.model_helpers import is_overridden

from holdfast.config.job import JobSpec
from holdfast.config.schema import Config
from holdfast.errors import HoldfastError, Stopped, in_a_line
from holdfast.model import Module
from holdfast.record.checkpoint import load
from holdfast.record.history import History
from holdfast.record.resume_point import RESUME_KEY
from holdfast.record.stopping import StoppingRules, divergence_message
from holdfast.record.writer import Writer, hparams, write_tested
from holdfast.runtime.devices import check
from holdfast.runtime.isolation import isolated
from holdfast.runtime.processes import is_leader, is_started_by_holdfast
from holdfast.runtime.targets import instantiate
from holdfast.single.build import build, build_trainer, check_testable, seed_rows
from holdfast.single.event_logger import EventLogger, close_runs, users_loggers
from holdfast.single.first_error import first_error
from holdfast.single.midway import Midway, find_midway, restore_inside
from holdfast.single.progress import FitProgress
from holdfast.single.recorder import Recorder
from holdfast.single.restore import check_table, find_checkpoint, prepare_to_resume, restored
from holdfast.single.shared_metrics import share_evaluation
from holdfast.store.files import digest, remove_partial
from holdfast.store.folders import RunFolder
from holdfast.store.result import Result, Status
from holdfast.store.test_ledger import TestLedger
from holdfast.usercode.packages import place_of_users


def train_one(job: JobSpec, folder: RunFolder, *, progress: bool = False) -> Result:
    """Train one job and leave a finished folder behind.

    A run that was interrupted resumes from the end of its last epoch, or from a later checkpoint inside an epoch, as if
    it had never been interrupted. `result.json` records how the run ended; an exception is recorded there and raised
    again. A run that a signal interrupts has no `result.json`: it is not finished.

    Args:
        job: what to train.
        folder: folder of the run, which no other process writes to.
        progress: whether to draw a progress bar.

    Returns:
        How the run ended, as in `result.json`.

    Raises:
        Stopped: a signal interrupted the run.
        CheckpointError: `last.ckpt` cannot be read, or is of another configuration.
        HoldfastError: the user's code called `sys.exit`, or something else that the user can mend.
    """
    if tests_again(job, folder) and (finished := folder.read()) is not None:
        return _test_again(job.config, folder, finished)
    run = _Fit(job, folder)
    with isolated():
        try:
            return run.train(progress=progress)
        except Exception as error:
            run.fail(in_a_line(error) + place_of_users(error))
            raise
        except (KeyboardInterrupt, SystemExit) as stop:
            if _is_users_exit(stop):
                reason = f"the user's code left by sys.exit({stop})"
                run.fail(reason)
                raise HoldfastError(reason) from stop
            with suppress(HoldfastError):
                run.interrupt()
            raise (Stopped(signal.SIGTERM) if isinstance(stop, SIGTERMException) else Stopped.of(stop)) from None


def tests_again(job: JobSpec, folder: RunFolder) -> bool:
    """Whether the run is finished, and only its test rows are opened once more."""
    if not (job.config.test and job.config.test_again):
        return False
    finished = folder.finished(job.config_hash)
    return finished is not None and finished.status == "completed"


def record_failure(job: JobSpec, folder: RunFolder, error: str) -> None:
    """Write the result of a run whose processes have failed, from the checkpoints that they left."""
    try:
        _Fit(job, folder).fail(error)
    except HoldfastError:  # a checkpoint cannot be read
        folder.commit(Result("failed", list(job.overrides), job.config_hash, job.config.metric, error=error))


class _Fit:
    """A run, from what its folder holds before to its result."""

    def __init__(self, job: JobSpec, folder: RunFolder) -> None:
        config, overrides = job.config, list(job.overrides)
        self._config, self._folder, self._overrides = config, folder, overrides
        self._checkpoint = find_checkpoint(folder, job.config_hash)
        epochs = 0 if self._checkpoint is None else len(self._checkpoint[RESUME_KEY]["epochs"])
        self._midway = find_midway(folder, job.config_hash, epochs)
        self._history, self._rules = History(), StoppingRules.from_config(config)
        self._ledger = TestLedger(folder.test_ledger, again=config.test_again)
        self._opened_before = self._ledger.count()
        self._writer = Writer(
            folder,
            self._rules,
            job.config_hash,
            hparams=hparams(job),
            tensorboard=config.logger.tensorboard,
            leader=is_leader(),
        )
        if is_leader():
            remove_partial(folder.path)
            if self._checkpoint is None:
                folder.clear(midway=self._midway is None)
        if self._checkpoint is not None:
            self._history = restored(self._checkpoint, folder)
            self._writer.resume(self._checkpoint, self._history)
        if self._midway is not None:
            restore_inside(self._history, self._midway)
            self._writer.count_from(self._midway[RESUME_KEY]["seconds"])
        midway = Midway(config, folder, job.config_hash, self._writer, self._midway)
        self._recorder = Recorder(config, self._history, self._writer.update, midway)

    def train(self, *, progress: bool) -> Result:
        """Train, and test the best weights if the configuration says so."""
        check(self._config)
        module, data = build(self._config)
        check_table(self._midway or self._checkpoint or {}, module)
        if isinstance(module, Module):
            self._writer.bare = module.bare
        if self._config.test:
            check_testable(module, data)
        trainer = self._build_trainer(data, progress=progress)
        share_evaluation(trainer, module, data)
        self._fit(trainer, module, data)
        reached = self._history.reached
        if reached.standing.end == "diverged":
            return self._finish("diverged", error=divergence_message(reached.epochs - 1, self._rules))
        if not (self._config.test and reached.best):
            return self._finish("completed")
        self._writer.flush(self._history)
        _write_opening(self._ledger, self._folder, leader=self._writer.leader)
        # only the leader keeps snapshots
        module.load_state_dict(trainer.strategy.broadcast(reached.best.checkpoint.get("state_dict")))  # type: ignore[arg-type]
        return self._finish("completed", test=_test(trainer, module, data), test_opened=self._test_opened)

    def fail(self, error: str) -> None:
        """Write a result that says why the run failed; where another process waits for this one, it does so."""
        if is_started_by_holdfast():
            with suppress(HoldfastError):
                self.interrupt()
            return
        self._finish("failed", error=error, test_opened=self._test_opened)

    def interrupt(self) -> None:
        """Write what is needed to resume the run, and no result."""
        self._writer.flush(self._history)

    @property
    def _test_opened(self) -> int:
        """How often the test rows of the run were opened."""
        return self._opened_before + self._recorder.test_opened

    def _build_trainer(self, data: pl.LightningDataModule, *, progress: bool) -> pl.Trainer:
        bar = [FitProgress(self._config.epochs)] if progress and is_leader() else []
        callbacks = map(instantiate, self._config.callbacks.extras.values())
        loggers = map(instantiate, self._config.logger.extras.values())
        trainer = build_trainer(
            self._config,
            data,
            default_root_dir=self._folder.path,
            plugins=[self._recorder.checkpoint_io],
            callbacks=[self._recorder, *bar, *callbacks],
            logger=[EventLogger(self._writer, self._folder), *loggers],
        )
        self._writer.leader = trainer.is_global_zero
        return trainer

    def _fit(self, trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule) -> None:
        """Train from the checkpoint, if there is one, or from the start."""
        if self._checkpoint or self._midway:
            prepare_to_resume(trainer, self._history.reached)
        if self._history.reached.standing.end:  # the run was interrupted after training, before its result was written
            return
        if self._config.trainer.enable_autolog_hparams:
            # Lightning logs those of the module and the data itself, and some loggers refuse a second value
            logged = {*module.hparams_initial, *data.hparams_initial}
            values = {key: value for key, value in dataclasses.asdict(self._config).items() if key not in logged}
            for logger in users_loggers(trainer):
                logger.log_hyperparams(values)
        seed_rows()
        last = self._folder.last if self._checkpoint else None
        checkpoint = self._folder.midway if self._midway else last
        try:
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        except Exception as error:
            if (first := first_error(error)) is not error:
                raise first from first.__cause__
            raise
        finally:
            close_runs(trainer)

    def _finish(self, status: Status, **details: Any) -> Result:
        if self._writer.leader:
            self._folder.midway.unlink(missing_ok=True)
        return self._writer.finish(self._history, status, overrides=self._overrides, **details)


def test_best(config: Config, folder: RunFolder, on_open: Callable[[], None]) -> dict[str, float] | None:
    """Open the test rows for the best weights of a finished run.

    Args:
        config: configuration of the run.
        folder: folder of the run.
        on_open: called when everything is ready, right before the rows are opened.

    Returns:
        The test metrics by name; None for a user's module without test rows or test step.
    """
    with isolated():
        module, data = build(config, initial=False)
        if not (is_overridden("test_dataloader", data) and is_overridden("test_step", module)):
            return None
        module.load_state_dict(load(folder.best, folder.recorded_digest(folder.best))["state_dict"])
        one_device = dataclasses.replace(config.trainer, strategy="auto", num_nodes=1, plugins=None)
        trainer = build_trainer(
            dataclasses.replace(config, devices=1, trainer=one_device),
            data,
            default_root_dir=folder.path,
            logger=False,
            enable_checkpointing=False,
        )
        on_open()
        metrics = _test(trainer, module, data)
        if config.logger.tensorboard:
            write_tested(folder, metrics)
        return metrics


def _test_again(config: Config, folder: RunFolder, finished: Result) -> Result:
    """Open the test rows of a finished run once more; nothing else of the run changes."""
    ledger = TestLedger(folder.test_ledger, again=True)
    opened_before = ledger.count()
    metrics = test_best(config, folder, lambda: _write_opening(ledger, folder, leader=is_leader()))
    return folder.commit(dataclasses.replace(finished, test=metrics, test_opened=opened_before + 1))


def _write_opening(ledger: TestLedger, folder: RunFolder, *, leader: bool) -> None:
    """Write down that the test rows are about to be read with the best weights of a run."""
    ledger.check()
    if leader:
        ledger.open(digest(folder.best))


def _test(trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule) -> dict[str, float]:
    """Open the test rows and measure the present weights on them."""
    seed_rows()
    trainer.test(module, datamodule=data, verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def _is_users_exit(stop: BaseException) -> bool:
    """Whether the user's code called `sys.exit`; Lightning calls it too, after a signal."""
    of_signal = isinstance(stop, SIGTERMException) or isinstance(stop.__context__, KeyboardInterrupt)
    return isinstance(stop, SystemExit) and not of_signal
