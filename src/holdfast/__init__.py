"""Holdfast: Lightning experiments composed with Hydra, with honest hold-out selection.

>>> import holdfast
>>> holdfast.run.__name__
'run'
"""

# nothing is imported here: `python -m holdfast` comes by before it takes the working folder off the path
TYPE_CHECKING = False
if TYPE_CHECKING:
    from holdfast.api.calls import load, run, sweep
    from holdfast.api.finished import Run, Sweep
    from holdfast.errors import ConfigError, HoldfastError

__version__ = "0.2.0"
__all__ = ["ConfigError", "HoldfastError", "Run", "Sweep", "load", "run", "sweep"]


def __getattr__(name: str) -> object:
    """What `__all__` names, whose imports wait until it is asked for."""
    if name in ("run", "sweep", "load"):
        from holdfast.api import calls

        return getattr(calls, name)
    if name in ("Run", "Sweep"):
        from holdfast.api import finished

        return getattr(finished, name)
    if name in ("ConfigError", "HoldfastError"):
        from holdfast import errors

        return getattr(errors, name)
    raise AttributeError(f"module 'holdfast' has no attribute {name!r}")
