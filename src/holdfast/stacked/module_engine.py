"""The engine of ordinary LightningModules: their own steps, optimizers and hooks, for many jobs at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holdfast.arithmetic.layout import Indexes, Layout
from holdfast.arithmetic.mapped_optimizer import MappedOptimizer
from holdfast.arithmetic.optimizers import clip
from holdfast.arithmetic.steps import Call, JobTensors
from holdfast.model import Module
from holdfast.runtime.modes import evaluating
from holdfast.stacked.engine import Logged, Metrics, Tensors
from holdfast.stacked.evaluation import measure_jobs
from holdfast.stacked.hooks import Hooks
from holdfast.stacked.logs import StackLog, Values, as_arrays, merged
from holdfast.stacked.module_inputs import ModuleInputs
from holdfast.stacked.module_jobs import ModuleJob
from holdfast.stacked.module_state import ModuleState
from holdfast.stacked.replay import Replay, Result
from holdfast.usercode.watch import Watch


class ModuleEngine:
    """Trains jobs of a LightningModule on the rows of its DataLoaders: an implementation of `Engine`.

    Args:
        inputs: the jobs.
    """

    splits_epochs = False

    def __init__(self, inputs: ModuleInputs) -> None:
        self._inputs, self.config, self.jobs = inputs, inputs.configs[0], len(inputs.configs)
        self.iterations, self.batch_size = inputs.iterations, inputs.batch_size
        self.stream_of: Indexes = np.arange(self.jobs)
        tensors = JobTensors(
            inputs.parameters,
            {**inputs.constants, **inputs.buffers},
            inputs.states,
            [each.values for each in inputs.job_values],
        )
        optimizer = MappedOptimizer([job.optimizer for job in inputs.jobs], inputs.group_sizes)
        self._state = ModuleState(tensors, optimizer)
        self._replay = Replay(inputs.steps, inputs.stand_in, inputs.trainer)
        self._hooks = Hooks(inputs.steps, self._replay, [name for names in inputs.names for name in names])
        self._watch = Watch(inputs.module, inputs.stand_in)
        self._present: Indexes = np.arange(self.jobs)  # the job in each row of the tensors
        self._train_log, self._val_log = StackLog(training=True), StackLog(training=False)
        self._epoch, self._rates = 0, np.zeros(self.jobs)
        self._steps_schedulers = any(each.interval == "step" for job in inputs.jobs for each in job.schedulers)
        self._orders: list[Tensor] = []  # the rows of each batch, shape (jobs, batch)
        self._callback: Values = {}
        self.logged: list[Logged] = []

    @property
    def parameters(self) -> Tensor:
        """The trained parameters, shape `(parameters, jobs, 1)`."""
        return self._state.tensors.parameters.T.unsqueeze(-1)

    def _members(self) -> list[ModuleJob]:
        """The job in each row."""
        return [self._inputs.jobs[job] for job in self._present]

    def _running(self) -> list[ModuleJob]:
        """The jobs that have not diverged in this epoch."""
        over = set(self._train_log.frozen.tolist())
        return [job for row, job in enumerate(self._members()) if row not in over]

    def begin_epoch(self, epoch: int) -> None:
        """Let schedulers look at the last epoch, call the hooks, and draw the order of the rows."""
        members = self._members()
        if epoch > 0:
            for row, job in enumerate(members):
                job.step_plateau(epoch, self._callback, row)
        self._epoch, early = epoch, None
        self._set_clock(epoch * self.iterations, training=True)
        if epoch == 0:
            self._call("on_fit_start", "train_log")
            # workers are given the first batches as soon as they are started
            early = self._order("train", 0, base_seed=True) if self._inputs.first_rows("train", 0).has_workers else None
            self._call("on_train_start", "train_log")
        for number, job in zip(self._present, members, strict=True):
            job.begin_epoch(epoch)
            self._rates[number] = job.optimizer.param_groups[0]["lr"]
        self._call("on_train_epoch_start", "train_log")
        self._orders = early or self._order("train", 0, base_seed=epoch > 0)
        self._state.optimizer.set_groups([job.optimizer.param_groups for job in members])

    def _set_clock(self, global_step: int, *, training: bool) -> None:
        for stand_in in (self._inputs.stand_in, *(job.stand_in for job in self._members())):
            stand_in.known.update(current_epoch=self._epoch, global_step=global_step)
            stand_in.update(training=training)

    def _call(self, hook: str, name: str) -> None:
        """Call a hook at the start of something."""
        members, log = self._members(), self._val_log if name == "val_log" else self._train_log
        self._state.tensors, _ = self._hooks.call(hook, members, self._state.tensors, name)
        for each in getattr(members[0], name).values():
            log.order.setdefault(each.meta.name, len(log.order))

    def _order(self, split: str, loader: int, *, base_seed: bool, whole: bool = False) -> list[Tensor]:
        """The rows of each batch of an epoch, each of shape `(jobs, batch)`."""
        orders, most = [], None if whole else self._inputs.limits[split == "val"]
        for number, job in zip(self._present, self._members(), strict=True):
            rows, states, offset = self._inputs.rows(number, split, loader)
            order = rows.order(self._epoch, job.generator, states, most=most, base_seed=base_seed)
            orders.append([batch + offset for batch in order])
        return [torch.stack(batches).to(self._state.tensors.parameters.device) for batches in zip(*orders, strict=True)]

    def train(self, done: int, after_step: Callable[[Tensor], None] | None) -> list[Tensor]:
        """One more iteration."""
        step = self._epoch * self.iterations + done
        self._inputs.stand_in.known["global_step"] = step
        result = self._step(Call("training_step", done), "train", self._orders[done], self._train_log)
        gradient, sizes, settings = result.gradient, self._inputs.group_sizes, self.config.trainer
        if settings.gradient_clip_val is not None:
            gradient = clip(gradient.T, settings.gradient_clip_val, settings.gradient_clip_algorithm).T
        self._state.update(torch.split(self._state.tensors.parameters, sizes, 1), torch.split(gradient, sizes, 1))
        if after_step:
            after_step(self.parameters)
        if self._steps_schedulers:
            for job in self._running():
                job.step_schedulers("step", done + 1)
            self._state.optimizer.set_groups([job.optimizer.param_groups for job in self._members()])
        if (step + 1) % self._inputs.log_every == 0:
            self._add_logged(step, self._values(self._train_log, on_step=True)["log"], ends=False)
        return [result.outcome.loss]

    def first_step(self) -> tuple[Tensor, Result]:
        """The rows of the first batch of each job, shape `(jobs, batch)`, and its step, without an update."""
        rows = self._orders[0]
        return rows, self._step(Call("training_step", 0), "train", rows, self._train_log, once=True)

    def _step(self, call: Call, split: str, rows: Tensor, log: StackLog | None, *, once: bool = False) -> Result:
        """Call a step of all jobs; once, if it will not be called again."""
        leaves = [leaf[rows] for leaf in self._inputs.leaves(split, call.loader or 0)]
        loaded = self._inputs.first_rows(split, call.loader or 0)
        generators = [job.generator for job in self._members()]
        replay = self._replay.call_once if once else self._replay.call
        result = replay(call, self._state.tensors, loaded, leaves, generators)
        self._hooks.count(result.updated)
        self._state.tensors = self._state.tensors._replace(
            others={**self._state.tensors.others, **result.outcome.buffers}, states=result.outcome.states
        )
        if log is not None:
            with self._inputs.trainer.precision_plugin.forward_context():  # in it Lightning chooses the type of sums
                log.add(result.logged, result.outcome.logs, loaded.batch([leaf[0] for leaf in leaves]), call.loader)
        return result

    def losses(self, outcomes: list[Tensor]) -> Tensor:
        """The losses of some iterations."""
        return torch.stack(outcomes).unsqueeze(-1)

    def freeze(self, columns: Indexes) -> None:
        """Keep what jobs that have diverged have logged: their epoch ends here."""
        self._train_log.freeze(columns)

    def validate(self, epoch: int) -> Metrics:
        """Validate, and call the hooks of the end of an epoch."""
        done = (epoch + 1) * self.iterations
        self._callback |= self._values(self._train_log, on_step=True)["callback"]
        for job in self._running():
            job.step_schedulers("epoch", epoch + 1)
        self._set_clock(done, training=False)
        if self._inputs.val_loaders:
            # hooks and metrics are called on a job's own module, and can see its mode
            with evaluating(self._inputs.module, *(job.module for job in self._members() if job.hooks or job.metrics)):
                self._validate()
        self._set_clock(done, training=True)
        self._end("on_train_epoch_end", "train_log", self._train_log)
        return as_arrays(self._callback)

    def _validate(self) -> None:
        """Validate on all rows."""
        loaders, sums = self._inputs.val_loaders, list[list[Tensor]]()
        self._val_log.reset()
        for loader in range(loaders):
            # its iterator draws the seed of its workers, before the hook
            orders = self._order("val", loader, base_seed=True)
            if loader == 0:
                self._call("on_validation_epoch_start", "val_log")
            number = loader if loaders > 1 else None
            for index, rows in enumerate(orders):
                with torch.no_grad():
                    result = self._step(Call("validation_step", index, number), "val", rows, self._val_log)
                sums.append(result.outcome.sums)
            if number is not None:
                self._val_log.end_loader(number)
        if any(sums):
            for row, job in enumerate(self._members()):
                job.module._sums = [each[row] for batch in sums for each in batch]  # type: ignore[assignment]
        self._end("on_validation_epoch_end", "val_log", self._val_log)

    def _end(self, hook: str, name: str, log: StackLog) -> None:
        """End an epoch of training or of validation: call the hook, and take what was logged."""
        objects = list(log.objects.values())
        self._state.tensors, of_jobs = self._hooks.call(hook, self._members(), self._state.tensors, name, objects)
        values = self._values(log, on_step=False)
        values = merged(values, of_jobs, log.order) if of_jobs else values
        self._callback |= values["callback"]
        self._add_logged((self._epoch + 1) * self.iterations - 1, values["log"], ends=True)
        log.reset()

    def _values(self, log: StackLog, *, on_step: bool) -> dict[str, Values]:
        return log.values(on_step=on_step, jobs=len(self._present))

    def _add_logged(self, step: int, values: Values, *, ends: bool) -> None:
        if values:
            self.logged.append(Logged(step, self._epoch * self.iterations if ends else -1, as_arrays(values)))

    def measure_train(self) -> Metrics:
        """The metrics over all training rows, of modules that have a method `loss`."""
        if not self._inputs.has_loss:
            return {}
        module = self._inputs.module
        with evaluating(module), self._inputs.draws_undone(self._members()), torch.no_grad():
            batches = self._order("train", 0, base_seed=True, whole=True)
            sums = [self._step(Call("sums", 0), "train", rows, None).outcome.sums[0] for rows in batches]
        return measure_jobs(module if isinstance(module, Module) else Module(), torch.stack(sums).sum(0), "train")

    def rates(self, epoch: int) -> NDArray[np.float64]:
        """The learning rate of each job at the start of the present epoch."""
        return self._rates

    def tensors(self) -> Tensors:
        """Parameters, buffers, states of metrics, and the state of the optimizer; views of what is trained."""
        named = self._state.named().items()
        return {name: value.reshape(len(value), -1).T.unsqueeze(-1) for name, value in named}

    def plain(self, jobs: Indexes) -> list[Any] | None:
        """The hyperparameters of the optimizer, the states of the schedulers, and what a checkpoint counts."""
        inputs = self._inputs
        shared = {"names": inputs.names, "batches": [self.iterations, inputs.val_batches]}
        return [{**inputs.jobs[job].plain(), **shared} for job in jobs]

    def set_tensors(self, tensors: Mapping[str, Tensor], layout: Layout, steps: int) -> None:
        """Go on with the jobs of another layout."""
        rows, before = layout.jobs.flatten(), self._present
        kept = [int(np.flatnonzero(before == job)[0]) for job in rows]
        self._state.keep(kept)
        self._callback = {name: value[kept] for name, value in self._callback.items()}
        if len(rows) < len(before):
            self._train_log, self._val_log = StackLog(training=True), StackLog(training=False)
        self._present = rows

    def put(self, columns: Indexes, tensors: Mapping[str, Tensor]) -> None:
        """Put tensors of earlier back, of some jobs."""
        self._state.put(columns, tensors)

    def snapshot(self) -> dict[str, Any]:
        """The tensors, and what the schedulers, the loaders and the modules of the jobs are between two epochs."""
        return {
            **self._state.snapshot(),
            "schedules": [self._inputs.jobs[job].plain() for job in self._present],
            "loaders": self._inputs.loader_states(),
            "callback": self._callback,
            "hooks": self._hooks.snapshot(self._members()),
        }

    def restore(self, snapshot: Mapping[str, Any], layout: Layout, steps: int) -> None:
        """Go on from a snapshot."""
        self.set_tensors({}, layout, steps)
        self._state.restore(snapshot, steps)
        self._callback = {name: value.to(self.parameters.device) for name, value in snapshot["callback"].items()}
        self._inputs.set_loader_states(snapshot["loaders"])
        for job, plain in zip(self._members(), snapshot["schedules"], strict=True):
            job.restore(plain)
        self._state.tensors = self._hooks.restore(snapshot["hooks"], self._members(), self._state.tensors)

    def check(self) -> None:
        """Check that the steps have done nothing but compute what they return."""
        self._inputs.stand_in.check()
        self._watch.check()
