"""A function called in a copy of this process: nothing that it does to the process is left behind."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def in_a_child(function: Callable[..., T], *args: Any) -> T:
    """Call a function in a forked child and return its result, which has to be one that can be pickled.

    Where a process cannot be forked safely, since an accelerator is in use, it is called here.

    Raises:
        ChildProcessError: the child ended without a result, such as by a crash or `sys.exit`.
        Exception: what the function raised.
    """
    if not hasattr(os, "fork") or sys.platform == "darwin" or torch.cuda.is_available():
        return function(*args)
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: there may be threads, all of them idle
        child = os.fork()
    if child == 0:
        os.close(reading)
        _answer(writing, function, args)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as stream:
            answer = stream.read()
    except BaseException:  # a signal: nobody waits for the answer any more
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


def _answer(writing: int, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Call the function, send its result, and end this process without what is done at the end of any other."""
    try:
        torch.set_num_threads(1)  # threads of the parent do not live on here
        try:
            answer = pickle.dumps((function(*args), None))
        except Exception as error:
            answer = pickle.dumps((None, error))
        with os.fdopen(writing, "wb") as stream:
            stream.write(answer)
    finally:
        sys.stdout.flush()
        os._exit(0)
