"""From the jobs of a sweep to the works that an executor is given."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from holdfast.config.job import JobSpec
from holdfast.config.schema import Config
from holdfast.execute.work import Work
from holdfast.planning.plan import Plan, Share, plan


def plan_jobs(jobs: Sequence[JobSpec], alone_because: str | None = None) -> Plan:
    """Plan which jobs are trained together, and which alone.

    Args:
        jobs: in the order of their numbers.
        alone_because: a reason why all of them have to be trained alone.
    """
    indexed = plan([job.config for job in jobs], _sharing(alone_because))
    return Plan(
        tuple(tuple(jobs[index].number for index in stack) for stack in indexed.stacks),
        {jobs[index].number: reason for index, reason in indexed.alone.items()},
        indexed.notes,
        frozenset(jobs[index].number for index in indexed.by_steps),
    )


def plan_again(
    jobs: Sequence[JobSpec], recorded: Mapping[str, Any], finished: Collection[int], alone_because: str | None = None
) -> Plan:
    """Plan the jobs of a resumed sweep as they were planned when it started.

    A job of a stack comes out the same to the last bit only beside the same others. Jobs that were planned otherwise,
    by another launcher or together with jobs that are not among these, are planned anew.

    Args:
        jobs: in the order of their numbers.
        recorded: the plan in `sweep.json`.
        finished: numbers of the jobs that have nothing left to do.
        alone_because: as for `plan_jobs`.
    """
    by_number = {job.number: job for job in jobs}
    stacks = [tuple(stack) for stack in recorded["stacks"] if not by_number.keys().isdisjoint(stack)]
    alone = {int(number): reason for number, reason in recorded["alone"].items() if int(number) in by_number}
    if sorted([*alone, *chain(*stacks)]) != sorted(by_number):
        return plan_jobs(jobs, alone_because)
    kept, by_steps = [], set[int]()
    for stack in stacks:
        if set(stack) <= set(finished):
            kept.append(stack)
            continue
        # the user's code may have changed since the plan was made
        for part in _sharing(alone_because)([_stacked(by_number[number].config) for number in stack]):
            numbers = tuple(stack[index] for index in part.jobs)
            if part.reason is None:
                kept.append(numbers)
                by_steps |= {numbers[0]} if part.by_steps else set()
            else:
                alone |= dict.fromkeys(numbers, part.reason)
    return Plan(tuple(sorted(kept)), dict(sorted(alone.items())), by_steps=frozenset(by_steps))


def _stacked(config: Config) -> Config:
    """The configuration of a job that was planned into a stack: that it is faster there was found then."""
    return replace(config, sweep=replace(config.sweep, stack="always")) if config.sweep.stack == "auto" else config


def works_of(
    plan: Plan,
    jobs: Sequence[JobSpec],
    finished: Collection[int] = (),
    threads: int | None = None,
    counts: Mapping[str, int] | None = None,
) -> list[Work]:
    """The works of a plan: its stacks, then the jobs that train alone; works without unfinished jobs are left out.

    Args:
        plan: of these jobs.
        jobs: with the numbers of the plan.
        finished: numbers of the jobs that have nothing left to do.
        threads: of each work; None leaves those of the process that does it.
        counts: number of devices of each kind where the works are done; None for those of this computer.
    """
    by_number = {job.number: job for job in jobs}
    done = frozenset(finished)
    works = [
        Work("stack", tuple(by_number[number] for number in stack), done & {*stack}, stack[0] in plan.by_steps)
        for stack in plan.stacks
    ]
    works += [Work("alone", (by_number[number],), done & {number}) for number in plan.alone]
    return on_hardware([work for work in works if work.unfinished], threads, counts)


def on_hardware(works: Sequence[Work], threads: int | None, counts: Mapping[str, int] | None = None) -> list[Work]:
    """Works with the threads and the devices that they are trained on.

    Args:
        works: some works.
        threads: of each work; None leaves those of the process that does it.
        counts: number of devices of each kind where the works are done; None for those of this computer.
    """
    import torch

    from holdfast.runtime.devices import device_counts

    counts, threads = counts or device_counts(), threads or torch.get_num_threads()
    configs = [work.jobs[0].config for work in works]
    return [
        work._replace(threads=threads, accelerator=accelerator, devices=_device_count(config, accelerator, counts))
        for work, config in zip(works, configs, strict=True)
        for accelerator in (_accelerator(config.accelerator, counts),)
    ]


def uses_gpus(configs: Sequence[Config]) -> bool:
    """Whether a job of a sweep is trained on a GPU of NVIDIA or AMD, which `CUDA_VISIBLE_DEVICES` hides and shows."""
    from holdfast.runtime.devices import device_counts

    counts = device_counts()
    return any(
        _accelerator(name, counts) == "cuda" and counts["cuda"] for name in {each.accelerator for each in configs}
    )


def hardware_record(
    plans: Sequence[Plan],
    batches: Sequence[Sequence[JobSpec]],
    threads: int | None,
    counts: Mapping[str, int] | None = None,
) -> list[dict[str, Any]]:
    """What `sweep.json` says of threads and devices, with the first jobs of the works to which it applies.

    Args:
        plans: of the batches; none where a launcher of Hydra's decides.
        batches: the jobs.
        threads, counts: as for `works_of`.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for work in chain.from_iterable(works_of(*pair, (), threads, counts) for pair in zip(plans, batches, strict=False)):
        groups.setdefault((work.threads, work.accelerator, work.devices), []).append(work.jobs[0].number)
    return [
        {"threads": threads, "accelerator": accelerator, "devices": devices, "works": firsts}
        for (threads, accelerator, devices), firsts in groups.items()
    ]


def threads_of(recorded: Mapping[str, Any]) -> int | None:
    """Threads of each work of a sweep that was started before; None where a launcher of Hydra's trained them.

    Args:
        recorded: the plan in `sweep.json`.
    """
    return next((group["threads"] for group in recorded.get("works", ())), None)


def _accelerator(configured: str, counts: Mapping[str, int]) -> str:
    """The kind of device that Lightning takes: the first that this computer has."""
    candidates = {"auto": list(counts), "gpu": ["mps", "cuda"]}.get(configured, [configured])
    return next((name for name in candidates if counts[name]), configured)


def _device_count(config: Config, accelerator: str, counts: Mapping[str, int]) -> int:
    """The number of devices from the first to the last that a job trains on."""
    if config.devices == "auto":
        return max(1, counts[accelerator]) if accelerator == "cuda" else 1
    return max(config.devices) + 1 if isinstance(config.devices, list) else config.devices


def unstacked(recorded: Mapping[str, Any], numbers: Collection[int], reason: str) -> dict[str, Any]:
    """The plan in `sweep.json` with some jobs taken out of their stacks, and why they are trained alone."""
    stacks = [[number for number in stack if number not in numbers] for stack in recorded["stacks"]]
    alone = {**recorded["alone"], **dict.fromkeys(sorted(numbers), reason)}
    return {**recorded, "stacks": [stack for stack in stacks if stack], "alone": alone}


def _sharing(alone_because: str | None) -> Callable[[Sequence[Config]], Sequence[Share]]:
    """The function that says which jobs of the same structure can be one stack."""
    from holdfast.planning.share import share

    if alone_because is None:
        return share
    return lambda configs: [Share(tuple(range(len(configs))), alone_because)]
