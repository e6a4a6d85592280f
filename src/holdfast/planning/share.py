"""Which jobs can be trained as one program, and why the others are trained alone.

What is known to be right in a stack is listed in `allowed`; what is not on the list runs alone. Models and data of the
user's own are tried besides, as `trial` says.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from torch import Tensor

from holdfast.config.schema import Config
from holdfast.data import DataModule, Rows
from holdfast.errors import in_a_line
from holdfast.model import Module
from holdfast.planning.allowed import check_class, check_hooks, check_settings
from holdfast.planning.child import in_a_child
from holdfast.planning.one_batch import try_one
from holdfast.planning.trial import try_together
from holdfast.single.build import build_data, build_module, set_up
from holdfast.single.isolation import isolated
from holdfast.stacked.inputs import is_shipped
from holdfast.usercode.state import read
from holdfast.usercode.watch import NoTrainer, UnstackableError, readable


@dataclass(frozen=True)
class Share:
    """Jobs that are trained in the same way.

    Attributes:
        jobs: their indexes among the jobs that were asked about.
        reason: why they train alone; None where they are one program.
        most: how many of them fit into half of the free memory.
        note: why they are not together with others of the same structure; "" where they are.
    """

    jobs: tuple[int, ...]
    reason: str | None
    most: int = 0
    note: str = ""


def share(configs: Sequence[Config]) -> list[Share]:
    """Which of some jobs can be one program.

    Args:
        configs: of jobs that have the same structure, as `holdfast.planning.plan.structure` tells.

    Returns:
        Every job in exactly one share.
    """
    everyone = tuple(range(len(configs)))
    with isolated():
        try:
            check_settings(configs[0])
            if is_shipped(configs[0]):
                return [Share(everyone, None, try_one(configs[0]))]
            return in_a_child(_share_users_code, configs)  # what their code leaves behind is not for the jobs
        except UnstackableError as error:
            return [Share(everyone, str(error))]
        except Exception as error:  # whatever it is, each job will report it in its own result
            return [Share(everyone, f"it could not be tried: {in_a_line(error)}")]


def _share_users_code(configs: Sequence[Config]) -> list[Share]:
    """Put jobs together whose modules differ in numbers only, and try them."""
    groups: dict[Hashable, list[int]] = {}
    refused: dict[str, list[int]] = {}
    verdicts: dict[Hashable, tuple[str | None, Hashable]] = {}  # of each different module and data module
    for index, config in enumerate(configs):
        parts = ((_look_at_module, (repr(config.model), config.seed)), (_look_at_data, repr(config.data)))
        looks = []
        for look, key in parts:
            if (look, key) not in verdicts:
                verdicts[look, key] = _safely(look, config)
            looks.append(verdicts[look, key])
        reason = next((reason for reason, _ in looks if reason is not None), None)
        if reason is not None:
            refused.setdefault(reason, []).append(index)
        else:
            groups.setdefault(tuple(structure for _, structure in looks), []).append(index)
    alone = [Share(tuple(jobs), reason) for reason, jobs in refused.items()]
    note = "" if len(groups) < 2 else "jobs whose modules differ in more than numbers have stacks of their own"
    return [part for jobs in groups.values() for part in _divided(configs, jobs, _DIVISIONS, note)] + alone


def _safely(look: Callable[[Config], Hashable], config: Config) -> tuple[str | None, Hashable]:
    """Why a job cannot be stacked, or what it must have in common with the others of its stack."""
    with isolated():
        try:
            return None, look(config)
        except UnstackableError as error:
            return str(error), None
        except (Exception, SystemExit) as error:
            return f"it could not be built: {in_a_line(error)}", None


def _look_at_module(config: Config) -> Hashable:
    module = build_module(config)
    check_class(module, Module, "holdfast.model.Module")
    assert isinstance(module, Module)
    if not module.automatic_optimization:
        raise UnstackableError(f"{type(module).__name__} optimizes by itself")
    check_hooks(module)
    state = read(module)
    for path, kind in state.hidden.items():
        raise UnstackableError(f"{readable(path)} is a {kind}, whose state cannot be read")
    return state.structure()


def _look_at_data(config: Config) -> Hashable:
    data = build_data(config.data)
    check_class(data, DataModule, "holdfast.data.DataModule")
    assert isinstance(data, DataModule)
    data.trainer = trainer = NoTrainer()  # type: ignore[assignment]
    try:
        set_up(data)
    finally:
        if trainer.reads:
            raise UnstackableError(f"{type(data).__name__} reads the Trainer (trainer.{trainer.reads[0]})")
    name = type(data).__name__
    for key in ("train", "val", "batch_size", "order_seed", "shuffle"):
        if key not in vars(data):
            raise UnstackableError(f"{name}.{key} is computed anew each time it is read")
    for rows in (data.train, data.val):
        if type(rows) is not Rows or any(type(part) is not Tensor for part in (rows.x, rows.y)):
            raise UnstackableError(f"{name} has rows of a class of its own, which a Trainer reads one batch at a time")
    # jobs of a stack take their batches from one tensor
    return data.batch_size, *((part.dtype, part.shape) for rows in (data.train, data.val) for part in (rows.x, rows.y))


_Division = Callable[[Config], Hashable]

_DIVISIONS: tuple[tuple[str, _Division], ...] = (
    ("arguments of model and data", lambda config: (repr(config.model), repr(config.data))),
    ("seed and arguments of model and data", lambda config: (repr(config.model), repr(config.data), config.seed)),
)
"""By what jobs are divided, coarse first, where a stack of all of them is not right."""


def _divided(
    configs: Sequence[Config], jobs: Sequence[int], divisions: Sequence[tuple[str, _Division]], note: str
) -> list[Share]:
    """Try jobs together; where that is not right, those with the same values."""
    try:
        with isolated():  # as if nothing had been built before
            most = try_one(configs[jobs[0]])
        try_together([configs[job] for job in jobs], most)
        return [Share(tuple(jobs), None, most, note)]
    except UnstackableError as error:
        reason = str(error)
    except Exception as error:
        reason = f"it could not be tried: {in_a_line(error)}"
    for number, (what, key) in enumerate(divisions):
        parts: dict[Hashable, list[int]] = {}
        for job in jobs:
            parts.setdefault(key(configs[job]), []).append(job)
        if len(parts) == 1:
            continue
        rest, why = divisions[number + 1 :], f"a stack for each value of {what}: in one for all of them {reason}"
        first, *others = parts.values()
        shares = _divided(configs, first, rest, why)
        if all(part.reason is not None for part in shares):
            break  # it is not the values: the others would only be tried in vain
        return shares + [part for some in others for part in _divided(configs, some, rest, why)]
    return [Share(tuple(jobs), reason)]
