"""The plan of a sweep: which jobs are trained as one program, and which are trained alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.config.fold import without_fold
from holdfast.config.options import ORDER, TABLE
from holdfast.config.schema import Config

_PER_JOB = frozenset({"lr", "seed", "sweep", "vars", "init_weights", "init_weights_strict"})
"""Keys in which the jobs of a stack may differ."""

_FREE: dict[str, frozenset[str]] = {
    "holdfast.model.Linear": frozenset({"weight", "bias"}),
    "holdfast.model.MLP": frozenset(),
    "holdfast.data.Line": frozenset({"slope", "intercept", "noise", "outliers", "seed", "fold"}),
    "holdfast.data.Linear": frozenset({"noise", "outlier_fraction", "seed", "fold"}),
    "holdfast.tables.Table": frozenset({"fold"}),
}
"""Of the classes that ship with Holdfast, the arguments that change no shape."""

_DESCRIBED = ("batch_size", "model", "optimizer", "scheduler", "data", "accelerator", "precision", "epochs")
"""Keys whose values `describe` lists if stacks differ in them."""

_MOST_LISTED = 8
"""Values of a key, or jobs, that `describe` lists."""


@dataclass(frozen=True)
class Share:
    """Jobs that share a program, or that are trained alone for the same reason.

    Attributes:
        jobs: their indexes in the sequence of configurations from which the share was made.
        reason: why they are trained alone; None if they share a program.
        most: largest number of them in one stack; for jobs that share a program.
        note: what the plan says of their stacks, such as why other jobs of the same structure do not share them.
        by_steps: whether the program calls the steps of the module itself, instead of its loss.
    """

    jobs: tuple[int, ...]
    reason: str | None
    most: int = 0
    note: str = ""
    by_steps: bool = False


@dataclass(frozen=True)
class Plan:
    """How each job of a sweep is trained.

    Attributes:
        stacks: the numbers of the jobs of each program, ascending.
        alone: why a job is trained alone, by its number.
        notes: why jobs of the same structure are in several stacks.
        by_steps: the first jobs of the stacks that call the steps of the module itself, instead of its loss.
    """

    stacks: tuple[tuple[int, ...], ...]
    alone: Mapping[int, str]
    notes: tuple[str, ...] = ()
    by_steps: frozenset[int] = frozenset()


def plan(configs: Sequence[Config], share: Callable[[Sequence[Config]], Sequence[Share]]) -> Plan:
    """Group the jobs of a sweep into stacks.

    The jobs of a stack run the same operations on tensors of the same shapes. They may differ in `lr`, `seed`, the
    numbers of the optimizer and of the scheduler, and numbers among the arguments of model and data.

    Args:
        configs: configurations of all jobs, in the order of their numbers.
        share: divides jobs of the same structure into those that can share a program and those that cannot. A share
            that is too large for one stack, or for `sweep.max_stack`, is split into stacks of nearly equal size.

    Returns:
        A plan with every job exactly once.
    """
    groups: dict[Hashable, list[int]] = {}
    parts: Parts = {}
    for number, config in enumerate(configs):
        groups.setdefault(structure(config, parts), []).append(number)
    stacks: list[tuple[int, ...]] = []
    alone: dict[int, str] = {}
    notes: dict[str, None] = {}
    by_steps: list[int] = []
    for group in groups.values():
        for part in share([configs[number] for number in group]):
            jobs = [group[index] for index in part.jobs]
            if part.reason is not None:
                alone.update(dict.fromkeys(jobs, part.reason))
                continue
            if part.note:
                notes[part.note] = None
            count = -(-len(jobs) // (configs[jobs[0]].sweep.max_stack or part.most))
            in_part = [tuple(jobs[len(jobs) * i // count : len(jobs) * (i + 1) // count]) for i in range(count)]
            stacks += in_part
            by_steps += [stack[0] for stack in in_part if part.by_steps]
    return Plan(tuple(sorted(stacks)), dict(sorted(alone.items())), tuple(notes), frozenset(by_steps))


Parts = dict[tuple[str, int], Hashable]
"""Parts of a structure by the key and the identity of its value: jobs share the objects of most groups."""


def structure(config: Config, parts: Parts | None = None) -> Hashable:
    """Everything in a configuration that the jobs of a stack have in common.

    Args:
        config: configuration of a job.
        parts: filled here, and valid as long as the configurations are.
    """
    parts, common = {} if parts is None else parts, list[Hashable]()
    for key, value in vars(config).items():
        if key in _PER_JOB:
            continue
        if isinstance(value, (int, float, str)):
            common.append(value)
            continue
        identity = (key, id(value))
        if identity not in parts:
            parts[identity] = _common(key, value)
        common.append(parts[identity])
    return tuple(common)


def _common(key: str, value: Any) -> Hashable:
    """What the jobs of a stack have in common in the value of one key."""
    if key not in ("model", "data"):
        return _form(value) if key in ("optimizer", "scheduler") else repr(value)
    free = _FREE.get(value["_target_"])
    if free is None:  # the modules of the jobs are compared later
        return _form(without_fold(value) if key == "data" else value)
    # rows on disk are read into the same buffers for all jobs of a stack, shuffled or not
    common = {"batch_size", "shuffle"} if value["_target_"] == TABLE else {"batch_size"}
    free |= ORDER - common if key == "data" else frozenset()
    return repr([(name, None if name in free else item) for name, item in value.items()])


def _form(value: Any) -> Hashable:
    """The forms of the entries of a container; numbers may differ, anything else must be equal."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "number"
    if isinstance(value, Mapping):
        return tuple((name, _form(item)) for name, item in value.items())
    return tuple(map(_form, value)) if isinstance(value, (list, tuple)) else str(value)


def describe(plan: Plan, configs: Mapping[int, Config]) -> str:
    """Describe a plan to the user: `1000 jobs: 4 stacks (batch_size 1, 5, 20, full); 0 alone`.

    Args:
        plan: a plan; the reasons for training jobs alone follow on lines below the first.
        configs: configurations of its jobs, by number.
    """
    firsts = [configs[jobs[0]] for jobs in plan.stacks]
    differing = []
    for key in _DESCRIBED:
        values = list(dict.fromkeys(_display(getattr(config, key)) for config in firsts))
        if len(values) > 1:
            differing.append(f"{key} {_listed(values)}")
    values_text = f" ({'; '.join(differing)})" if differing else ""
    sizes = sorted({len(stack) for stack in plan.stacks})
    size_text = f" of {' or '.join(map(str, sizes))}" if len(plan.stacks) > 1 and len(sizes) < 3 else ""
    stacks_text = f"{_count(len(plan.stacks), 'stack')}{values_text or size_text}"
    lines = [f"{_count(len(configs), 'job')}: {stacks_text}; {len(plan.alone)} alone"]
    for reason in dict.fromkeys(plan.alone.values()):
        jobs = [str(number) for number, why in plan.alone.items() if why == reason]
        lines.append(f"alone: {'job' if len(jobs) == 1 else 'jobs'} {_listed(jobs)}: {reason}")
    return "\n".join([*lines, *plan.notes])


def _display(value: Any) -> str:
    """A value; for a group its class, named as in conf/."""
    return str(value["_target_"]).rpartition(".")[2].lower() if isinstance(value, Mapping) else str(value)


def _listed(values: Sequence[str]) -> str:
    more = len(values) - _MOST_LISTED
    return ", ".join(values) if more <= 0 else f"{', '.join(values[:_MOST_LISTED])} and {more} more"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
