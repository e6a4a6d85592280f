"""Everything that leans on Hydra's inside: words, composing once, flags, claiming folders, exit codes."""

from holdfast.hydra_seam.launch import launch
from holdfast.hydra_seam.loader import Loader, compose, settings

__all__ = ["Loader", "compose", "launch", "settings"]
