"""Imports torch, Lightning and the engines, once it is known that they will be needed."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from holdfast.config.options import TABLE
from holdfast.config.schema import Config
from holdfast.runtime.signals import deferred


def import_training() -> None:
    """Import all that trains. Garbage collection, which rests while modules load, starts here."""
    with deferred(), _matplotlib_hidden():
        from holdfast.single import trainer  # noqa: F401  (later imports of it cost nothing)

    gc.freeze()
    gc.enable()


def prepare(config: Config) -> None:
    """Import all that trains, and check that this machine has what a configuration asks for.

    Raises:
        ConfigError: it has not.
    """
    import_training()
    from holdfast.runtime.devices import check

    check(config)
    read_tables([config.data])


def read_tables(groups: Iterable[Mapping[str, Any]]) -> None:
    """Read the tables of data groups, before anything is written, and say what was found out.

    Raises:
        TableError: a table cannot be used.
    """
    tables = [group for group in groups if group["_target_"] == TABLE]
    if not tables:
        return
    from holdfast.runtime import processes
    from holdfast.tables.source import source_of

    said = dict.fromkeys(line for source in dict.fromkeys(map(source_of, tables)) for line in source.said)
    if processes.is_leader():
        print("\n".join(said), flush=True)


@contextmanager
def _matplotlib_hidden() -> Iterator[None]:
    """Keep torchmetrics from importing matplotlib, which takes 0.4 s, for plots that nobody asked for."""
    from lightning_utilities.core.imports import RequirementCache

    check = RequirementCache._check_available

    def hide(self: Any) -> None:
        if self.requirement == "matplotlib":
            self.available, self.message = False, "hidden by holdfast while it starts"
        check(self)

    RequirementCache._check_available = hide  # type: ignore[method-assign]
    try:
        yield
    finally:
        RequirementCache._check_available = check  # type: ignore[method-assign]
