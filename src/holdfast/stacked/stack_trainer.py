"""The entry of this package: trains jobs as one program, as `holdfast.single.trainer` trains one job."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.config.job import JobSpec
from holdfast.config.schema import Config
from holdfast.errors import is_about_files
from holdfast.record.archive import StackArchive
from holdfast.record.history import StackHistory
from holdfast.runtime.isolation import isolated
from holdfast.runtime.signals import noted
from holdfast.stacked.engine import Engine
from holdfast.stacked.formula_engine import FormulaEngine
from holdfast.stacked.inputs import StackInputs
from holdfast.stacked.loop import OnEpochEnd, Stack
from holdfast.stacked.module_engine import ModuleEngine
from holdfast.stacked.module_inputs import ModuleInputs
from holdfast.store.folders import StackFiles


def train_stack(
    jobs: Sequence[JobSpec], files: StackFiles, on_epoch_end: OnEpochEnd | None = None, *, by_steps: bool = False
) -> StackHistory:
    """Train jobs as one program, from the snapshot of an earlier attempt, if there is one.

    Args:
        jobs: jobs that share a structure, as `holdfast.planning.plan` finds it.
        files: the archive of the stack; it is complete at the end.
        on_epoch_end: called after every epoch with its number and the best metric so far.
        by_steps: whether the steps of the module itself are called, instead of its loss.

    Raises:
        UnstackableError: the jobs cannot be trained together.
        Stopped: a signal has arrived; the archive has a snapshot.
        StorageError: the archive cannot be written.
        CheckpointError: the archive of an earlier attempt cannot be read.
    """
    with noted() as signals:
        numbers, hashes = [job.number for job in jobs], [job.config_hash for job in jobs]
        archive = StackArchive(files, numbers, hashes, jobs[0].config.sweep.snapshot, signals)
        if archive.snapshot:
            epoch, done = archive.snapshot["epoch"], archive.snapshot["so_far"]["done"]
            inside = f", after {done} iterations of it" if done else ""
            print(f"{len(jobs)} jobs go on from their snapshot, in epoch {epoch}{inside}", flush=True)
        try:
            with isolated():
                history = Stack(engine_of([job.config for job in jobs], by_steps), archive).train(on_epoch_end)
        except Exception as error:
            if not is_about_files(error):  # the jobs will be trained otherwise
                for file in files:
                    file.unlink(missing_ok=True)
            raise
        archive.finish(history)
        return history


def engine_of(configs: Sequence[Config], by_steps: bool) -> Engine:
    """The engine of some jobs."""
    return ModuleEngine(ModuleInputs(configs)) if by_steps else FormulaEngine(StackInputs(configs))
