"""Results, curves and parameter paths, read from the files of finished runs and sweeps. Nothing is executed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from holdfast.config.schema import Config
from holdfast.errors import FolderError
from holdfast.record import events
from holdfast.record.checkpoint import load
from holdfast.runtime.isolation import isolated
from holdfast.single.build import build_module
from holdfast.stacked.stored import StackColumn, StoredStacks
from holdfast.store.folders import RunFolder, SweepFolder
from holdfast.store.result import Result
from holdfast.store.started import read_sweep
from holdfast.sweeps.ended import Job, swept_overrides
from holdfast.tables.encoding import Encoding
from holdfast.tables.models import OfTable

Numbers = NDArray[np.float64]


def jobs_of(folder: SweepFolder) -> list[Job]:
    """Read the jobs of a sweep; a job whose result is missing, or is of another configuration, counts as failed.

    Raises:
        FolderError: `sweep.json` is missing or cannot be read.
    """
    sweep = read_sweep(folder)
    try:
        table, jobs = folder.read_results(), []
        for number, entry in enumerate(sweep["jobs"]):
            overrides = [str(override) for override in entry["overrides"]]
            result = folder.job(number).read() or table.get(number)
            if result is None or result.config_hash != entry["config_hash"]:
                error = "it left no result: it was not finished"
                result = Result("failed", overrides, entry["config_hash"], str(sweep["metric"]), error=error)
            jobs.append(Job(number, overrides, str(entry["data"]), result))
        swept = swept_overrides([job.overrides for job in jobs])
        return [replace(job, swept=each) for job, each in zip(jobs, swept, strict=True)]
    except (TypeError, KeyError) as error:
        raise FolderError(f"{folder.sweep} cannot be read: {error!r} is not what a sweep writes there.") from error


class JobRecords:
    """Curves, parameter paths and weights of jobs, from their folders, or else from the archives of their stacks.

    Args:
        folder_of: returns the folder of a job, given its number.
        stacks: the stacks of the sweep; None for a run.
    """

    def __init__(self, folder_of: Callable[[int], RunFolder], stacks: StoredStacks | None = None) -> None:
        self._folder_of, self._stacks = folder_of, stacks

    def _in_stack(self, number: int) -> StackColumn | None:
        """Where a job is among the stacks; None if it was trained alone."""
        return self._stacks.find(number) if self._stacks else None

    def curves(self, numbers: Sequence[int], tags: Sequence[str]) -> dict[int, dict[str, tuple[Numbers, Numbers]]]:
        """Scalars of some jobs.

        Args:
            numbers: of the jobs.
            tags: names of scalars, such as `train/loss_step`.

        Returns:
            By the number of the job and by tag: steps and values of each scalar that exists, each of shape `(points,)`.
        """
        found, in_stacks = dict[int, dict[str, tuple[Numbers, Numbers]]](), dict[int, dict[int, StackColumn]]()
        for number in numbers:
            if files := self._folder_of(number).curves():
                found[number] = _scalars(files, tags)
            elif job := self._in_stack(number):
                in_stacks.setdefault(id(job.history), {})[number] = job
        for jobs in in_stacks.values():  # the curves of a stack are read once
            history = next(iter(jobs.values())).history
            block = history.curves.of_jobs([job.column for job in jobs.values()])
            for index, (number, (_, column)) in enumerate(jobs.items()):
                values = {"train/loss_step": block.losses[: history.counts[column], index]}
                metrics = block.metrics[: history.epochs[column], :, index].T
                values |= zip(history.curves.names, metrics, strict=True)
                found[number] = {
                    tag: (np.arange(len(values[tag]), dtype=np.float64), values[tag].astype(np.float64))
                    for tag in tags
                    if tag in values
                }
        return found

    def has_parameter_path(self, number: int) -> bool:
        """Whether the parameter path of a job is known."""
        job = self._in_stack(number)
        return self._folder_of(number).parameter_path.exists() or (job is not None and job.history.curves.has_points)

    def parameter_path(self, number: int) -> Numbers | None:
        """The parameters of a job with two parameters, at regular iterations, shape `(points, 2)`; None if not known.

        Raises:
            FolderError: the file holds something else.
        """
        file = self._folder_of(number).parameter_path
        if file.exists():
            points = np.load(file, allow_pickle=False)
            if points.ndim != 2 or points.shape[1:] != (2,) or not len(points):
                raise FolderError(f"{file} holds no path of two parameters.")
            return np.asarray(points, dtype=np.float64)
        if (job := self._in_stack(number)) is None:
            return None
        points = job.history.curves.of_jobs([job.column]).points[..., 0].astype(np.float64)
        return points[np.isfinite(points).all(1)] if len(points) else None

    def has_weights(self, number: int) -> bool:
        """Whether the best weights of a job are known."""
        job = self._in_stack(number)
        return self._folder_of(number).weights.exists() or (job is not None and job.history.best.epoch[job.column] >= 0)

    def encoding(self, number: int) -> Encoding | None:
        """The encoding of the table that a job was trained on, as its checkpoint has it; None if there is none."""
        folder = self._folder_of(number)
        checkpoint = load(folder.best, folder.recorded_digest(folder.best)) if folder.best.exists() else {}
        table = checkpoint.get("hyper_parameters", {}).get("table")
        return None if table is None else Encoding.from_plain(table)

    def model(self, number: int, config: Config) -> nn.Module:
        """The model of a job with its best weights, in evaluation mode.

        Raises:
            FolderError: it was trained on a table that has changed since then.
        """
        folder = self._folder_of(number)
        with isolated():
            module = build_module(config, initial=False)
            if folder.best.exists():
                checkpoint = load(folder.best, folder.recorded_digest(folder.best))
                _check_table(module, checkpoint, folder)
                module.load_state_dict(checkpoint["state_dict"])
            elif (job := self._in_stack(number)) is not None:
                parameters = [value for value in module.parameters() if value.requires_grad]
                flat = job.history.best.tensors["parameters"][:, job.column].to(parameters[0].dtype)
                nn.utils.vector_to_parameters(flat, parameters)
            return module.eval()


def _check_table(module: nn.Module, checkpoint: Mapping[str, Any], folder: RunFolder) -> None:
    """Refuse a model whose weights belong to other columns, scales or classes than those of the table as it is now."""
    if isinstance(module, OfTable) and checkpoint["hyper_parameters"]["table"] != module.encoding.as_plain():
        raise FolderError(f"the table has changed since {folder.path} was trained on it.")


def _scalars(files: Sequence[Path], tags: Sequence[str]) -> dict[str, tuple[Numbers, Numbers]]:
    """Steps and values of scalars in some event files."""
    points_of: dict[str, list[tuple[int, float]]] = {}
    for file in files:
        for tag, points in events.read_scalars(file, frozenset(tags)).items():
            points_of.setdefault(tag, []).extend(points)
    return {tag: tuple(np.array(points, dtype=np.float64).T) for tag, points in points_of.items()}
