"""Everything that leans on Hydra's inside: words, composing once, flags, claiming folders, exit codes."""

from holdfast.compose.launch import as_single_run, launch
from holdfast.compose.loader import Loader, compose, settings
from holdfast.compose.resuming import own

__all__ = ["Loader", "as_single_run", "compose", "launch", "own", "settings"]
