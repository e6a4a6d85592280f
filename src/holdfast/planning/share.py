"""Which jobs of the same structure can share a program, and why the others are trained alone.

What is known to be right in a stack is listed in `allowed`; a job with anything else is trained alone. Modules and data
modules that do not ship with Holdfast must also pass the trial of `trial`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from holdfast.config.fold import fold_of
from holdfast.config.options import TABLE
from holdfast.config.schema import Config
from holdfast.errors import in_a_line
from holdfast.planning.allowed import check_settings, has_rules
from holdfast.planning.child import in_a_child
from holdfast.planning.inspect import ByLoss, BySteps
from holdfast.planning.plan import Share
from holdfast.planning.probe import probe
from holdfast.planning.steps_trial import probe_steps, try_steps
from holdfast.planning.trial import try_together
from holdfast.planning.width import NO_OTHER, Cost, check_pays, widest
from holdfast.runtime.isolation import isolated, process_restored
from holdfast.stacked.inputs import is_shipped
from holdfast.usercode.variables import globals_restored
from holdfast.usercode.watch import UnstackableError


def share(configs: Sequence[Config]) -> list[Share]:
    """Divide jobs into those that can share a program and those that are trained alone.

    Args:
        configs: configurations of jobs with the same `holdfast.planning.plan.structure`.

    Returns:
        Shares with every job exactly once.
    """
    everyone = tuple(range(len(configs)))
    with isolated():
        try:
            if configs[0].sweep.stack == "never":
                raise UnstackableError("sweep.stack=never")
            check_settings(configs[0])
            if is_shipped(configs[0]) and has_rules(configs[0]):
                with suppress(UnstackableError):  # such as dropout, which draws random numbers
                    return [
                        Share(jobs, None, *widest(probe([configs[job] for job in jobs]))) for jobs in _alike(configs)
                    ]
            return in_a_child(_share_users_code, configs)  # the user's code may change the process it runs in
        except UnstackableError as error:
            return [Share(everyone, str(error))]
        except Exception as error:  # trained alone, each job reports the error in its own result
            return [Share(everyone, f"it could not be tried: {in_a_line(error)}")]


def _alike(configs: Sequence[Config]) -> list[tuple[int, ...]]:
    """The jobs whose rows have the same shapes: folds of a table may differ in size."""
    if configs[0].data["_target_"] != TABLE or fold_of(configs[0].data) is None:
        return [tuple(range(len(configs)))]
    from holdfast.caching.sources import source_of
    from holdfast.tables.source import TableSource

    forms: dict[Hashable, list[int]] = {}
    for job, config in enumerate(configs):
        source = source_of(config.data)
        forms.setdefault(source.form if isinstance(source, TableSource) else None, []).append(job)
    return [tuple(jobs) for jobs in forms.values()]


def _share_users_code(configs: Sequence[Config]) -> list[Share]:
    """Divide jobs by the first of two roads on which they can share a program: by their loss, or by their steps."""
    shares, reasons = list[Share](), dict.fromkeys(range(len(configs)), "")
    for road in (_BY_LOSS, _BY_STEPS):
        if not (left := list(reasons)):
            break
        for part in _share_on(road, [configs[job] for job in left]):
            jobs = tuple(left[index] for index in part.jobs)
            reasons |= dict.fromkeys(jobs, part.reason or "")
            if part.reason is None:
                shares.append(replace(part, jobs=jobs))
                for job in jobs:
                    del reasons[job]
    alone: dict[str, list[int]] = {}
    for job, reason in reasons.items():
        alone.setdefault(reason, []).append(job)
    return shares + [Share(tuple(jobs), reason) for reason, jobs in alone.items()]


class _Road(NamedTuple):
    """A way to train jobs as one program.

    Attributes:
        look: inspects the modules and the data modules of jobs.
        probe: returns what a job costs.
        try_together: trains jobs in a stack and by a Trainer, and compares all results; returns what the user has to
            know all the same.
        by_steps: as in `Share`.
    """

    look: Callable[[], ByLoss | BySteps]
    probe: Callable[[Sequence[Config]], Cost]
    try_together: Callable[[Sequence[Config], int], str | None]
    by_steps: bool


class _Verdict(NamedTuple):
    """Whether a module or data module can be stacked.

    Attributes:
        reason: why it cannot; None if it can.
        structure: what it must have in common with the others of its stack.
    """

    reason: str | None
    structure: Hashable = None


def _share_on(road: _Road, configs: Sequence[Config]) -> list[Share]:
    """Group jobs whose modules differ only in numbers, and try each group in a stack."""
    groups: dict[Hashable, list[int]] = {}
    refused: dict[str, list[int]] = {}
    look = road.look()
    if (reason := _verdict(look.alike, configs[0]).reason) is not None:
        return [Share(tuple(range(len(configs))), reason)]
    verdicts: dict[Hashable, _Verdict] = {}  # one for each different module and data module
    with globals_restored() as restore:
        for index, config in enumerate(configs):
            module_key, data_key = ("module", repr(config.model), config.seed), ("data", repr(config.data))
            for key, look_at in ((module_key, look.module), (data_key, look.data)):
                if key not in verdicts:
                    verdicts[key] = _verdict(look_at, config)
                    restore()
            module, data = verdicts[module_key], verdicts[data_key]
            reason = module.reason or data.reason
            if reason is not None:
                refused.setdefault(reason, []).append(index)
            else:
                groups.setdefault((module.structure, data.structure), []).append(index)
    single = sum(len(jobs) == 1 for jobs in groups.values())
    for form, jobs in [*groups.items()]:
        if (reason := _not_worth(road, [configs[job] for job in jobs], single)) is not None:
            refused.setdefault(reason, []).extend(groups.pop(form))
    shares = [Share(tuple(jobs), reason) for reason, jobs in refused.items()]
    note = "" if len(groups) < 2 else "jobs whose modules differ in more than numbers are in separate stacks"
    for jobs in groups.values():
        for part in _divide(road, configs, jobs, _divisions(configs, jobs), note):
            is_left = part.reason is None and len(part.jobs) == 1 < len(jobs)
            left_alone = is_left and road.by_steps and configs[0].sweep.stack == "auto"
            shares.append(Share(part.jobs, NO_OTHER) if left_alone else part)
    return shares


def _verdict(look_at: Callable[[Config], Hashable], config: Config) -> _Verdict:
    with process_restored():
        try:
            return _Verdict(None, look_at(config))
        except UnstackableError as error:
            return _Verdict(str(error))
        except (Exception, SystemExit) as error:
            return _Verdict(f"it could not be built: {in_a_line(error)}")


def _not_worth(road: _Road, configs: Sequence[Config], single: int) -> str | None:
    """Why jobs of the same structure are not worth a trial; None if they are, or if the trial has to say why not.

    Args:
        road: on which they would be trained.
        configs: the jobs.
        single: number of jobs that are the only ones of their structures.
    """
    if configs[0].sweep.stack != "auto":
        return None
    try:
        with isolated():
            cost = road.probe(configs)
    except Exception:
        return None
    try:
        check_pays(cost, len(configs) if road.by_steps else None, single)  # a formula is faster for one job too
    except UnstackableError as error:
        return str(error)
    return None


_Division = tuple[str, Callable[[Config], Hashable]]


def _divisions(configs: Sequence[Config], jobs: Sequence[int]) -> list[_Division]:
    """Values by which jobs are divided, first the coarser divisions, if one stack of all of them fails the trial."""
    keys = dict.fromkeys(
        (group, key) for job in jobs for group in ("model", "data") for key in getattr(configs[job], group)
    )
    single = [(f"{group}.{key}", partial(_value, group, key)) for group, key in keys]
    different = [(name, value) for name, value in single if len({value(configs[job]) for job in jobs}) > 1]
    return [
        *(different if len(different) > 1 else []),
        ("arguments of model and data", lambda config: (repr(config.model), repr(config.data))),
        ("seed and arguments of model and data", lambda config: (repr(config.model), repr(config.data), config.seed)),
    ]


def _value(group: str, key: str, config: Config) -> Hashable:
    return repr(getattr(config, group).get(key))


def _divide(
    road: _Road, configs: Sequence[Config], jobs: Sequence[int], divisions: Sequence[_Division], note: str
) -> list[Share]:
    """Try jobs together; if that fails, try those with the same values of a division together."""
    try:
        with isolated():  # as if nothing had been built before
            cost = road.probe([configs[job] for job in jobs])
        most, because = widest(cost)
        warning = road.try_together([configs[job] for job in jobs], most)
        because = because if len(jobs) > most and configs[jobs[0]].sweep.max_stack is None else ""
        return [Share(tuple(jobs), None, most, "; ".join(filter(None, (note, because, warning))), road.by_steps)]
    except UnstackableError as error:
        reason = str(error)
    except Exception as error:
        reason = f"it could not be tried: {in_a_line(error)}"
    for number, (values, key) in enumerate(divisions):
        parts: dict[Hashable, list[int]] = {}
        for job in jobs:
            parts.setdefault(key(configs[job]), []).append(job)
        if len(parts) == 1:
            continue
        finer, why = divisions[number + 1 :], f"a stack for each value of {values}: in one for all of them {reason}"
        first, *others = parts.values()
        # one argument alone, or, at last, all of them
        shares = _divide(road, configs, first, () if "." in values else finer, why)
        if all(part.reason is not None for part in shares):
            continue  # the values are not the reason: the other parts would fail as well
        return shares + [part for other in others for part in _divide(road, configs, other, finer, why)]
    return [Share(tuple(jobs), reason)]


_BY_LOSS = _Road(ByLoss, probe, try_together, by_steps=False)
_BY_STEPS = _Road(BySteps, probe_steps, try_steps, by_steps=True)
