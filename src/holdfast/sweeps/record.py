"""What `sweep.json` says of a sweep before the first job of a round starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.config.job import JobSpec
from holdfast.planning.plan import Plan
from holdfast.single.startup import settled
from holdfast.store.versions import versions
from holdfast.sweeps.resume import code_of_jobs
from holdfast.sweeps.spec import SweepSpec
from holdfast.sweeps.works import hardware_record


def record(
    spec: SweepSpec,
    data: Sequence[str],
    plans: Sequence[Plan],
    batches: Sequence[Sequence[JobSpec]],
    *,
    rounds: Sequence[int],
    threads: int | None,
) -> dict[str, Any]:
    """The content of `sweep.json` of a sweep.

    Args:
        spec: the sweep.
        data: digest of the validation rows of each job.
        plans: of the batches.
        batches: the jobs that are planned and trained at a time.
        rounds: the number of jobs in each round of a search; a grid has one.
        threads: of each work; None leaves those of the process that does it.
    """
    first = spec.jobs[0].config
    return {
        "overrides": spec.overrides,
        "config": spec.origin,
        "metric": first.metric,
        "mode": first.mode,
        "rounds": list(rounds),
        "searched": list(spec.searched),
        "jobs": [
            {"overrides": list(job.overrides), "config_hash": job.config_hash, "data": rows, **settled(job.config)}
            for job, rows in zip(spec.jobs, data, strict=True)
        ],
        "plan": {
            "launcher": spec.launcher,
            "stacks": [stack for plan in plans for stack in plan.stacks],
            "alone": {number: reason for plan in plans for number, reason in plan.alone.items()},
            "notes": list(dict.fromkeys(note for plan in plans for note in plan.notes)),
            "works": hardware_record(plans, batches, threads, spec.device_counts),
        },
        "code": code_of_jobs([job.config for job in spec.jobs]),
        "versions": versions(),
    }


def with_round(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `sweep.json` with another round: what was recorded of the earlier jobs stays.

    Args:
        before: as it was recorded.
        now: as `record` would write it.
    """
    first, plan = len(before["jobs"]), now["plan"]
    added = {number: reason for number, reason in plan["alone"].items() if int(number) >= first}
    stacks = [*before["plan"]["stacks"], *(stack for stack in plan["stacks"] if stack[0] >= first)]
    return {
        **before,
        "overrides": now["overrides"],
        "rounds": now["rounds"],
        "jobs": [*before["jobs"], *now["jobs"][first:]],
        "plan": {**plan, "stacks": stacks, "alone": {**before["plan"]["alone"], **added}},
    }
