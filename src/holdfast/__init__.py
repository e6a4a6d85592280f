"""Holdfast: Lightning experiments composed with Hydra, with honest hold-out selection.

>>> import holdfast
>>> holdfast.run.__name__
'run'
"""

from typing import TYPE_CHECKING, Any

from holdfast.errors import ConfigError, HoldfastError

if TYPE_CHECKING:
    from holdfast.api.calls import load, run, sweep

__version__ = "0.1.0"
__all__ = ["ConfigError", "HoldfastError", "load", "run", "sweep"]


def __getattr__(name: str) -> Any:
    """`run`, `sweep` and `load`, whose imports wait until one of them is asked for."""
    if name in ("run", "sweep", "load"):
        from holdfast.api import calls

        return getattr(calls, name)
    raise AttributeError(f"module 'holdfast' has no attribute {name!r}")
