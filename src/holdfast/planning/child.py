"""Call a function in a forked child process, so that nothing it does to its process remains."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import torch

T = TypeVar("T")


def in_a_child(function: Callable[..., T], *args: Any) -> T:
    """Call a function in a forked child process and return its result.

    On macOS, and where CUDA is available, a process cannot be forked safely: the function is called in this process.

    Args:
        function: a function whose result, or exception, can be pickled.
        args: its arguments.

    Raises:
        ChildProcessError: the child ended without a result, for example by a crash or `sys.exit`.
        Exception: the exception that the function raised.

    >>> in_a_child(pow, 2, 3)
    8
    """
    if not hasattr(os, "fork") or sys.platform == "darwin" or torch.cuda.is_available():
        return function(*args)
    sys.stdout.flush()
    sys.stderr.flush()
    read_end, write_end = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, for processes with threads; ours are idle
        child = os.fork()
    if child == 0:
        os.close(read_end)
        _send_result(write_end, function, args)
    os.close(write_end)
    try:
        with os.fdopen(read_end, "rb") as stream:
            answer = stream.read()
    except BaseException:  # for example a signal: the result is not needed any more
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(child, 0)
    if not answer:
        raise ChildProcessError(f"its process ended with code {os.waitstatus_to_exitcode(status)}")
    result, error = pickle.loads(answer)
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def _send_result(write_end: int, function: Callable[..., Any], args: tuple[Any, ...]) -> NoReturn:
    """Call the function, send its result, and end this process without the exit handlers of its parent."""
    try:
        torch.set_num_threads(1)  # the threads of the parent do not exist here
        gc.freeze()  # what the parent has made is not searched for garbage
        try:
            answer = pickle.dumps((function(*args), None))
        except Exception as error:
            answer = pickle.dumps((None, error))
        with os.fdopen(write_end, "wb") as stream:
            stream.write(answer)
    finally:
        sys.stdout.flush()
        os._exit(0)
