"""Everything that leans on Hydra's inside: words, composing once, flags, claiming folders, exit codes."""

from holdfast.hydra_seam.launch import as_single_run, launch
from holdfast.hydra_seam.loader import Loader, compose, settings
from holdfast.hydra_seam.resuming import own

__all__ = ["Loader", "as_single_run", "compose", "launch", "own", "settings"]
