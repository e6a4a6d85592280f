"""Processes that train one run together: started, watched and stopped by the one that waits for them."""

from __future__ import annotations

import json
import logging
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from holdfast.runtime.interpreter import python_command

SECONDS_TO_FOLLOW = 5.0
"""How long the others may take to end after the first process has ended with an error, in seconds."""

SECONDS_TO_STOP = 20.0
"""How long the first process may take to write what is needed to resume the run, in seconds."""

SECONDS_BETWEEN_LOOKS = 0.1

_KILLS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL)


@dataclass
class Member:
    """One of the processes.

    Attributes:
        rank: its number.
        process: the process, the leader of a session of its own.
        pipe: from which its messages are read, each a line of JSON.
        report: the error that it has reported; None if it has not.
    """

    rank: int
    process: subprocess.Popen[bytes]
    pipe: int
    report: dict[str, Any] | None = None
    _rest: bytes = field(default=b"", repr=False)

    def read(self) -> None:
        """Read what has arrived: log records are handled here as if they were of this process."""
        while select.select([self.pipe], [], [], 0)[0]:
            content = os.read(self.pipe, 1 << 16)
            if not content:
                return
            *lines, self._rest = (self._rest + content).split(b"\n")
            for message in map(json.loads, lines):
                if "log" in message:
                    logging.getLogger(message["log"]["name"]).handle(logging.makeLogRecord(message["log"]))
                else:
                    self.report = message

    def kill(self) -> None:
        """Kill the process and all that it has started in its session."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass(frozen=True)
class Failure:
    """Why processes that trained one run together have ended without a result.

    Attributes:
        rank: the process that failed first.
        code: its exit code, below zero where a signal has killed it; None while it runs.
        report: the error that it reported; None if it could not.
    """

    rank: int
    code: int | None
    report: dict[str, Any] | None


class ProcessGroup:
    """The processes of one run on this computer, for use in a `with` block, at whose end none is left.

    Args:
        count: how many they are.
        task: what they are given, values that can be pickled; each gets them with its own `rank`.
        name: shown by programs that list processes.
    """

    def __init__(self, count: int, task: Mapping[str, Any], name: str) -> None:
        self._count, self._task, self._name = count, task, name
        self._members: list[Member] = []

    def __enter__(self) -> ProcessGroup:
        sys.stdout.flush()
        # the system gives this port to nobody else meanwhile, but to a server that asks for it by its number
        self._reserved = socket.socket()
        try:
            self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._reserved.bind(("127.0.0.1", 0))
            more = {"port": self._reserved.getsockname()[1], "processes": self._count}
            for rank in range(self._count):
                self._members.append(self._started(rank, {**self._task, **more, "rank": rank}))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._kill()
        self._reserved.close()

    def wait(self) -> Failure | None:
        """Wait until all processes have ended; returns why they failed, if they did.

        The first process decides: where it has ended well, its result is written. Once a process has failed, or the
        first has ended, the others are killed if they do not end soon.
        """
        failure, deadline = None, float("inf")
        running = list(self._members)
        while running and time.monotonic() < deadline:
            select.select([member.pipe for member in running], [], [], SECONDS_BETWEEN_LOOKS)
            ended = [member for member in running if member.process.poll() is not None]
            for member in self._members:
                member.read()
            running = [member for member in running if member not in ended]
            if failure is None:
                failure = self._failure(ended)
            if failure is not None or self._members[0] in ended:
                deadline = min(deadline, time.monotonic() + SECONDS_TO_FOLLOW)
        return None if self._members[0].process.poll() == 0 else failure or self._failure(self._members)

    def stop(self) -> None:
        """Let the first process write what is needed to resume the run, and stop all.

        The others go on meanwhile: what it shares with them must not break off before its own signal has reached it.
        """
        leader, deadline = self._members[0], time.monotonic() + SECONDS_TO_STOP
        leader.process.terminate()
        while leader.process.poll() is None and time.monotonic() < deadline:
            for member in self._members:
                member.read()
            time.sleep(SECONDS_BETWEEN_LOOKS)
        self._kill()

    def _started(self, rank: int, task: Mapping[str, Any]) -> Member:
        reader, writer = os.pipe()
        words = [f"{os.getpid()}", f"{writer}", f"{self._name}, process {rank} of {self._count}"]
        try:
            process = subprocess.Popen(
                [*python_command("holdfast.execute.member"), *words],
                stdin=subprocess.PIPE,
                pass_fds=[writer],
                start_new_session=True,
            )
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        member = Member(rank, process, reader)
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin as stream:  # it may have ended already
            pickle.dump(task, stream)
        return member

    def _failure(self, ended: list[Member]) -> Failure | None:
        """The failure of processes that have ended: of one that was killed, or else of the first that reported."""
        failed = [member for member in ended if member.process.poll() != 0]
        if not failed:
            return None
        # a process aborts itself where another one has left it
        killed = [member for member in failed if -member.process.returncode in _KILLS]
        reported = sorted((each for each in self._members if each.report), key=lambda each: (each.report or {})["time"])
        first = (killed or reported or failed)[0]
        return Failure(first.rank, first.process.poll(), first.report)

    def _kill(self) -> None:
        for member in self._members:
            member.kill()
            member.read()
            os.close(member.pipe)
        self._members.clear()
