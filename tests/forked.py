"""Python commands that begin in a process which has imported torch and Lightning already.

`python("train.py", "lr=0.01")` does what `subprocess.run` would, in a fork of such a process, which begins in a
hundredth of a second instead of several. What a command imports, and what Python reads before it runs anything, such as
`PYTHONPATH`, is tested with processes of their own.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SECONDS = 300
"""How long a command may take."""


def python(*arguments: str | Path, cwd: Path | None = None, check: bool = False) -> subprocess.CompletedProcess[str]:
    """Run `python ARGUMENTS`, which begin with the path of a script or with `-m` and a module."""
    command = [str(each) for each in arguments]
    with tempfile.TemporaryDirectory() as name:
        out, err = Path(name, "out"), Path(name, "err")
        order = {"command": command, "cwd": os.fspath(cwd or Path.cwd()), "environment": dict(os.environ)}
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps({**order, "out": str(out), "err": str(err)}) + "\n")
        server.stdin.flush()
        done = subprocess.CompletedProcess(command, int(server.stdout.readline()), out.read_text(), err.read_text())
    if check:
        assert done.returncode == 0, done.stderr
    return done


@functools.cache
def _server() -> subprocess.Popen[str]:
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    root = Path(__file__).resolve().parents[1]  # that of conftest.py, which would bring pytest into the commands
    server = subprocess.Popen([sys.executable, "-m", "tests.forked"], cwd=root, text=True, **pipes)

    def end() -> None:
        server.communicate()  # it ends with its input

    atexit.register(end)
    return server


def _serve() -> None:
    """Run a command for each line of the standard input, and print its exit code."""
    from holdfast.single.startup import import_training

    import_training()
    for line in sys.stdin:
        order = json.loads(line)
        if (child := os.fork()) == 0:
            _run(**order)
            return
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(command: list[str], cwd: str, environment: dict[str, str], out: str, err: str) -> None:
    signal.alarm(SECONDS)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, path in ((0, os.devnull), (1, out), (2, err)):
        opened = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(opened, descriptor)
        os.close(opened)
    if command[0] == "-m":
        sys.argv, sys.path[0] = command[1:], cwd
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = command, os.path.dirname(os.path.abspath(command[0]))  # noqa: PTH100, PTH120
        runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    _serve()
