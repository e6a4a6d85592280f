"""Which jobs of the same structure can share a program, and why the others are trained alone.

What is known to be right in a stack is listed in `allowed`; a job with anything else is trained alone. Modules and data
modules that do not ship with Holdfast must also pass the trial of `trial`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

from torch import Tensor

from holdfast.config.schema import Config
from holdfast.data import DataModule, Rows
from holdfast.errors import in_a_line
from holdfast.model import Module
from holdfast.planning.allowed import check_class, check_hooks, check_settings
from holdfast.planning.child import in_a_child
from holdfast.planning.plan import Share
from holdfast.planning.probe import probe
from holdfast.planning.trial import try_together
from holdfast.runtime.isolation import isolated
from holdfast.single.build import build_data, build_module, set_up
from holdfast.stacked.inputs import is_shipped
from holdfast.usercode.state import read
from holdfast.usercode.watch import NoTrainer, UnstackableError, readable


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
            check_settings(configs[0])
            if is_shipped(configs[0]):
                return [Share(everyone, None, probe(configs[0]))]
            return in_a_child(_share_users_code, configs)  # the user's code may change the process it runs in
        except UnstackableError as error:
            return [Share(everyone, str(error))]
        except Exception as error:  # trained alone, each job reports the error in its own result
            return [Share(everyone, f"it could not be tried: {in_a_line(error)}")]


class _Verdict(NamedTuple):
    """Whether a module or data module can be stacked.

    Attributes:
        reason: why it cannot; None if it can.
        structure: what it must have in common with the others of its stack.
    """

    reason: str | None
    structure: Hashable = None


def _share_users_code(configs: Sequence[Config]) -> list[Share]:
    """Group jobs whose modules differ only in numbers, and try each group in a stack."""
    groups: dict[Hashable, list[int]] = {}
    refused: dict[str, list[int]] = {}
    verdicts: dict[Hashable, _Verdict] = {}  # one for each different module and data module
    for index, config in enumerate(configs):
        module_key, data_key = ("module", repr(config.model), config.seed), ("data", repr(config.data))
        for key, inspect in ((module_key, _inspect_module), (data_key, _inspect_data)):
            if key not in verdicts:
                verdicts[key] = _verdict(inspect, config)
        module, data = verdicts[module_key], verdicts[data_key]
        reason = module.reason or data.reason
        if reason is not None:
            refused.setdefault(reason, []).append(index)
        else:
            groups.setdefault((module.structure, data.structure), []).append(index)
    alone = [Share(tuple(jobs), reason) for reason, jobs in refused.items()]
    note = "" if len(groups) < 2 else "jobs whose modules differ in more than numbers are in separate stacks"
    return [part for jobs in groups.values() for part in _divide(configs, jobs, _DIVISIONS, note)] + alone


def _verdict(inspect: Callable[[Config], Hashable], config: Config) -> _Verdict:
    with isolated():
        try:
            return _Verdict(None, inspect(config))
        except UnstackableError as error:
            return _Verdict(str(error))
        except (Exception, SystemExit) as error:
            return _Verdict(f"it could not be built: {in_a_line(error)}")


def _inspect_module(config: Config) -> Hashable:
    """The structure that the modules of a stack have in common."""
    module = build_module(config)
    check_class(module, Module)
    assert isinstance(module, Module)
    if not module.automatic_optimization:
        raise UnstackableError(f"{type(module).__name__} sets automatic_optimization to False")
    check_hooks(module)
    state = read(module)
    for path, kind in state.hidden.items():
        raise UnstackableError(f"{readable(path)} is a {kind}, whose state cannot be read")
    return state.structure()


def _inspect_data(config: Config) -> Hashable:
    """The batch size, and the types and shapes of the rows: jobs of a stack take their batches from one tensor."""
    data = build_data(config.data)
    check_class(data, DataModule)
    assert isinstance(data, DataModule)
    name = type(data).__name__
    data.trainer = trainer = NoTrainer()  # type: ignore[assignment]
    try:
        set_up(data)
    finally:
        if trainer.reads:
            raise UnstackableError(f"{name} reads the Trainer (trainer.{trainer.reads[0]})")
    for key in ("train", "val", "batch_size", "order_seed", "shuffle"):
        if key not in vars(data):
            raise UnstackableError(f"{name}.{key} is not an attribute of the object, but computed each time it is read")
    for rows in (data.train, data.val):
        if type(rows) is not Rows or any(type(part) is not Tensor for part in (rows.x, rows.y)):
            raise UnstackableError(f"{name} has rows of a subclass, which a Trainer reads one batch at a time")
    return data.batch_size, *((part.dtype, part.shape) for rows in (data.train, data.val) for part in (rows.x, rows.y))


_Division = tuple[str, Callable[[Config], Hashable]]

_DIVISIONS: tuple[_Division, ...] = (
    ("arguments of model and data", lambda config: (repr(config.model), repr(config.data))),
    ("seed and arguments of model and data", lambda config: (repr(config.model), repr(config.data), config.seed)),
)
"""Values by which jobs are divided, first the coarser division, if one stack of all of them fails the trial."""


def _divide(configs: Sequence[Config], jobs: Sequence[int], divisions: Sequence[_Division], note: str) -> list[Share]:
    """Try jobs together; if that fails, try those with the same values of a division together."""
    try:
        with isolated():  # as if nothing had been built before
            most = probe(configs[jobs[0]])
        try_together([configs[job] for job in jobs], most)
        return [Share(tuple(jobs), None, most, note)]
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
        shares = _divide(configs, first, finer, why)
        if all(part.reason is not None for part in shares):
            break  # the values are not the reason: the other parts would fail as well
        return shares + [part for other in others for part in _divide(configs, other, finer, why)]
    return [Share(tuple(jobs), reason)]
