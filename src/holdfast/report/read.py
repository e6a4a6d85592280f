"""Results, curves and parameter paths, read from the files of finished runs and sweeps. Nothing is executed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from holdfast.errors import FolderError
from holdfast.record import events
from holdfast.store.folders import RunFolder, SweepFolder
from holdfast.store.result import Result
from holdfast.store.started import read_sweep
from holdfast.sweeps.rank import Job, swept_overrides

Numbers = NDArray[np.float64]


def jobs_of(folder: SweepFolder) -> list[Job]:
    """Read the jobs of a sweep; a job whose result is missing, or is of another configuration, counts as failed.

    Raises:
        FolderError: `sweep.json` is missing or cannot be read.
    """
    sweep = read_sweep(folder)
    try:
        dropped, jobs = folder.read_dropped(), []
        for number, entry in enumerate(sweep["jobs"]):
            overrides = [str(override) for override in entry["overrides"]]
            result = dropped.get(number) or folder.job(number).read()
            if result is None or result.config_hash != entry["config_hash"]:
                error = "it left no result: it was not finished"
                result = Result("failed", overrides, entry["config_hash"], str(sweep["metric"]), error=error)
            jobs.append(Job(number, overrides, str(entry["data"]), result))
        swept = swept_overrides([job.overrides for job in jobs])
        return [replace(job, swept=each) for job, each in zip(jobs, swept, strict=True)]
    except (TypeError, KeyError) as error:
        raise FolderError(f"{folder.sweep} cannot be read: {error!r} is not what a sweep writes there.") from error


def curves(folder: RunFolder, tags: Sequence[str]) -> dict[str, tuple[Numbers, Numbers]]:
    """Read scalars of a run from its event files.

    Args:
        folder: the folder of the run.
        tags: names of scalars, such as `train/loss_step`.

    Returns:
        Steps and values of each scalar that exists, each of shape `(points,)`.
    """
    points_of: dict[str, list[tuple[int, float]]] = {}
    for file in folder.curves():
        for tag, points in events.read_scalars(file, frozenset(tags)).items():
            points_of.setdefault(tag, []).extend(points)
    return {tag: tuple(np.array(points, dtype=np.float64).T) for tag, points in points_of.items()}


def parameter_path(folder: RunFolder) -> Numbers:
    """Read the parameters of a run with two parameters, at regular iterations; shape `(points, 2)`.

    Raises:
        FolderError: the file holds something else.
    """
    points = np.load(folder.parameter_path, allow_pickle=False)
    if points.ndim != 2 or points.shape[1:] != (2,) or not len(points):
        raise FolderError(f"{folder.parameter_path} holds no path of two parameters.")
    return np.asarray(points, dtype=np.float64)
