"""Imports torch, Lightning and the engines, once it is known that they will be needed."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
