"""What a sweep says before its first job starts: keys without effect, jobs that cannot run here."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from holdfast.config.job import JobSpec
from holdfast.config.keys import key_of
from holdfast.config.schema import Config
from holdfast.errors import DeviceError, Problem
from holdfast.sweeps.ended import job_name, swept_overrides
from holdfast.sweeps.spec import SweepSpec


def name_what_nothing_reads(spec: SweepSpec) -> None:
    """Name the keys that were typed and have no effect, each once, before the first job starts."""
    from holdfast.single.build import without_effect

    def classes(job: JobSpec) -> tuple[str, str]:
        return job.config.model["_target_"], job.config.data["_target_"]

    lines: dict[str, str] = {}
    # the values of the keys make no difference
    for job in {(classes(job), *map(key_of, job.overrides)): job for job in reversed(spec.jobs)}.values():
        # the configuration as written is that of the first job
        origin = spec.origin if classes(job) == classes(spec.jobs[0]) else None
        for key, line in without_effect(job.config, origin, job.overrides).items():
            lines.setdefault(key, line)
    for line in lines.values():
        print(line)


def warn_of_missing_devices(jobs: Sequence[JobSpec], *, elsewhere: bool = False) -> None:
    """Name the jobs that this machine cannot run, before the first one starts; a launcher may run them elsewhere.

    Args:
        jobs: the jobs.
        elsewhere: whether other machines train them for certain, so that nothing is said of the devices of this one.

    Raises:
        ConfigError: a strategy or a class of a job does not exist, or does not take its keys.
    """
    from holdfast.runtime import devices

    needs_by_groups: dict[Hashable, devices.Needs] = {}

    def needs_of(config: Config) -> devices.Needs:
        # most jobs share the objects of their groups: thousands have the same needs
        groups = (config.trainer, config.model, config.data, config.callbacks, config.logger)
        key = (*map(id, groups), config.accelerator, str(config.devices), *config.optimizer, *config.scheduler)
        key = (*key, config.optimizer["_target_"], config.scheduler["_target_"])
        if key not in needs_by_groups:
            needs_by_groups[key] = devices.Needs.of(config)
        return needs_by_groups[key]

    needs = [needs_of(job.config) for job in jobs]
    missing: dict[devices.Needs, Problem] = {}
    for distinct in dict.fromkeys(needs):
        try:
            devices.check_needs(distinct)
        except DeviceError as error:
            if not elsewhere:
                missing[distinct] = error.problems[0]
    for job, need, swept in zip(jobs, needs, swept_overrides([job.overrides for job in jobs]), strict=True):
        if (problem := missing.get(need)) is not None:
            print(f"{job_name(job.number, swept)} will fail here: {problem.override}: {problem.lesson}")
