"""Which jobs of a sweep are trained as one program, and which have the Trainer to themselves."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any, Protocol

from holdfast.config.options import ORDER
from holdfast.config.schema import Config

_OWN = frozenset({"lr", "seed", "data", "model", "optimizer", "scheduler", "sweep"})
"""Keys that jobs of a stack may differ in, or that are looked at more closely."""

_TOLD = ("batch_size", "model", "optimizer", "scheduler", "data", "accelerator", "precision", "epochs")
"""What tells one stack from another, in a line."""

MOST_TOLD = 8
"""Values of a key, or jobs, that are named in a line."""


class Share(Protocol):
    """Jobs that are trained in the same way: together, or alone for a reason."""

    @property
    def jobs(self) -> tuple[int, ...]:
        """Their indexes among the jobs that were asked about."""

    @property
    def reason(self) -> str | None:
        """Why they train alone; None where they are one program."""

    @property
    def most(self) -> int:
        """Jobs that memory has room for."""

    @property
    def note(self) -> str:
        """Why they are not together with others of the same structure."""


@dataclass(frozen=True)
class Plan:
    """Where each job of a sweep is trained.

    Attributes:
        stacks: the jobs of each program, in order.
        alone: why a job has the Trainer to itself, by its number.
        notes: why jobs of the same structure are in several stacks.
    """

    stacks: tuple[tuple[int, ...], ...]
    alone: Mapping[int, str]
    notes: tuple[str, ...] = ()


def plan(configs: Sequence[Config], share: Callable[[Sequence[Config]], Sequence[Share]]) -> Plan:
    """Put jobs of the same structure together.

    They run the same operations on tensors of the same shapes: they may differ in `lr`, `seed`, the numbers of the
    optimizer and of the scheduler, and what the model and the data name as `stackable`.

    Args:
        configs: of all jobs, in order.
        share: says which jobs of one structure can be one program. Too large a stack is cut into several of nearly the
            same size.

    Returns:
        Every job in exactly one stack, or alone.
    """
    groups: dict[Hashable, list[int]] = {}
    parts: dict[int, Hashable] = {}
    for number, config in enumerate(configs):
        groups.setdefault(structure(config, parts), []).append(number)
    stacks: list[tuple[int, ...]] = []
    alone, notes = {}, dict[str, None]()
    for group in groups.values():
        for found in share([configs[number] for number in group]):
            jobs = [group[index] for index in found.jobs]
            if found.reason is not None:
                alone.update(dict.fromkeys(jobs, found.reason))
                continue
            if found.note:
                notes[found.note] = None
            most = configs[jobs[0]].sweep.max_stack or found.most
            pieces = -(-len(jobs) // most)
            stacks += (tuple(jobs[len(jobs) * i // pieces : len(jobs) * (i + 1) // pieces]) for i in range(pieces))
    return Plan(tuple(sorted(stacks)), dict(sorted(alone.items())), tuple(notes))


def structure(config: Config, known: dict[int, Hashable] | None = None) -> Hashable:
    """All of a configuration that jobs of a stack have in common.

    Args:
        config: of a job.
        known: answers for groups by their identity, as long as they live: jobs of a sweep share most of them.
    """
    known = {} if known is None else known
    found: list[Hashable] = []
    for key, value in vars(config).items():
        if isinstance(value, (int, float, str)):
            if key not in _OWN:
                found.append((key, value))
            continue
        if id(value) not in known:
            known[id(value)] = _group(key, value)
        found.append(known[id(value)])
    return tuple(found)


def describe(plan: Plan, configs: Mapping[int, Config]) -> str:
    """The plan in a line or two: `1000 jobs: 4 stacks (batch_size 1, 5, 20, full); 0 alone`."""
    firsts = [configs[jobs[0]] for jobs in plan.stacks]
    differing = []
    for key in _TOLD:
        values = list(dict.fromkeys(_named(getattr(config, key)) for config in firsts))
        if len(values) > 1:
            differing.append(f"{key} {_listed(values)}")
    told = f" ({'; '.join(differing)})" if differing else ""
    text = f"{_count(len(configs), 'job')}: {_count(len(plan.stacks), 'stack')}{told}; {len(plan.alone)} alone"
    for reason in dict.fromkeys(plan.alone.values()):
        jobs = [number for number, why in plan.alone.items() if why == reason]
        text += f"\nalone: {'job' if len(jobs) == 1 else 'jobs'} {_listed(list(map(str, jobs)))}: {reason}"
    return "\n".join([text, *plan.notes])


def _group(key: str, value: Any) -> Hashable:
    """What jobs of a stack have in common of one group."""
    if key == "sweep":
        return None
    if key in ("optimizer", "scheduler"):
        return tuple((name, _shape(item)) for name, item in value.items())
    if key in ("model", "data"):
        free = _stackable(value["_target_"]) | (ORDER - {"batch_size"} if key == "data" else frozenset())
        return repr([(name, None if name in free else item) for name, item in value.items()])
    return repr(value)


def _shape(value: Any) -> Hashable:
    """A number is as good as any other of its kind; everything else is itself."""
    return (
        type(value).__name__
        if isinstance(value, (int, float)) and not isinstance(value, bool)
        else (len(value) if isinstance(value, list) else str(value))
    )


def _stackable(target: str) -> frozenset[str]:
    """What a class names as `stackable`; nothing where it cannot be found, which the job will tell by itself."""
    try:
        return frozenset(getattr(resolve_name(target), "stackable", ()))
    except Exception:
        return frozenset()


def _named(value: Any) -> str:
    """A value, or the class of a group, as it is called in conf/."""
    if isinstance(value, Mapping):
        return str(value["_target_"]).rpartition(".")[2].lower()
    return str(value)


def _listed(values: Sequence[str]) -> str:
    more = len(values) - MOST_TOLD
    return ", ".join(values) if more <= 0 else f"{', '.join(values[:MOST_TOLD])} and {more} more"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
