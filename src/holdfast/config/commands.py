"""The commands that Holdfast prints: how an interrupted run or sweep is resumed."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path


def command(*words: str) -> str:
    """A command as it is typed here: `holdfast ...` where there is no `train.py`, as beside the installed package.

    >>> command("-m", "lr=0.1,0.2")
    'python train.py -m lr=0.1,0.2'
    """
    has_script = Path(sys.argv[0]).name == "train.py" or Path("train.py").is_file()
    return shlex.join([*(["python", "train.py"] if has_script else ["holdfast"]), *words])


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
    return command(*flags, *multirun, f"resume={as_value(path)}", *keys)


def as_value(text: Path | str) -> str:
    """A path, or another text, as the value of an override: quoted where it has to be.

    >>> as_value("outputs/a"), as_value("a b")
    ('outputs/a', "'a b'")
    """
    return str(text) if re.fullmatch(r"[\w./+@-]+", str(text), re.ASCII) else quoted(text)


def quoted(path: Path | str) -> str:
    r"""A path, or another text, quoted for the grammar of Hydra's overrides.

    >>> quoted(Path("it's"))
    "'it\\'s'"
    """
    # a backslash is one, but before a quote, where it has to be doubled
    text = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + (found[2] and "\\'"), str(path))
    return f"'{text}'"
