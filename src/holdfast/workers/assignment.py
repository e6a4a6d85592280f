"""What a worker process is given, as text that it checks: jobs, how they are trained, and the user's modules."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from holdfast.config.job import JobSpec
from holdfast.config.transfer import decoded, encoded, jobs_as_plain, jobs_from_plain
from holdfast.errors import WorkerError, in_a_line
from holdfast.execute.work import Work
from holdfast.store.versions import versions

_VERSION = 1


class Assignment(NamedTuple):
    """A work for a worker process, which composes nothing and knows nothing of the sweep.

    Attributes:
        work: the work; a job that is trained alone has its final configuration, but for its folder.
        keeps_events: whether the jobs of a stack leave event files.
        code: digests of the user's modules that the jobs name, by the name of the module.
        hydra: Hydra's configuration of a job that is trained alone; None for a stack.
    """

    work: Work
    keeps_events: bool
    code: Mapping[str, str]
    hydra: Mapping[str, Any] | None = None

    def as_text(self) -> str:
        """The assignment as a line with the digest of what follows, and JSON."""
        work = self.work
        text = json.dumps(
            {
                "version": _VERSION,
                "holdfast": versions()["holdfast"],
                "kind": work.kind,
                "jobs": jobs_as_plain(work.jobs),
                "finished": sorted(work.finished),
                "by_steps": work.by_steps,
                "threads": work.threads,
                "accelerator": work.accelerator,
                "keeps_events": self.keeps_events,
                "code": dict(self.code),
                "hydra": encoded(self.hydra),
            }
        )
        return f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}"

    @classmethod
    def from_text(cls, content: str) -> Assignment:
        """The assignment that `as_text` wrote.

        Raises:
            WorkerError: the text was altered on its way, or is of another version of Holdfast.
        """
        sha256, _, text = content.partition("\n")
        if hashlib.sha256(text.encode()).hexdigest() != sha256:
            raise WorkerError("what the worker was given was altered on its way: its digest differs")
        try:
            told = json.loads(text)
            if (told["version"], told["holdfast"]) != (_VERSION, versions()["holdfast"]):
                raise WorkerError(f"the worker has another version of Holdfast than {told['holdfast']}")
            jobs, finished = jobs_from_plain(told["jobs"]), frozenset(told["finished"])
            work = Work(told["kind"], jobs, finished, told["by_steps"], told["threads"], told["accelerator"])
            return cls(work, told["keeps_events"], told["code"], decoded(told["hydra"]))
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise WorkerError(f"what the worker was given cannot be read: {error!r}") from None


_imported: dict[str, str | None] = {}  # digests of the user's modules when this process imported them


def check_code(code: Mapping[str, str], jobs: Sequence[JobSpec]) -> None:
    """Import the classes that jobs name, and check that the user's modules are those of the driver.

    The digest of a module is that of its file when this process imported it: who edits a module while a sweep runs
    changes nothing for the workers that have it already.

    Args:
        code: digest of each module of the user's, as the driver has imported it; maybe of modules of other jobs too.
        jobs: the jobs.

    Raises:
        WorkerError: a module cannot be imported, or is another version; the message names it.
    """
    from holdfast.runtime.isolation import global_settings_restored
    from holdfast.runtime.targets import import_target
    from holdfast.usercode.packages import code_of

    groups = ("data", "model", "optimizer", "scheduler")
    targets = {getattr(job.config, group)["_target_"] for group in groups for job in jobs} - {None}
    for name, sha256 in code.items():
        # other targets are of a library, or the driver could not import them either: the job itself says so
        for target in sorted(target for target in targets if target.startswith(f"{name}.")):
            try:
                with global_settings_restored():
                    import_target(target)
            except Exception as error:  # whatever the user's module raises while it is imported
                raise WorkerError(f"the worker cannot import {target}: {in_a_line(error)}") from None
            if name not in _imported:
                _imported[name] = code_of([target]).get(name)
            if _imported[name] != sha256:
                raise WorkerError(
                    f"the worker has another version of the module {name} than the one with which the sweep was begun"
                )
