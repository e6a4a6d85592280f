"""Imports torch, Lightning and the engines, once it is known that they will be needed."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from holdfast.config.options import TABLE
from holdfast.config.schema import Config
from holdfast.runtime.signals import deferred

BufferRows = int | None | Literal["auto"]
"""Rows of a table in memory at a time: None for all; "auto" where it is not settled yet."""


def import_training(*, freeze: bool = True) -> None:
    """Import all that trains. Garbage collection, which rests while modules load, starts here.

    Args:
        freeze: whether what is there by then is never searched for garbage; not where it is a caller's.
    """
    if "holdfast.single.trainer" not in sys.modules:
        with deferred(), _matplotlib_hidden():
            from holdfast.single import trainer  # noqa: F401

        if freeze:
            gc.freeze()  # what a later call would freeze is never freed
    gc.enable()


def prepare(config: Config, buffer_rows: BufferRows = "auto") -> None:
    """Import all that trains, and check that this machine has what a configuration asks for.

    Args:
        config: configuration of a run.
        buffer_rows: of its table, as an earlier process has settled it.

    Raises:
        ConfigError: it has not.
    """
    import_training()
    from holdfast.runtime.devices import check

    check(config)
    read_tables([(config.data, buffer_rows)])


def read_tables(groups: Iterable[tuple[dict[str, Any], BufferRows]]) -> None:
    """Read the tables of data groups, before anything is written, and say what was found out.

    Args:
        groups: data groups, whose `buffer_rows` are settled here; each with what an earlier process has settled.

    Raises:
        TableError: a table cannot be used.
    """
    pairs = [(group, buffer_rows) for group, buffer_rows in groups if group["_target_"] == TABLE]
    if not pairs:
        return
    from holdfast.caching.sources import settle_buffer
    from holdfast.runtime import processes

    said = dict.fromkeys(line for group, buffer_rows in pairs for line in settle_buffer(group, buffer_rows))
    if processes.is_leader():
        print("\n".join(said), flush=True)


def settled(config: Config) -> dict[str, BufferRows]:
    """What is recorded of a configuration whose table was read; nothing where it has none."""
    return {"buffer_rows": config.data["buffer_rows"]} if config.data["_target_"] == TABLE else {}


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
