"""The commands that Holdfast prints: how an interrupted run or sweep is resumed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path


def resume_command(path: Path, flags: Sequence[str] = (), keys: Sequence[str] = (), *, sweep: bool) -> str:
    """The command that resumes the run or the sweep in a folder.

    Args:
        path: the folder.
        flags: those of the present command line that say where configurations lie, such as `--config-dir`.
        keys: further overrides.
        sweep: whether the folder is that of a sweep.

    >>> resume_command(Path("outputs/runs/a"), sweep=False)
    'python train.py resume=outputs/runs/a'
    """
    multirun = ["-m"] if sweep else []
    value = str(path) if re.fullmatch(r"[\w./+@-]+", str(path)) else quoted(path)
    return shlex.join(["python", "train.py", *flags, *multirun, f"resume={value}", *keys])


def quoted(path: Path) -> str:
    r"""A path, quoted for the grammar of Hydra's overrides.

    >>> quoted(Path("it's"))
    "'it\\'s'"
    """
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
