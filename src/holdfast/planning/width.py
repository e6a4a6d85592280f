"""How many jobs share a stack: a function of what one of them costs, of the kind of device, and of its memory.

Stacks of other widths round differently, so the width must be the same at every launch: nothing is timed. The constants
below are what `benchmarks/widths.py` measured.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from holdfast.usercode.watch import UnstackableError

NO_OTHER = "no other job has the same structure"
"""Why a job that could be a stack of its own is trained by a Trainer."""

_PAYS = 100_000_000
"""On a CPU, multiplications of an iteration of one job above which a stack is no faster than Trainers."""

_ENOUGH = 2_000_000_000
"""On a CPU, multiplications of an iteration of a stack above which more jobs do not make it faster for each."""

_PAYS_FOR_ONE, _ITERATIONS_FOR_ONE, _SUCH_JOBS = 20_000_000, 5_000, 6
"""On a CPU a stack of one job is faster than a Trainer below so many multiplications, by a millisecond an iteration.
That makes up for its trial after so many iterations, and for the verification if there are so many such jobs."""

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Cost(NamedTuple):
    """What a job of a stack costs.

    Attributes:
        size: its memory, in bytes.
        device: on which it is trained.
        multiplications: those of the matrix products and convolutions of an iteration, forward and backward; 0 for
            models that ship with Holdfast, whose stacks compute them together.
        iterations: of its training.
    """

    size: int
    device: torch.device
    multiplications: int = 0
    iterations: int = 0


def widest(cost: Cost) -> tuple[int, str]:
    """The largest number of jobs in a stack, at least 1, and what the plan says of it; "" if memory decides.

    Args:
        cost: of one of them.

    >>> widest(Cost(1000, torch.device("cpu"), multiplications=80_000_000))
    (25, 'stacks of at most 25 jobs: wider ones would not be faster')
    """
    fit = max(1, memory_for_stacks(cost.device) // cost.size)
    if cost.device.type != "cpu" or not cost.multiplications:
        return fit, ""
    enough = max(1, _ENOUGH // cost.multiplications)
    return (enough, f"stacks of at most {enough} jobs: wider ones would not be faster") if enough < fit else (fit, "")


def check_pays(cost: Cost, jobs: int | None, single: int = 0) -> None:
    """Refuse jobs for which a stack is not known to be faster than a Trainer for each.

    Args:
        cost: of one of them.
        jobs: how many have their structure; None if a stack is faster for a single one too.
        single: number of jobs in the sweep that are the only ones of their structures.

    Raises:
        UnstackableError: they are too large, or there is only one, and it is short.
    """
    on_cpu = cost.device.type == "cpu"
    if on_cpu and cost.multiplications > _PAYS:
        count = f"{cost.multiplications / 1e6:,.0f} million multiplications"
        raise UnstackableError(f"an iteration takes {count}, for which a stack is not faster")
    is_quick = cost.iterations >= _ITERATIONS_FOR_ONE and cost.multiplications <= _PAYS_FOR_ONE
    if jobs == 1 and not (on_cpu and is_quick and single >= _SUCH_JOBS):
        raise UnstackableError(NO_OTHER)


def multiplications(loss: Callable[[], Tensor], parameters: Sequence[Tensor]) -> int:
    """Multiplications of the matrix products and convolutions behind a loss and its gradient.

    >>> weight = torch.ones(8, 4, requires_grad=True)
    >>> multiplications(lambda: (torch.ones(2, 8) @ weight).sum(), [weight])
    128
    """
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)  # its fused recurrent layers, like fused attention, hide their products
    try:
        with sdpa_kernel(SDPBackend.MATH), _Products() as products:
            torch.autograd.grad(loss(), list(parameters), allow_unused=True)
    finally:
        torch._C._set_mkldnn_enabled(before)
    flops: int = products.flops  # which count additions too
    return flops // 2


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts by torch's own formulas; its `FlopCounterMode` has hooks that some modules cannot bear."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops: int = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if formula := flop_registry.get(function._overloadpacket):
            self.flops += int(formula(*args, **(kwargs or {}), out_val=result))
        return result


def memory_for_stacks(device: torch.device) -> int:
    """Memory that a stack may fill, in bytes: a quarter of the device's; half of what is free, where that is less."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
    else:
        free, total = _memory()
    return min(total // 4, free // 2)


def _memory() -> tuple[int, int]:
    """Free and total memory of this computer, or of the container in which this process runs."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = []
    for path in _CGROUP_LIMITS:
        with suppress(OSError):
            limits.append(Path(path).read_text().strip())
    total = min([physical, *(int(limit) for limit in limits if limit.isdigit())])
    try:
        sizes = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(sizes["MemAvailable"].split()[0]) * 1024, total
    except (OSError, KeyError):
        return physical // 2, total
