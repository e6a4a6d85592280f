"""The steps of a module mapped over jobs, traced once for each shape, and replayed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from holdfast.arithmetic.drawn import DrawnFunction
from holdfast.arithmetic.steps import Call, JobTensors, ModuleSteps, Outcome
from holdfast.stacked.loaders import LoadedRows
from holdfast.usercode.collector import Logged
from holdfast.usercode.stand_in import CLOCK, StandInTrainer
from holdfast.usercode.watch import UnstackableError

_MOST_TRACES = 64
"""Traces of one step that are kept: a step that reads the clock needs a new one whenever it changes."""


class Result(NamedTuple):
    """What a step of all jobs returns.

    Attributes:
        gradient: shape `(jobs, parameters)`; of another step than a training step zero.
        outcome: of all jobs.
        logged: the calls of `self.log` behind `outcome.logs`.
        updated: paths of the metrics that were updated.
    """

    gradient: Tensor
    outcome: Outcome
    logged: list[Logged]
    updated: set[str]


class _Trace(NamedTuple):
    function: DrawnFunction
    logged: list[Logged]
    updated: set[str]


class Replay:
    """Calls the steps of many jobs.

    Args:
        steps: of the module that stands for all jobs.
        stand_in: in the place of its Trainer.
        trainer: knows the precision.
    """

    def __init__(self, steps: ModuleSteps, stand_in: StandInTrainer, trainer: pl.Trainer) -> None:
        self._steps, self._stand_in, self._precision = steps, stand_in, trainer.precision_plugin
        self._reads: dict[Any, tuple[frozenset[str], bool]] = {}  # what a step reads, by its shapes
        self._traces: dict[Any, _Trace] = {}
        # torch has no rule to map the fused recurrent layers of this library over jobs
        self._has_recurrent = any(isinstance(layer, nn.RNNBase) for layer in steps.module.modules())

    def forget(self) -> None:
        """Trace anew: the values in which jobs differ are others from now on."""
        self._traces.clear()

    def call(self, call: Call, jobs: JobTensors, rows: LoadedRows, leaves: Sequence[Tensor], generators: Any) -> Result:
        """Call a step.

        Args:
            call: which one.
            jobs: the tensors of the jobs.
            rows: of the loader; they know how a batch is made of its leaves.
            leaves: tensors of the batch of each job, shape `(jobs, batch, ...)`.
            generators: of each job.
        """
        shapes = (call.step, call.loader, tuple(leaf.shape for leaf in leaves))
        args = (jobs, list(leaves))
        with self._context():
            trace = self._traces.get(self._key(shapes, call))
            if trace is None:
                if call.step == "training_step" and self._changes_every_step(shapes):
                    return self._untraced(call, rows, args)
                trace = self._trace(call, rows, args, shapes)
            gradient, outcome = trace.function(generators, *args)
        return Result(gradient, outcome, trace.logged, trace.updated)

    def call_once(
        self, call: Call, jobs: JobTensors, rows: LoadedRows, leaves: Sequence[Tensor], generators: Any
    ) -> Result:
        """Call a step that will not be called again: it is traced only if it draws random numbers."""
        with self._context(), torch.random.fork_rng(devices=[]):
            before = torch.get_rng_state()
            result = self._untraced(call, rows, (jobs, list(leaves)))
            draws = not torch.equal(torch.get_rng_state(), before)
        return self.call(call, jobs, rows, leaves, generators) if draws else result

    def _key(self, shapes: Any, call: Call) -> Any:
        """What a trace holds for: the shapes, and the values of what the step reads."""
        if shapes not in self._reads:
            return None
        names, reads_number = self._reads[shapes]
        known = self._stand_in.known
        return shapes, tuple(known[name] for name in sorted(names)), call.number if reads_number else None

    def _changes_every_step(self, shapes: Any) -> bool:
        names, reads_number = self._reads.get(shapes, (frozenset(), False))
        return reads_number or "global_step" in names

    def _trace(self, call: Call, rows: LoadedRows, args: Any, shapes: Any) -> _Trace:
        one = self._one(call, rows)
        self._stand_in.reads.clear()
        self._steps.reads_number = False
        jobs, leaves = _first(args)
        # with gradients, since torch chooses its functions by that
        first = (jobs._replace(parameters=jobs.parameters.detach().requires_grad_()), leaves)
        with torch.set_grad_enabled(call.step == "training_step"):
            function = DrawnFunction(self._mapped(one), lambda *some: one(*some, gradient=False), args, first)
        reads, _ = self._reads.get(shapes, (frozenset(), False))
        self._reads[shapes] = frozenset(self._stand_in.reads & CLOCK) | reads, self._steps.reads_number
        self._stand_in.check()
        if call.step == "training_step" and self._changes_every_step(shapes) and function.draws:
            raise UnstackableError("its training_step reads the number of the batch or step, and draws random numbers")
        if len(self._traces) >= _MOST_TRACES:
            self._traces.clear()
        trace = _Trace(function, self._steps.logged[call.step], self._steps.updated[call.step])
        self._traces[self._key(shapes, call)] = trace
        return trace

    def _untraced(self, call: Call, rows: LoadedRows, args: Any) -> Result:
        with torch.no_grad():
            gradient, outcome = self._mapped(self._one(call, rows))(*args)
        self._stand_in.check()
        return Result(gradient, outcome, self._steps.logged[call.step], self._steps.updated[call.step])

    def _one(self, call: Call, rows: LoadedRows) -> Any:
        """The step of one job, as a function of its tensors."""
        steps = self._steps

        def one(job: JobTensors, leaves: Any, *, gradient: bool = True) -> Any:
            batch = rows.batch(leaves)
            if gradient and call.step == "training_step":
                return steps.gradient(call, job, batch)
            # without gradient as a job alone would call it, to see what it draws
            outcome = steps.evaluate(call, job, batch) if gradient else steps.call(call, job, batch)
            return job.parameters.new_zeros(()), outcome

        return one

    def _mapped(self, one: Any) -> Any:
        mapped = vmap(one, randomness="different")

        def of_all(jobs: JobTensors, leaves: Any) -> Any:
            return mapped(jobs, leaves)

        return of_all

    @contextmanager
    def _context(self) -> Iterator[None]:
        """How torch has to be set while steps are called or traced."""
        functorch: Any = torch._C._functorch
        before = functorch._is_vmap_fallback_enabled()
        functorch._set_vmap_fallback_enabled(False)  # it would loop over the jobs
        library, library_before = torch._C, torch._C._get_mkldnn_enabled()
        library._set_mkldnn_enabled(library_before and not self._has_recurrent)
        fast_before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # fused layers have no rule to be mapped either
        try:
            with sdpa_kernel(SDPBackend.MATH), self._precision.forward_context():
                yield
        finally:
            functorch._set_vmap_fallback_enabled(before)
            library._set_mkldnn_enabled(library_before)
            torch.backends.mha.set_fastpath_enabled(fast_before)


def _first(tensors: Any) -> Any:
    """The tensors of the first job."""
    return torch.utils._pytree.tree_map(lambda tensor: tensor[0], tensors)
