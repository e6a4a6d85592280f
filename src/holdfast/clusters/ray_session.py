"""Ray itself: joined where a cluster runs, otherwise started on this computer, and left as it was found."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray

from holdfast.clusters.ray_guard import Guard, descendants
from holdfast.clusters.ray_keys import RayKeys
from holdfast.errors import ClusterError
from holdfast.runtime.cores import core_count
from holdfast.runtime.signals import deferred

SECONDS_TO_ANSWER = 5.0
"""How long the head of a cluster may take to accept a connection."""

_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""How a client of HTTP/2 begins; the server answers with a frame of its settings."""

_SETTINGS_FRAME = b"\4"

_QUIET: Mapping[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
_OBJECT_STORE_BYTES = 512 << 20  # pieces of some megabytes pass through it


class RaySession:
    """A connection to Ray.

    Args:
        keys: keys of `hydra.launcher`.

    Attributes:
        runtime_env: what Ray still has to prepare for each worker; empty where it does so for the whole driver.

    Raises:
        ClusterError: Ray cannot be joined or started.
    """

    def __init__(self, keys: RayKeys) -> None:
        self._environment: dict[str, str] = {}
        self._guard: Guard | None = None
        self.runtime_env: Mapping[str, Any] = {}
        self._is_ours = not ray.is_initialized()  # otherwise the program that called us has joined it, and needs it
        if not self._is_ours:
            self.runtime_env = keys.runtime_env or {}
            return
        address = running_cluster() if keys.address == "auto" else None if keys.address == "local" else keys.address
        if address is not None:
            check_answers(address)
        print(f"joining the Ray cluster at {address}" if address else "starting Ray on this computer", flush=True)
        try:
            self._set(local=address is None)
            with deferred():  # Ray replaces the handler of SIGTERM
                before = descendants()
                ray.init(**self._arguments(keys, address))
                if address is None:
                    self._guard = Guard(before)
        except (RuntimeError, ValueError, OSError) as error:  # as Ray raises them; ConnectionError is an OSError
            self.close()
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            where = f"the Ray cluster at {address} cannot be joined" if address else "Ray cannot be started"
            raise ClusterError("\n  ".join([f"{where}:", *lines])) from None

    def close(self) -> None:
        """Leave the cluster; Ray is stopped where it was started for this driver."""
        if self._is_ours:
            with deferred():
                ray.shutdown()
                if self._guard is not None:
                    self._guard.close()
        for name in self._environment:
            os.environ.pop(name, None)

    def _arguments(self, keys: RayKeys, address: str | None) -> dict[str, Any]:
        environment = {"runtime_env": dict(keys.runtime_env)} if keys.runtime_env else {}
        if address is not None:
            return {"address": address, **_QUIET, **environment}
        wanted = keys.workers * keys.cpus_per_worker if isinstance(keys.workers, int) else 0
        return {
            "address": "local",
            "num_cpus": max(core_count(), int(wanted)),  # who asks for more workers than there are cores gets them
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
            **_QUIET,
            **environment,
        }

    def _set(self, *, local: bool) -> None:
        """Set environment variables of Ray until the end, as far as the user has not set them."""
        wanted = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}  # the default of later versions; keeps Ray from a warning
        if local:
            wanted |= {"RAY_USAGE_STATS_ENABLED": "0", **_token()}
        self._environment = {name: value for name, value in wanted.items() if name not in os.environ}
        os.environ.update(self._environment)


def running_cluster() -> str | None:
    """The address of the cluster that runs on this computer, or that `RAY_ADDRESS` names; None where there is none.

    The file in which `ray start` writes its address outlives a cluster that was killed; it counts only where something
    answers there.
    """
    if named := os.environ.get("RAY_ADDRESS"):
        return None if named in ("auto", "local") else named
    try:
        from ray._private.utils import read_ray_address

        address = read_ray_address()
    except (ImportError, OSError):
        return None
    return address if address and answers(address) else None


def check_answers(address: str) -> None:
    """Check that something listens at an address.

    Raises:
        ClusterError: nothing does.
    """
    if not answers(address):
        raise ClusterError(
            f"no Ray cluster answers at {address}. Start one there by `ray start --head --port={_port(address)}`, or "
            "leave hydra.launcher.address out to start Ray on this computer"
        )


def answers(address: str) -> bool:
    """Whether a server of gRPC, as the head of a cluster is, listens at `HOST:PORT`.

    Ray itself would wait for minutes where another program listens.
    """
    host = address.rpartition(":")[0].strip("[]")
    try:
        with socket.create_connection((host, int(_port(address))), timeout=SECONDS_TO_ANSWER) as connection:
            if os.environ.get("RAY_USE_TLS", "0") != "0":
                return True  # it expects a certificate first
            connection.sendall(_GREETING)
            return connection.recv(9)[3:4] == _SETTINGS_FRAME
    except (OSError, ValueError, OverflowError):
        return False


def _port(address: str) -> str:
    return address.rpartition(":")[2]


def _token() -> dict[str, str]:
    """A token for a cluster of our own, whose processes let nobody else in; the user's where there is one."""
    if "RAY_AUTH_TOKEN_PATH" in os.environ or (Path.home() / ".ray" / "auth_token").is_file():
        return {}
    return {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
