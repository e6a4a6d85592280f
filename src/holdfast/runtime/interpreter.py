"""The command of a new Python that runs a module of Holdfast with the search path of this one."""

from __future__ import annotations

import sys


def python_command(module: str) -> list[str]:
    """The words that start a Python which calls `main` of a module; further words are its arguments.

    The search path is set before anything is imported: the working folder must not shadow libraries.

    Args:
        module: its full name.
    """
    entry = f"import sys; sys.path[:] = sys.argv.pop(1).split('\\n'); from {module} import main; main()"
    return [sys.executable, "-u", "-c", entry, "\n".join(sys.path)]
