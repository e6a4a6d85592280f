"""The batch script of an array: what every element asks SLURM for, and what it runs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.clusters.slurm_keys import SlurmKeys
from holdfast.runtime.interpreter import python_command
from holdfast.workers.worker_handle import ONE_THREAD


class ArrayJob(NamedTuple):
    """An array whose elements ask for the same.

    Attributes:
        name: display name, by which squeue finds it.
        works: folder of all works.
        logs: where each element writes what it prints.
        elements: number of the first job of each work, and the digest of its assignment.
        tasks: processes of an element on a node.
        nodes: nodes of an element.
    """

    name: str
    works: Path
    logs: Path
    elements: Sequence[tuple[int, str]]
    tasks: int = 1
    nodes: int = 1


def script(keys: SlurmKeys, job: ArrayJob) -> str:
    """The batch script of an array.

    The lines for SLURM are made by submitit. It would have every element signalled by SIGUSR2 before its time is over,
    which nothing here listens to: that line is left out.

    Args:
        keys: what the user asks for.
        job: the array.
    """
    from submitit.slurm.slurm import _make_sbatch_string  # not installed with every Holdfast

    gpus: dict[str, Any] = {}
    if keys.gpus_per_task and job.tasks > 1:
        gpus = {"gpus_per_node": keys.gpus_per_task * job.tasks}  # every process sees all, and takes that of its rank
    elif keys.gpus_per_task:
        gpus = {"gpus_per_task": keys.gpus_per_task}
    text = _make_sbatch_string(
        command=_command(keys, job),
        folder=job.logs,
        job_name=job.name,
        partition=keys.partition,
        time=keys.time,  # type: ignore[arg-type]
        nodes=job.nodes,
        ntasks_per_node=job.tasks,
        cpus_per_task=keys.cpus_per_task,
        mem=keys.mem,
        map_count=len(job.elements),
        array_parallelism=keys.array_parallelism,
        setup=[*(f"export {name}={value}" for name, value in ONE_THREAD.items()), *keys.setup],
        stderr_to_stdout=True,
        use_srun=False,
        wckey=None,  # type: ignore[arg-type]
        additional_parameters={"output": str(job.logs / "%A_%a.log"), **keys.additional},
        **gpus,
    )
    lines = text.splitlines()
    return "\n".join(line for line in lines if not line.startswith("#SBATCH --signal=USR2@")) + "\n"


def _command(keys: SlurmKeys, job: ArrayJob) -> str:
    """What an element runs, instead of the shell, so that signals reach it and its exit code is that of the element."""
    elements = [f"{first}:{sha256}" for first, sha256 in job.elements]
    python = [*python_command("holdfast.clusters.slurm_task"), str(job.works), *elements]
    if job.tasks * job.nodes == 1:
        return shlex.join(["exec", *python])
    step = ["srun", "--unbuffered", "--kill-on-bad-exit=1"]
    step += [f"--cpus-per-task={keys.cpus_per_task}"] if keys.cpus_per_task else []  # srun does not take it over
    step += ["--gpu-bind=none"] if keys.gpus_per_task else []
    return shlex.join(["exec", *step, *python])
