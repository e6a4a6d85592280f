"""The entry of a process that trains one run together with others, all started by `process_group`."""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

from holdfast.errors import Stopped
from holdfast.execute.shown_error import error_as_plain
from holdfast.runtime import processes
from holdfast.runtime.lifeline import end_with
from holdfast.runtime.signals import listen
from holdfast.store.folders import RunFolder


def main() -> None:
    """Take part in the training of a run; what it is comes on standard input.

    The arguments of the program are the process id of the parent, and the file descriptor to which messages go.
    """
    parent, descriptor = map(int, sys.argv[1:3])
    end_with(parent)
    # a shell that starts a program in the background lets it ignore SIGINT, and its children too
    signal.signal(signal.SIGINT, signal.default_int_handler)
    listen()
    os.set_inheritable(descriptor, False)
    try:
        task = pickle.load(sys.stdin.buffer)  # by a pipe that the parent alone writes to
        _take_part(task, _Messages(descriptor))
    except Stopped as stop:
        sys.exit(stop.exit_code)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _take_part(task: Mapping[str, Any], messages: _Messages) -> None:
    _log_to(messages, task)
    if task["hydra"] is not None:
        _set_hydra_config(task["hydra"])
    with processes.joined(task["rank"], task["processes"], task["port"]):
        try:
            from holdfast.single.startup import import_training  # its imports read the environment

            import_training()
            from holdfast.single.trainer import train_one

            train_one(task["job"], RunFolder(task["folder"]), progress=task["progress"])
        except Exception as error:
            messages.send({"time": time.time(), **error_as_plain(error)})
            sys.exit(1)


class _Messages:
    """What goes to the process that waits for this one: a line of JSON for each message."""

    def __init__(self, descriptor: int) -> None:
        self._stream = os.fdopen(descriptor, "w")

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message; a signal does not cut it in two."""
        self._stream.write(f"{json.dumps(message)}\n")
        self._stream.flush()


class _Forwarded(logging.Handler):
    """Sends log records to the process that waits for this one, which writes the log."""

    def __init__(self, messages: _Messages) -> None:
        super().__init__()
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record, its text and its traceback put together."""
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        values = {"msg": record.getMessage(), "args": None, "exc_info": None}
        plain = {key: value for key, value in vars(record).items() if isinstance(value, (str, int, float))}
        self._messages.send({"log": {**plain, **values}})


def _log_to(messages: _Messages, task: Mapping[str, Any]) -> None:
    """Log as the parent does; of the processes that are not the first, errors alone."""
    root = logging.getLogger()
    root.handlers[:] = [_Forwarded(messages)]
    for name, level in task["levels"].items():
        logging.getLogger(name).setLevel(level)
    if task["rank"]:
        root.handlers[0].setLevel(logging.ERROR)


def _set_hydra_config(text: str) -> None:
    """Let the user's code read Hydra's configuration of the run."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.utils import setup_globals
    from omegaconf import OmegaConf

    setup_globals()
    HydraConfig.instance().cfg = OmegaConf.create(text)  # type: ignore[assignment]
