"""What SLURM is asked: to take an array, and how its elements are."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable
from typing import NamedTuple

from holdfast.errors import ClusterError, in_a_line

SECONDS_TO_ANSWER = 60.0
"""How long a command of SLURM may take."""

SECONDS_WITHOUT_ANSWER = 600.0
"""How long squeue may fail, as while the controller is started anew, before the sweep stops."""

_FIELDS = ("Name", "ArrayJobID", "ArrayTaskID", "State", "exit_code", "Reason")
_ALIVE = frozenset(
    {"PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "STOPPED", "COMPLETING", "RESIZING", "SIGNALING", "STAGE_OUT"}
    | {"REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
)
_ORDINARY_REASONS = frozenset({"None", "Resources", "Priority", "JobArrayTaskLimit", "BeginTime", "Prolog", ""})


class Element(NamedTuple):
    """An element of an array, for messages and as a key.

    Attributes:
        name: display name of the array.
        number: in the array, from 0.
    """

    name: str
    number: int


class Shown(NamedTuple):
    """What squeue shows of an element.

    Attributes:
        array: number that SLURM has given to the array.
        state: such as `RUNNING`.
        exit_code: of the element; negative for a signal.
        reason: why it does not run.
    """

    array: str
    state: str
    exit_code: int
    reason: str

    @property
    def is_alive(self) -> bool:
        """Whether the element runs, or will run."""
        return self.state in _ALIVE

    @property
    def obstacle(self) -> str | None:
        """Why the element may never run without help; None where it only waits for its turn."""
        return self.reason if self.state == "PENDING" and self.reason not in _ORDINARY_REASONS else None


def submit(text: str) -> str:
    """Submit a batch script; returns the number that SLURM has given to the array.

    Raises:
        ClusterError: SLURM refuses it; the message is SLURM's own.
    """
    try:
        done = _run(["sbatch", "--parsable"], text)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClusterError(f"sbatch cannot be run: {in_a_line(error)}") from None
    number = done.stdout.strip().partition(";")[0]
    if done.returncode or not number.isdecimal():
        reason = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").replace("\n", "\n  ")
        raise ClusterError(f"SLURM refuses the jobs:\n  {reason}")
    return number


class Queue:
    """Asks squeue, and bears with it where it does not answer for a while."""

    def __init__(self) -> None:
        self._failing_since: float | None = None

    def look(self, names: Iterable[str]) -> dict[Element, Shown] | None:
        """The elements of some arrays that squeue shows; ended ones for some minutes too. None where it fails.

        Args:
            names: display names of the arrays.

        Raises:
            ClusterError: it has failed for too long.
        """
        fields = ",".join(f"{field}:|" for field in _FIELDS)
        command = ["squeue", "--me", "--array", "--noheader", "--states=all"]
        try:
            done = _run([*command, f"--name={','.join(sorted(names))}", f"--Format={fields}"])
            problem = done.stderr.strip() if done.returncode else ""
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = in_a_line(error)
        if not problem:
            self._failing_since = None
            return parse(done.stdout)
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
            print(f"squeue does not answer, and is asked again: {problem}", flush=True)
        if now - self._failing_since > SECONDS_WITHOUT_ANSWER:
            raise ClusterError(f"squeue has not answered for {SECONDS_WITHOUT_ANSWER:.0f} s: {problem}")
        return None


def parse(text: str) -> dict[Element, Shown]:
    """The elements in the output of squeue.

    >>> parse("holdfast-a-0|12|3|FAILED|1792|NonZeroExitCode|")
    {Element(name='holdfast-a-0', number=3): Shown(array='12', state='FAILED', exit_code=7, reason='NonZeroExitCode')}
    """
    shown = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > len(_FIELDS) and cells[2].isdecimal():
            name, array, number, state, status, reason = cells[: len(_FIELDS)]
            shown[Element(name, int(number))] = Shown(array, state, _exit_code(status), reason)
    return shown


def _exit_code(status: str) -> int:
    """The exit code in what `wait` returned; srun, as a shell, adds 128 to the number of a signal."""
    value = int(status) if status.isdecimal() else 0
    code = -(value & 0x7F) or value >> 8
    return 128 - code if code > 128 else code


def _run(command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    # inside of an allocation, its variables would be taken for options of the new one
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SLURM_") or name in ("SLURM_CONF", "SLURM_CLUSTERS")
    }
    return subprocess.run(
        command,
        input=text,
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        timeout=SECONDS_TO_ANSWER,
        start_new_session=True,  # Ctrl-C is for the driver
    )
